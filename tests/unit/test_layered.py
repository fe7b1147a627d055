"""Chips that run a layer a core: each memory by its formula, computed by hand, and a core of its own for each layer."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain import profile
from toolchain.check import check_layers
from toolchain.ir import Conv, Dense, Input, Network, Neuron, Readout

CHIP = profile.read("speck2f")


def neuron(channels):
    return Neuron(theta=np.array(1), bias=np.zeros(channels, dtype=int))


def conv(channels, sources, *, kernel=3, name="conv", **more):
    weight = np.ones((channels, sources, kernel, kernel), dtype=int)
    return Conv(name=name, weight=weight, neuron=neuron(channels), padding=(kernel // 2,) * 2, **more)


def network(*layers: Conv | Dense, side=20, sources=2):
    shape = (sources, side, side)
    for layer in layers:
        last = shape = layer.output_shape(shape)
    readout = Readout(name="readout", weight=np.ones((3, int(np.prod(last))), dtype=int), bias=np.zeros(3, dtype=int))
    image = Input(shape=(sources, side, side), offset=np.zeros(sources, dtype=int))
    return Network(input=image, layers=layers, readout=readout, timesteps=2)


def used(net, rule):
    return {one.layer: one.used for one in check_layers(net, CHIP).usage if one.rule == rule}


def test_entries_are_those_of_the_formula():
    net = network(conv(24, 2), side=12)
    # 2 channels, 9 taps in 16, 24 features in 32; a map of 12 x 12 in 16 x 16. The readout: 24 channels, 144 taps in 256, 3 in 4.
    assert used(net, "L01") == {"conv": 2 * 16 * 32, "readout": 24 * 256 * 4}
    assert used(net, "L02") == {"conv": 24 * 16 * 16, "readout": 3}


def test_a_network_that_suits_the_chip_breaks_nothing():
    assert check_layers(network(conv(24, 2), side=12), CHIP).violations == ()


@pytest.mark.parametrize(
    ("net", "rule", "sentence"),
    [
        (network(conv(512, 33), sources=33, side=4), "L01", "kernel memory 270,336 entries of 65,536"),
        (network(conv(65, 2), side=32), "L02", "neuron memory 66,560 entries of 65,536"),
        (network(conv(1025, 1), sources=1, side=2), "L03", "biases 1,025 entries of 1,024"),
        (network(conv(2, 2, kernel=17), side=16), "L04", "kernel 17 taps of 16"),
        (network(conv(2, 2, stride=(3, 3))), "L05", "strides it cannot take 1 strides of 0. Use 1 or 2 or 4 or 8."),
        (
            network(conv(2, 2), conv(2, 2, name="deep", pool=5)),
            "L06",
            "pools it cannot take 1 pools of 0. Use 1 or 2 or 4.",
        ),
    ],
)
def test_one_step_beyond_a_limit_breaks_its_rule(net, rule, sentence):
    found = {error.remedy.rpartition("[")[2].rstrip("]"): str(error) for error in check_layers(net, CHIP).errors()}
    assert sentence in found[rule]


def test_two_layers_do_not_share_the_cores_that_are_large_enough():
    # 64 channels, 9 taps in 16, 64 features: 65,536 entries, which two of the nine cores have.
    layers = [conv(64, 64 if index else 2, name=f"conv{index}") for index in range(4)]
    verdict = check_layers(network(*layers, side=8), CHIP)
    (error,) = verdict.errors()
    assert str(error) == (
        "network of speck2f: cores 5 cores of 4. 1 of the layers find no core that is large enough and free; "
        "use fewer or narrower layers. [L07]"
    )


def test_a_dense_layer_is_a_convolution_as_large_as_its_map():
    dense = Dense(name="dense", weight=np.ones((5, 2 * 16), dtype=int), neuron=neuron(5))
    assert used(network(dense, side=4), "L01")["dense"] == 2 * 16 * 8
