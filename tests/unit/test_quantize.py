"""The border: what folding, scaling and rounding do to a float SNN."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from toolchain import emulate, quantize, spiking
from toolchain.errors import ConfigError, RangeError, UnsupportedError
from toolchain.ir import Conv, Dense, Input, Network, Neuron, Readout
from toolchain.nets import Net
from toolchain.quantize import Limits, bounds, float_spikes, fold
from toolchain.spiking import IF

LIMITS = Limits(weight_bits=8, bias_max=4095, theta_max=131_071)
T = 4


def spiking_net(*layers: tuple[str, nn.Module], shape=(2, 8, 8), mean=(0.3, 0.52), std=(0.25, 0.31)):
    body = nn.Sequential(OrderedDict(layers))
    net = Net(body, input_shape=shape, mean=mean[: shape[0]], std=std[: shape[0]])
    spiking.configure(net, mode="snn", timesteps=T)
    return net.eval()


def conv_net(*, seed=0, v_th=0.7, padding=1, groups=1, bias=False):
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(6)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.5, 0.5)
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.5, 2.0)
    side = 8 if padding else 6
    return spiking_net(
        ("conv1", nn.Conv2d(2, 6, 3, padding=padding, groups=groups, bias=bias)),
        ("bn1", norm),
        ("act1", IF(v_th=v_th)),
        ("pool1", nn.AvgPool2d(2)),
        ("conv2", nn.Conv2d(6, 5, 3, padding=1)),
        ("act2", IF(v_th=0.2)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(5 * (side // 2) ** 2, 7)),
        ("act3", IF(v_th=0.1)),
        ("readout", nn.Linear(7, 3)),
    )


def images(n=40, shape=(2, 8, 8), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def quantized(net, x, **settings):
    return quantize.quantize(
        net, **{"timesteps": T, "masks": {}, "images": x, "run": emulate.run, "limits": LIMITS, **settings}
    )


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_folding_changes_nothing_but_the_notation(padding, groups):
    """Messages through the folded first layer give the float net's pre-activations, borders included, to float64 noise."""
    net = conv_net(padding=padding, groups=groups, bias=True).double()
    x = images(6)
    source, layers = fold(net, (2, 8, 8), {})
    first = layers[0]
    conv = nn.Conv2d(2, 6, 3, padding=padding, groups=groups, bias=False).double()
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(first.weight))
        messages = torch.from_numpy(source.encode(x).astype(np.float64))
        bias = first.bias if first.bias.ndim == 3 else first.bias[:, None, None]
        folded = conv(messages) + torch.from_numpy(np.ascontiguousarray(bias))
        normalised = (torch.from_numpy(x) / 255.0 - net.mean[:, None, None]) / net.std[:, None, None]
        expected = net.body.bn1(net.body.conv1(normalised))
    assert torch.allclose(folded, expected, rtol=0, atol=1e-6)


def test_the_border_map_differs_from_the_inside_because_padding_is_not_the_rounded_mean():
    _, layers = fold(conv_net(), (2, 8, 8), {})
    bias = layers[0].bias
    assert bias.shape == (6, 8, 8)
    assert np.ptp(bias[:, 1:-1, 1:-1], axis=(1, 2)).max() < 1e-12
    assert np.abs(bias[:, 0, 0] - bias[:, 4, 4]).min() > 0


def test_without_padding_the_bias_is_one_number_a_channel():
    _, layers = fold(conv_net(padding=0), (2, 8, 8), {})
    assert layers[0].bias.shape == (6,)


def test_a_first_linear_layer_is_folded_too():
    net = spiking_net(
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(32, 9)),
        ("act", IF(v_th=0.5)),
        ("out", nn.Linear(9, 2)),
        shape=(2, 4, 4),
    )
    x = images(30, (2, 4, 4))
    made = quantized(net, x)
    assert isinstance(made.network.layers[0], Dense)
    agree = emulate.run(made.network, x, record=True).spikes[0] == float_spikes(net, x)[0]
    assert agree.mean() > 0.98


def test_a_representable_net_is_quantized_without_any_difference():
    """Weights that are multiples of 1/127 of their greatest, with thresholds and biases on the same grid, survive exactly."""
    rng = np.random.default_rng(3)
    net = spiking_net(
        ("conv1", nn.Conv2d(1, 4, 3, bias=True)),
        ("act1", IF(v_th=2.0 + 1 / 8192)),  # half a unit above the grid: no ties for float noise to decide
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(4 * 16, 6)),
        ("act2", IF(v_th=1.5)),
        ("readout", nn.Linear(6, 3)),
        shape=(1, 6, 6),
        mean=(128 / 255,),
        std=(64 / 255,),
    )
    with torch.no_grad():
        for layer in (net.body.conv1, net.body.fc, net.body.readout):
            layer.weight.copy_(torch.from_numpy(rng.integers(-127, 128, layer.weight.shape) / 64))
            layer.weight.view(-1)[0] = 127 / 64
            layer.bias.copy_(torch.from_numpy(rng.integers(-50, 51, layer.bias.shape) / 64))
    x = images(50, (1, 6, 6))
    made = quantized(net, x)
    trace = emulate.run(made.network, x, record=True)
    for ours, theirs in zip(trace.spikes, float_spikes(net, x), strict=True):
        assert 0.02 < theirs.mean() < 0.98
        assert np.array_equal(ours, theirs)
    with torch.no_grad():
        logits = net(torch.from_numpy(x) / 255).numpy()
    assert np.allclose(trace.logits / 64 / T, logits, atol=1e-5)
    assert all(fact.rounded_away == 0 for fact in made.facts.values())


@pytest.mark.parametrize("theta", ["layer", "channel"])
def test_eight_bits_change_few_spikes(theta):
    net, x = conv_net(), images()
    made = quantized(net, x, theta=theta)
    trace = emulate.run(made.network, x, record=True)
    differing = [np.mean(a != b) for a, b in zip(trace.spikes, float_spikes(net, x), strict=True)]
    assert differing == [made.facts[name].spikes_differing for name in ("conv1", "conv2", "fc")]
    assert differing[0] < 0.02
    coarse = quantized(net, x, theta=theta, weight_bits=3)
    assert differing[0] < coarse.facts["conv1"].spikes_differing / 3
    assert made.network.layers[0].neuron.theta.shape == (() if theta == "layer" else (6,))


def test_the_mask_decides_what_is_a_synapse_not_the_value():
    net = conv_net()
    mask = np.ones((6, 2, 3, 3), dtype=bool)
    mask[0] = False
    with torch.no_grad():
        net.body.conv1.weight[1, 0, 0, 0] = 0.0
    made = quantized(net, images(8), masks={"conv1": mask})
    assert not made.network.layers[0].weight[0].any()
    assert made.masks["conv1"].sum() == 5 * 18
    assert made.facts["conv1"].rounded_away >= 1


def test_scales_keep_weights_biases_and_thetas_inside_the_limits():
    limits = Limits(weight_bits=8, bias_max=300, theta_max=500)
    made = quantized(conv_net(), images(), limits=limits)
    for layer in made.network.layers:
        assert np.abs(layer.weight).max() <= 127
        assert np.abs(layer.neuron.bias).max() <= 300
        assert layer.neuron.theta.max() <= 500


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_take_no_more_than_the_bits_asked_for(bits):
    made = quantized(conv_net(), images(8), weight_bits=bits)
    assert all(np.abs(layer.weight).max() <= 2 ** (bits - 1) - 1 for layer in made.network.chain)


def test_more_bits_than_the_profile_has_are_a_range_error():
    with pytest.raises(RangeError) as error:
        quantized(conv_net(), images(4), limits=Limits(weight_bits=6, bias_max=4095, theta_max=131_071))
    assert str(error.value) == "weights: bits 8 of 6. Use --weight-bits 6 or fewer"


def test_a_layer_that_overflows_at_every_scale_is_a_range_error():
    net = spiking_net(
        ("conv1", nn.Conv2d(2, 1, 8)), ("act1", IF(v_th=0.05)), ("flatten", nn.Flatten()), ("out", nn.Linear(1, 2))
    )
    with torch.no_grad():
        net.body.conv1.weight.fill_(1.0)
    x = np.full((4, 2, 8, 8), 0, dtype=np.uint8)
    x[0] = 255
    with pytest.raises(RangeError) as error:
        quantized(net, x, run=lambda network, images, record: _always_overflowing(network, images, record=record))
    assert error.value.where == "conv1"
    assert "Prune conv1 further, use fewer weight bits, or train with smaller weights and biases" in str(error.value)


def _always_overflowing(network, images, *, record):
    import dataclasses

    trace = emulate.run(network, images, record=record)
    return dataclasses.replace(trace, wraps=trace.wraps + 1)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [("conv", nn.Conv2d(2, 3, 3)), ("pool", nn.MaxPool2d(2))],
            "pool: MaxPool2d cannot be deployed; use Conv2d, Linear, BatchNorm2d, IF, AvgPool2d or Flatten",
        ),
        ([("pool", nn.AvgPool2d(2))], "pool: an average pool is deployed only after spiking neurons"),
        ([("bn", nn.BatchNorm2d(2))], "bn: batch norm is deployed only between a convolution and its neurons"),
        ([("act", IF())], "act: spiking neurons are deployed only after a convolution or linear layer"),
        (
            [("conv", nn.Conv2d(2, 3, 3)), ("conv2", nn.Conv2d(3, 3, 3))],
            "conv: has no spiking neurons before conv2",
        ),
        (
            [("conv", nn.Conv2d(2, 3, 3)), ("act", IF()), ("pool", nn.AvgPool2d(3, 2))],
            "pool: only square average pools without overlap, padding or own divisor can be deployed",
        ),
        (
            [("conv", nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"))],
            "conv: only zero padding given as numbers can be deployed",
        ),
        (
            [("conv", nn.Conv2d(2, 3, 3)), ("act", IF()), ("flatten", nn.Flatten())],
            "conv: expected a last linear layer without neurons",
        ),
    ],
)
def test_what_cannot_be_deployed_is_refused_by_name(layers, message):
    net = conv_net()
    net.body = nn.Sequential(OrderedDict(layers))
    with pytest.raises(UnsupportedError) as error:
        fold(net, (2, 8, 8), {})
    assert str(error.value) == message


def test_weights_that_are_not_finite_are_refused():
    net = conv_net()
    with torch.no_grad():
        net.body.conv2.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(UnsupportedError, match="conv2: its weights are not finite"):
        fold(net, (2, 8, 8), {})


def test_bounds_of_a_hand_computed_layer():
    """Messages -100..155: a = 3 m0 - 2 m1 lies in [3 * -100 - 2 * 155, 3 * 155 + 2 * 100] = [-610, 665]."""
    network = Network(
        input=Input(shape=(2, 1, 1), offset=np.array([100, 100])),
        layers=(
            Conv(
                name="a",
                weight=np.array([3, -2]).reshape(1, 2, 1, 1),
                neuron=Neuron(theta=np.array(1000), bias=np.array([-7])),
            ),
        ),
        readout=Readout(name="r", weight=np.array([[5], [-1]]), bias=np.array([1, 0])),
        timesteps=T,
    )
    first = bounds(network, 0)
    assert first.synaptic == (-610, 665)
    assert first.state == (T * (-610 - 7), 999 + 665 - 7)
    last = bounds(network, 1)
    assert last.synaptic == (-1, 5)
    assert last.state == (T * -1, T * (5 + 1))


@pytest.mark.parametrize("seed", range(5))
def test_no_image_leaves_the_bounds(seed):
    made = quantized(conv_net(seed=seed), images(16))
    x = images(200, seed=seed + 1)
    x[:50] = np.where(x[:50] > 127, 255, 0)  # the extremes of the input range
    trace = emulate.run(made.network, x)
    for k in range(3):
        proven = bounds(made.network, k)
        assert not proven.no_wrap or not trace.wraps[k].any()
        assert not proven.safe or not trace.saturations[k].any()
    low, high = bounds(made.network, 3).state
    assert low <= trace.logits.min() <= trace.logits.max() <= high


def test_named_layers_have_their_own_widths_and_the_others_eight_bits():
    network = quantized(conv_net(), images(), weight_bits={"conv2": 3, "readout": 5}).network
    assert {layer.name: layer.weight_bits for layer in network.chain} == {"conv1": 8, "conv2": 3, "fc": 8, "readout": 5}
    assert {layer.name: int(np.abs(layer.weight).max()) for layer in network.chain if layer.weight_bits < 8} == {
        "conv2": 3,
        "readout": 15,
    }


def test_widths_of_layers_that_are_not_there_are_refused():
    with pytest.raises(ConfigError) as error:
        quantized(conv_net(), images(), weight_bits={"conv9": 3})
    assert str(error.value) == "weight bits: no layer is called conv9; there are conv1, conv2, fc, readout"


def test_a_layer_wider_than_the_chips_weights_is_named():
    with pytest.raises(RangeError) as error:
        quantized(conv_net(), images(), weight_bits={"fc": 3}, limits=replace(LIMITS, weight_bits=7))
    assert str(error.value) == "conv1: bits 8 of 7. Use --weight-bits 7 or fewer"
