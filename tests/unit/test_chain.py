"""The integer network as a module: forward the emulator's integers, backward the float network's gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import relays
import torch
import torch.nn.functional as F
from networks import corners, driven, replace_layers, seeded
from whole import SCALES, THETAS, UNITS, floats, images, integers

from toolchain import attacks, emulate
from toolchain.deployed import Chain, fingerprint
from toolchain.errors import UnsupportedError
from toolchain.ir import BiasCoding, Network


def ones(network):
    return {layer.name: (1.0,) for layer in network.chain}


def without_leaks(case):
    layers = tuple(
        replace(layer, neuron=replace(layer.neuron, i_decay=4096, v_decay=0)) for layer in case.network.layers
    )
    return replace(case, network=replace_layers(case.network, layers))


def pixels(images):
    return torch.from_numpy(images.copy()).float() / 255


def differing(case):
    """What the module does otherwise than the emulator."""
    chain, trace = Chain(case.network, ones(case.network)), emulate.run(case.network, case.images, record=True)
    found = []
    for name, record, spikes in zip(trace.layers, chain.recorded(pixels(case.images)), trace.spikes, strict=True):
        own = record.spikes.transpose(0, 1).numpy()
        if not np.array_equal(own, spikes[:, :, : own.shape[2]]):
            found.append(name)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            logits = chain.logits(torch.round(255 * pixels(case.images)) - chain.offset)
        if not np.array_equal(logits.detach().numpy(), trace.logits):
            found.append("logits")
    return found


def test_the_integers_are_the_emulators_on_random_networks():
    wraps = saturations = 0
    for seed in range(60):
        case = without_leaks(seeded(seed))
        trace = emulate.run(case.network, case.images)
        wraps, saturations = wraps + (trace.wraps.sum() > 0), saturations + (trace.saturations.sum() > 0)
        assert differing(case) == [], seed
        assert differing(driven(case)) == [], seed
    assert wraps > 3
    assert saturations > 3


def test_they_are_with_relays():
    for seed in range(20):
        assert differing(without_leaks(relays.seeded(seed))) == [], seed


@pytest.mark.parametrize("name", [name for name in corners() if "past 32" not in name and "decays" not in name])
def test_they_are_in_the_corners(name):
    assert differing(corners()[name]) == []


def test_a_network_without_a_gradient_is_refused_by_its_reason():
    said = {}
    for name in ("a current past 32 bits, by its leak", "a drive past 32 bits"):
        with pytest.raises(UnsupportedError) as caught:
            Chain(corners()[name].network, {"hidden": (1.0,), "logits": (1.0,)})
        said[name] = str(caught.value)
    assert list(said.values()) == [
        "hidden: its neurons leak, for which there is no gradient",
        "hidden: its sums may wrap more than once, for which there is no gradient",
    ]


# ------------------------------------------------------------------ gradients


def gradient(model, x, member):
    x = x.clone().requires_grad_()
    labels = torch.arange(len(x)) % 5
    with member.installed(model):
        logits = model(x)
        return logits.detach(), torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), x)[0]


@pytest.mark.parametrize("member", [*attacks.MEMBERS, *attacks.RATE_GRADIENT], ids=lambda member: member.name)
def test_where_all_numbers_are_whole_the_gradient_is_the_float_networks(member):
    network = integers()
    logits, found = gradient(Chain(network, SCALES), pixels(images()), member)
    expected_logits, expected = gradient(floats(network), pixels(images()).double(), member)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("member", [attacks.MEMBERS[index] for index in (0, 4, 9)], ids=lambda member: member.name)
def test_the_gradient_passes_the_hosts_division(member):
    """A driven layer divided by one is the same layer; by three its gradient is about as long: neither
    a third nor three times, though what the division rounds moves membranes.
    """
    _, expected = gradient(Chain(integers(), SCALES), pixels(images()), member)
    by_one = integers(bias=BiasCoding(divisor=np.array(1), limit=4095))
    torch.testing.assert_close(gradient(Chain(by_one, SCALES), pixels(images()), member)[1], expected)
    by_three = integers(bias=BiasCoding(divisor=np.array(3), limit=4095))
    first = by_three.layers[0]
    theta = np.array(THETAS["conv1"] // 3)
    layers = (replace(first, neuron=replace(first.neuron, theta=theta)), *by_three.layers[1:])
    found = gradient(Chain(replace_layers(by_three, layers), SCALES), pixels(images()), member)[1]
    cosine = F.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
    assert cosine > 0.95
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.5)


def test_a_theta_of_each_channel_has_a_unit_of_each_channel():
    """Doubling a channel's weights, bias and threshold and halving its unit is the same network."""
    network = integers()
    factor = np.array([1, 2, 1, 2])
    second = network.layers[1]
    neuron = replace(second.neuron, theta=second.neuron.theta * factor, bias=second.neuron.bias * factor)
    doubled = replace(second, weight=second.weight * factor[:, None, None, None], neuron=neuron)
    other = replace_layers(network, (network.layers[0], doubled, network.layers[2]))
    per_channel = {**SCALES, "conv2": tuple(UNITS["conv2"] / factor)}
    for member in attacks.MEMBERS:
        one = gradient(Chain(network, SCALES), pixels(images()), member)
        two = gradient(Chain(other, per_channel), pixels(images()), member)
        assert torch.equal(one[0], two[0])
        torch.testing.assert_close(one[1], two[1])


def test_unrounded_images_are_no_less_than_their_pixels_where_they_are_pixels():
    chain = Chain(integers(), SCALES)
    assert torch.equal(chain.unrounded(pixels(images())), chain(pixels(images())))
    moved = pixels(images()) + 0.4 / 255
    assert torch.equal(chain(moved), chain(pixels(images())))
    assert not torch.equal(chain.unrounded(moved), chain(moved))


def test_a_fingerprint_tells_every_number_from_another():
    network = integers()
    first = network.layers[0]
    weight, theta = first.weight.copy(), first.neuron.theta + 1
    weight[0, 0, 0, 0] += 1
    others = [
        network,
        replace_layers(network, (replace(first, weight=weight), *network.layers[1:])),
        replace_layers(network, (replace(first, neuron=replace(first.neuron, theta=theta)), *network.layers[1:])),
        integers(bias=BiasCoding(divisor=np.array(1), limit=4095)),
        Network(input=network.input, layers=network.layers, readout=network.readout, timesteps=6),
    ]
    assert len({fingerprint(one) for one in others}) == len(others)
    assert fingerprint(integers()) == fingerprint(network)
