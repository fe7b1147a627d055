import numpy as np
import pytest
import torch
from toy import SHAPE, net, split, toy

from toolchain import convert, percentiles, spiking
from toolchain.train import pixels


def converted(**settings):
    model = net()
    convert.convert(model, split(), toy(convert=settings))
    return model


def test_a_converted_network_spikes_and_keeps_weights_and_affine_parameters():
    model, before = converted(), net()
    assert (model.mode, model.timesteps, model.training) == ("snn", 4, False)
    for name, tensor in before.body.state_dict().items():
        if "running" not in name and "tracked" not in name and "v_th" not in name:
            assert torch.equal(model.body.state_dict()[name], tensor), name


def test_thresholds_are_the_scaled_percentile_of_each_layers_input_in_order():
    settings = {"batches": 1, "batch": 64, "timesteps": 6, "percentile": 90.0, "scale": 0.5}
    model, reference = converted(**settings), net()
    x = (pixels(split().images) - reference.mean) / reference.std
    body = reference.body
    with torch.no_grad():
        reference.train()
        first = body.bn1(body.conv1(x))
        body.act1.v_th.fill_(float(np.percentile(first.numpy(), 90)))
        spiking.configure(reference, mode="snn", timesteps=6)
        second = body.bn2(body.conv2(body.pool1(body.act1(first))))
    assert model.body.act1.v_th.item() == pytest.approx(0.5 * np.percentile(first.numpy(), 90), rel=1e-5)
    assert model.body.act2.v_th.item() == pytest.approx(0.5 * np.percentile(second.numpy(), 90), rel=1e-5)


def test_thresholds_never_fall_below_their_bound():
    model = converted(scale=0.001)
    assert all(layer.v_th.item() >= 0.03 - 1e-9 for layer in spiking.neurons(model))


def test_statistics_are_those_of_the_spiking_network_on_the_training_images():
    model = converted(batch=64)
    x = (pixels(split().images) - model.mean) / model.std
    body = model.body
    with torch.no_grad():
        first = body.conv1(x)
        torch.testing.assert_close(body.bn1.running_mean, first.mean(dim=(0, 2, 3)))
        body.bn1.train()
        second = body.conv2(body.pool1(body.act1(body.bn1(first))))
    torch.testing.assert_close(body.bn2.running_mean, second.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(body.bn2.running_var, second.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert body.bn1.momentum == 0.1


def test_more_steps_bring_the_rates_to_the_relu_networks():
    """With thresholds at the greatest input, a neuron's rate times V is its input, up to a step."""
    model = net()
    convert.convert(model, split(), toy(convert={"scale": 1.0, "percentile": 100.0}))
    spiking.configure(model, timesteps=400)
    x = torch.rand(2, *SHAPE)
    layer = model.body.act1
    inputs = model.body.bn1(model.body.conv1((x - model.mean) / model.std))
    rate = layer(inputs).reshape(400, *inputs.shape).mean(dim=0)
    # A hard reset loses what exceeds the threshold: the rate is 1 / ceil(V / x).
    expected = torch.where(inputs > 0, 1 / torch.ceil(layer.v_th / inputs.clamp(min=1e-9)), 0)
    assert (rate - expected).abs().max() < 0.01


@pytest.mark.parametrize("percent", [0.0, 1.0, 50.0, 99.7, 100.0])
@pytest.mark.parametrize("n", [1, 2, 7, 20_001])
@pytest.mark.parametrize("order", ["mixed", "sorted"])
def test_a_percentile_is_that_of_a_sort(percent, n, order, monkeypatch):
    """Over many chunks and parts and from a small sample, with negative numbers, ties and both zeros; sorted, the sample
    of one part says nothing of the others."""
    monkeypatch.setattr(percentiles, "CHUNK", 1000)
    monkeypatch.setattr(percentiles, "SAMPLE", 256)
    rng = np.random.default_rng(n)
    x = (rng.standard_normal(n) * 10.0 ** rng.integers(-30, 20, n)).astype(np.float32)
    x[::3] = rng.choice(np.float32([0.0, -0.0, 1.5]), len(x[::3]))
    ordered = np.sort(x).astype(np.float64)
    place = percent / 100 * (n - 1)
    low, high = ordered[int(place)], ordered[min(int(place) + 1, n - 1)]
    x = np.sort(x) if order == "sorted" else x
    parts = [torch.from_numpy(part) for part in np.array_split(x, 3) if len(part)]
    assert percentiles.percentile(parts, percent) == low + (place - int(place)) * (high - low)


def test_a_sample_that_misleads_costs_another_look_and_changes_nothing(monkeypatch):
    """The strided sample sees zeros alone; what lies between them is greater."""
    monkeypatch.setattr(percentiles, "SAMPLE", 100)
    x = torch.arange(10_100.0)
    x[:: 10_100 // 100 | 1] = 0.0
    assert percentiles.percentile([x], 50.0) == pytest.approx(np.percentile(x.numpy(), 50.0))
