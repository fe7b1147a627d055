"""The integer network as a module: forward the emulator's integers, backward the float network's gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import relays
import torch
import torch.nn.functional as F
from networks import corners, driven, replace_layers, seeded
from torch import nn

from toolchain import attacks, emulate, spiking
from toolchain.deployed import Chain, fingerprint
from toolchain.errors import UnsupportedError
from toolchain.ir import BiasCoding, Conv, Dense, Input, Network, Neuron, Readout
from toolchain.nets import Net

UNITS = {"conv1": 0.0021, "conv2": 0.053, "dense": 0.071, "logits": 0.11}
THETAS = {"conv1": 510, "conv2": 24, "dense": 18}
OFFSET = 77


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


def integers(*, bias=None):
    """A convolution, one behind a pool, a dense layer behind another, and a readout.

    Weights are even, biases odd and steps odd, so that no sum over steps is 0 or a multiple of T, which floats would miss.
    """
    rng = np.random.default_rng(5)

    def weight(*shape: int, most: int = 9):
        return 2 * rng.integers(-most, most + 1, shape)

    first = Conv(
        name="conv1",
        weight=weight(3, 1, 3, 3),
        neuron=Neuron(theta=np.array(THETAS["conv1"]), bias=1 + weight(3, most=60)),
        padding=(1, 1),
    )
    second = Conv(
        name="conv2",
        weight=weight(4, 3, 3, 3),
        neuron=Neuron(theta=np.array(THETAS["conv2"]), bias=1 + weight(4, most=3)),
        padding=(1, 1),
        pool=2,
    )
    third = Dense(
        name="dense",
        weight=weight(6, 16),
        neuron=Neuron(theta=np.array(THETAS["dense"]), bias=1 + weight(6, most=2)),
        pool=2,
    )
    readout = Readout(name="logits", weight=weight(5, 6), bias=weight(5))
    source = Input(shape=(1, 8, 8), offset=np.array([OFFSET]), bias=bias)
    return Network(input=source, layers=(first, second, third), readout=readout, timesteps=5)


def floats(network):
    """The float network that the integers are exactly, in float64: weights and thresholds in float units, pools that average."""
    std = 0.31
    body = nn.Sequential()
    for layer in network.chain:
        unit = UNITS[layer.name]
        gain = 255 * std if layer is network.layers[0] else layer.pool**2
        if layer.pool > 1:
            body.add_module(f"pool{len(body)}", nn.AvgPool2d(layer.pool))
        if not isinstance(layer, Conv) and not any(isinstance(one, nn.Flatten) for one in body):
            body.add_module("flatten", nn.Flatten())
        module = (
            nn.Conv2d(*layer.weight.shape[1::-1], 3, padding=1)
            if isinstance(layer, Conv)
            else nn.Linear(*layer.weight.shape[::-1])
        )
        whole_bias = layer.bias if isinstance(layer, Readout) else layer.neuron.bias
        with torch.no_grad():
            module.weight = nn.Parameter(torch.from_numpy(layer.weight * unit * gain).double())
            module.bias = nn.Parameter(torch.from_numpy(whole_bias * unit).double())
        body.add_module(layer.name, module)
        if not isinstance(layer, Readout):
            neurons = spiking.IF()
            # A hair below the threshold, so that sums that meet it exactly do so in float64 too.
            neurons.v_th = nn.Parameter(torch.tensor(THETAS[layer.name] * unit * (1 - 1e-9), dtype=torch.float64))
            body.add_module(f"act{len(body)}", neurons)
    net = Net(body, input_shape=(1, 8, 8), mean=(0.0,), std=(std,))
    net.double()
    net.mean = torch.tensor([OFFSET / 255], dtype=torch.float64)
    net.std = torch.tensor([std], dtype=torch.float64)
    spiking.configure(net, mode="snn", timesteps=network.timesteps)
    return net.eval()


def images():
    return np.random.default_rng(6).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)


def gradient(model, x, member):
    x = x.clone().requires_grad_()
    labels = torch.arange(len(x)) % 5
    with member.installed(model):
        logits = model(x)
        return logits.detach(), torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), x)[0]


@pytest.mark.parametrize("member", [*attacks.MEMBERS, *attacks.RATE_GRADIENT], ids=lambda member: member.name)
def test_where_all_numbers_are_whole_the_gradient_is_the_float_networks(member):
    network = integers()
    logits, found = gradient(Chain(network, {name: (unit,) for name, unit in UNITS.items()}), pixels(images()), member)
    expected_logits, expected = gradient(floats(network), pixels(images()).double(), member)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("member", [attacks.MEMBERS[index] for index in (0, 4, 9)], ids=lambda member: member.name)
def test_the_gradient_passes_the_hosts_division(member):
    """A driven layer divided by one is the same layer; by three its gradient is about as long: neither
    a third nor three times, though what the division rounds moves membranes.
    """
    scales = {name: (unit,) for name, unit in UNITS.items()}
    _, expected = gradient(Chain(integers(), scales), pixels(images()), member)
    by_one = integers(bias=BiasCoding(divisor=np.array(1), limit=4095))
    torch.testing.assert_close(gradient(Chain(by_one, scales), pixels(images()), member)[1], expected)
    by_three = integers(bias=BiasCoding(divisor=np.array(3), limit=4095))
    first = by_three.layers[0]
    theta = np.array(THETAS["conv1"] // 3)
    layers = (replace(first, neuron=replace(first.neuron, theta=theta)), *by_three.layers[1:])
    found = gradient(Chain(replace_layers(by_three, layers), scales), pixels(images()), member)[1]
    cosine = F.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
    assert cosine > 0.95
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.5)


def test_a_theta_of_each_channel_has_a_unit_of_each_channel():
    """Doubling a channel's weights, bias and threshold and halving its unit is the same network."""
    network, units = integers(), {name: (unit,) for name, unit in UNITS.items()}
    factor = np.array([1, 2, 1, 2])
    second = network.layers[1]
    neuron = replace(second.neuron, theta=second.neuron.theta * factor, bias=second.neuron.bias * factor)
    doubled = replace(second, weight=second.weight * factor[:, None, None, None], neuron=neuron)
    other = replace_layers(network, (network.layers[0], doubled, network.layers[2]))
    per_channel = {**units, "conv2": tuple(UNITS["conv2"] / factor)}
    for member in attacks.MEMBERS:
        one = gradient(Chain(network, units), pixels(images()), member)
        two = gradient(Chain(other, per_channel), pixels(images()), member)
        assert torch.equal(one[0], two[0])
        torch.testing.assert_close(one[1], two[1])


def test_unrounded_images_are_no_less_than_their_pixels_where_they_are_pixels():
    chain = Chain(integers(), {name: (unit,) for name, unit in UNITS.items()})
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
