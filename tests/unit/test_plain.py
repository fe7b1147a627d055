"""The network against the plain loops of the literature, in float64."""

import pytest
import torch
from plain import ByLayer, Loop
from toy import toy

from toolchain import nets, recipe, spiking, train

VGG = {"architecture": "vgg16", "width": 1}
CNN = {"layers": [3, "A", 4], "hidden": [5]}
NETS = [(VGG, (3, 16, 16)), (CNN, (1, 32, 32))]


def net(model, shape, *, timesteps=4):
    """A network with random weights, statistics and thresholds, in float64 and mode `snn`."""
    generator = torch.Generator().manual_seed(1)
    settings = recipe.from_dict({"model": model}).model
    made = nets.build(settings, shape, 3, mean=(0.4,) * shape[0], std=(0.3,) * shape[0], generator=generator).double()
    with torch.no_grad():
        for norm in nets.norms(made):
            norm.running_mean.normal_(0, 0.3, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            norm.weight.uniform_(0.5, 1.5, generator=generator)
        for layer in spiking.neurons(made):
            layer.v_th.uniform_(0.2, 0.6, generator=generator)
    spiking.configure(made, mode="snn", timesteps=timesteps)
    return made.eval()


def images(shape, n=4):
    return torch.rand(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def gradients(model, x, weights):
    """Of a weighted sum of logits, for images and every parameter, and the logits."""
    x = x.clone().requires_grad_()
    logits = model(x)
    return [logits.detach(), *torch.autograd.grad((logits * weights).sum(), [x, *model.parameters()])]


@pytest.mark.parametrize(("model", "shape"), NETS)
@pytest.mark.parametrize(
    "surrogate", [spiking.PiecewiseLinear(), spiking.Exponential(0.3, 2), spiking.StraightThrough()], ids=str
)
def test_in_evaluation_the_network_is_the_loop_over_steps_gradients_included(model, shape, surrogate):
    made, x = net(model, shape), images(shape)
    spiking.configure(made, surrogate=surrogate)
    weights = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ours, theirs = gradients(made, x, weights), gradients(Loop(made), x, weights)
    assert ours[1].abs().max() > 0
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("model", "shape"), NETS)
def test_a_training_step_is_that_of_the_loop_over_steps_of_each_layer(model, shape):
    """TRADES and RFGSM included: loss, gradients, batch statistics."""
    objective, results = train.snn_loss(toy().loss), []
    for wrapped in (False, True):
        made = net(model, shape)
        whole = ByLayer(made) if wrapped else made
        whole.train()
        loss = objective(whole, images(shape), torch.arange(4) % 3, torch.Generator().manual_seed(4))
        loss.backward()
        results.append([loss.detach(), *(weight.grad for weight in made.parameters()), *made.buffers()])
    assert all(gradient.isfinite().all() for gradient in results[0])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_a_layer_shown_its_input_once_is_the_layer_shown_it_at_each_step_gradients_included():
    x = images((2, 3, 3)).requires_grad_()
    found = []
    for constant in (True, False):
        layer = spiking.IF(v_th=0.7, timesteps=5).double()
        spiking.configure(layer, mode="snn")
        layer.constant = constant
        spikes = layer(x if constant else x.repeat(5, 1, 1, 1))
        weights = torch.linspace(-1, 1, spikes.numel(), dtype=torch.float64).reshape(spikes.shape)
        found.append([spikes.detach(), *torch.autograd.grad((spikes * weights).sum(), [x, layer.v_th])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_convolutions_take_large_maps_with_their_channels_last_and_small_ones_first():
    made, seen = net({"architecture": "vgg16", "width": 2}, (3, 32, 32)), []
    for layer in made.body:
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    made(images((3, 32, 32)))
    assert [x.is_contiguous(memory_format=torch.channels_last) for x in seen] == [x.shape[-1] >= 16 for x in seen]
    assert [x.is_contiguous() for x in seen] == [x.shape[-1] < 16 for x in seen]


def precise(precision):
    made = net({**VGG, "width": 4, "precision": precision}, (3, 16, 16)).float()
    return made, images((3, 16, 16)).float()


def test_bfloat16_multiplies_rounded_weights_and_keeps_membranes_in_float32():
    made, x = precise("bfloat16")
    seen = []
    for name, layer in made.body.named_children():
        layer.register_forward_hook(lambda _layer, _inputs, output, name=name: seen.append((name, output.dtype)))
    logits = made(x)
    logits.sum().backward()
    assert {dtype for name, dtype in seen if name.startswith("conv")} == {torch.bfloat16}
    assert {dtype for name, dtype in seen if name.startswith("act")} == {torch.float32}
    assert logits.dtype == made.body.conv2.weight.grad.dtype == torch.float32
    with torch.no_grad():  # the readout: rounded weights times rounded rates
        rounded = made.body.readout.weight.bfloat16().float()
    spikes = []
    made.body.act15.register_forward_hook(lambda _layer, _inputs, output: spikes.append(output))
    logits = made(x)
    expected = (spikes[0] @ rounded.T + made.body.readout.bias).reshape(4, 4, 3).mean(dim=0)
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.01)


def test_a_cpu_is_left_at_float32():
    (auto, x), (single, _), (half, _) = map(precise, ("auto", "float32", "bfloat16"))
    assert torch.equal(auto(x), single(x))
    assert not torch.equal(auto(x), half(x))
