"""`heal`: a forward pass that is the integers', a backward pass that is the float network's, and a file that keeps both."""

from __future__ import annotations

import numpy as np
import pytest
import residual
import tiny
import torch
import torch.nn.functional as F
from whole import SCALES, floats, images, integers

from toolchain import deployment, emulate, heal, nets, profile, store
from toolchain.deployment import Settings
from toolchain.errors import FormatError, UnsupportedError
from toolchain.quantize.scale import Widths

LOIHI2 = profile.load("loihi2")
LONG = {"epochs": 30, "lr": 0.05}
WIDE = Widths(weight_bits=8, bias_max=1 << 12, theta_max=1 << 17)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.model(tmp_path_factory.mktemp("tiny"))


def quantized(path, settings):
    made = store.load(path)
    return deployment.quantized(made, deployment.training_data(made), settings, LOIHI2)


def rounded(path, settings):
    made = quantized(path, settings)
    widths = {
        layer.name: Widths(weight_bits=layer.weight_bits, bias_max=WIDE.bias_max, theta_max=WIDE.theta_max)
        for layer in made.network.chain
    }
    scales = {name: facts.scale for name, facts in made.facts.items()}
    return made, heal.Rounded(nets.restore(store.load(path)), made.network, scales, widths)


def sums(module, pixels, scale, timesteps):
    """The logits in the readout's units, summed over steps."""
    with torch.no_grad():
        return module(torch.tensor(pixels) / 255).double().numpy() / scale * timesteps


@pytest.mark.parametrize("theta", ["layer", "channel"])
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_the_forward_pass_is_the_emulators(model, bits, theta):
    made, module = rounded(model, Settings(profile="loihi2", weight_bits=bits, theta=theta))
    pixels = deployment.training_data(store.load(model)).train.images
    expected = emulate.run(made.network, pixels).logits
    found = sums(module, pixels, made.facts["readout"].scale[0], made.network.timesteps)
    assert np.abs(found - expected).max() < 1e-2
    assert np.array_equal(np.rint(found), expected)


def test_gradients_of_every_parameter_are_the_float_networks_where_nothing_is_rounded():
    network = integers()
    net = floats(network)
    module = heal.Rounded(net, network, SCALES, dict.fromkeys(SCALES, WIDE))
    labels = torch.arange(6) % 5
    x = torch.from_numpy(images().copy()).double() / 255
    parameters = dict(net.named_parameters())
    losses = [F.cross_entropy(each(x).double(), labels) for each in (net, module)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    expected, found = (torch.autograd.grad(loss, list(parameters.values())) for loss in losses)
    for name, one, other in zip(parameters, expected, found, strict=True):
        assert one.abs().max() > 0, name
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max())), name


@pytest.fixture(scope="module")
def healed(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("healed") / "healed.pt"
    return out, heal.heal(model, out, Settings(profile="loihi2", weight_bits=2), **LONG)


def test_narrow_integers_are_better_afterwards(healed):
    _, result = healed
    before, after = (result["validation"][when]["none"]["accuracy"] for when in ("before", "after"))
    assert after > before + 0.1
    assert result["weight_bits"] == {"conv1": 2, "conv2": 2, "readout": 2}


def test_the_float_network_beside_them_is_measured_as_it_was(model, tmp_path, monkeypatch):
    measured, accuracies = [], heal._accuracies

    def spied(net, *settings: object):
        measured.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
        return accuracies(net, *settings)

    monkeypatch.setattr(heal, "_accuracies", spied)
    heal.heal(model, tmp_path / "healed.pt", Settings(profile="loihi2", weight_bits=1), epochs=1)
    original = nets.restore(store.load(model)).state_dict()
    assert all(torch.equal(measured[0][name], tensor) for name, tensor in original.items())


def test_the_mask_stays_and_every_pruned_weight_is_zero(healed, model):
    before, after = store.load(model), store.load(healed[0])
    assert after.stage == "heal"
    assert after.mode == "snn"
    for name, mask in after.mask.items():
        assert torch.equal(mask, before.mask[name])
        assert bool((after.state[name][~mask] == 0).all())
        assert not torch.equal(after.state[name][mask], before.state[name][mask])


def test_the_file_gives_the_integers_it_was_trained_as_and_its_figures_are_theirs(healed):
    out, result = healed
    made, module = rounded(out, Settings(profile="loihi2"))
    assert {layer.weight_bits for layer in made.network.chain} == {2}
    assert {name: facts.scale for name, facts in made.facts.items()} == store.load(out).scales
    split = deployment.training_data(store.load(out)).validation
    trace = emulate.run(made.network, split.images)
    found = sums(module, split.images, made.facts["readout"].scale[0], made.network.timesteps)
    assert np.array_equal(np.rint(found), trace.logits)
    assert result["validation"]["after"]["none"]["n_right"] == int((trace.classes() == split.labels).sum())


def test_recorded_scales_are_not_those_of_another_width_or_of_channels(healed):
    out, _ = healed
    recorded = store.load(out).scales
    wider = quantized(out, Settings(profile="loihi2", weight_bits={"conv2": 5}))
    assert wider.facts["conv1"].scale == recorded["conv1"]
    assert wider.facts["conv2"].scale != recorded["conv2"]
    assert len(quantized(out, Settings(profile="loihi2", theta="channel")).facts["conv2"].scale) > 1


def test_a_killed_run_ends_as_one_that_was_not(healed, model, tmp_path):
    out = tmp_path / "healed.pt"

    def killed(line):
        if line.startswith("epoch 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        heal.heal(model, out, Settings(profile="loihi2", weight_bits=2), **LONG, log=killed)
    assert [path.name for path in tmp_path.iterdir()] == ["healed.resume.pt"]
    lines: list[str] = []
    heal.heal(model, out, Settings(profile="loihi2", weight_bits=2), **LONG, log=lines.append)
    assert [line.split(",")[0] for line in lines if line.startswith("epoch")] == [
        f"epoch {n} of 30" for n in range(4, 31)
    ]
    assert out.read_bytes() == healed[0].read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["healed.pt"]


def test_what_another_run_left_is_not_gone_on_with_and_what_is_no_run_is_refused(model, tmp_path):
    out, left = tmp_path / "healed.pt", tmp_path / "healed.resume.pt"
    left.write_bytes(store.dump({"task": "another", "epoch": {"number": 1, "total": 2, "loss": 0.0} | NOTHING}))
    lines: list[str] = []
    heal.heal(model, out, Settings(profile="loihi2", weight_bits=3), epochs=1, log=lines.append)
    assert any(line.startswith("epoch 1 of 1") for line in lines)
    left.write_bytes(store.dump({"epoch": []}))
    with pytest.raises(FormatError, match="not a run to resume; delete it to begin again"):
        heal.heal(model, out, Settings(profile="loihi2", weight_bits=3), epochs=1)


NOTHING = {"model": {}, "optimizer": {}}


def test_where_it_does_harm_nothing_is_written(model, tmp_path):
    result = heal.heal(model, tmp_path / "healed.pt", Settings(profile="loihi2"), epochs=1, lr=5.0)
    assert result["out"] is None
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_trained_as_integers_is_refused_by_name(model, tmp_path):
    with pytest.raises(UnsupportedError, match=r"^conv1: on loihi1 a host computes it"):
        heal.heal(model, tmp_path / "healed.pt", Settings(profile="loihi1"))
    with pytest.raises(UnsupportedError, match=r"^block1: Block cannot be trained as integers; only a chain"):
        heal.Rounded(residual.net(), integers(), {}, {})
    assert list(tmp_path.iterdir()) == []
