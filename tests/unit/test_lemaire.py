"""Lemaire's model: a layer computed by hand, memories of every size, sums and prices."""

from __future__ import annotations

import numpy as np
import pytest
from hardware import coefficient, conv_case, dense_case, half_zeros, trace

from toolchain import energy, profile
from toolchain.energy.lemaire import TERMS, access_pj
from toolchain.ir import Network, Neuron

OPERATIONS = profile.read("generic45").operations
QUEUE_PJ = 10 * 4000 / 8192  # a queue of 1000 words


def lemaire(net, counts, *, messages=None, operations=OPERATIONS):
    return energy.lemaire(net, energy.Run(trace=trace(net, counts), messages=messages), operations)


def terms(entry):
    return {name: entry[name]["value"] for name in TERMS}


@pytest.mark.parametrize(
    ("kilobytes", "pj"),
    [(0, 0), (4, 5), (8, 10), (20, 15), (32, 20), (32 + 496, 60), (1024, 100), (1024 + 496, 140)],
)
def test_an_access_costs_linearly_between_the_published_sizes_and_beyond_the_last(kilobytes, pj):
    assert access_pj(kilobytes * 1024, OPERATIONS) == pytest.approx(pj)


def test_a_dense_layer_by_hand():
    layer = lemaire(dense_case(half_zeros()), [3, 2])["layers"][1]
    # 80 sources x 3 spikes, of 40 synapses each; 80 neurons, 8 steps, 2 spikes each; 3200 weights and 80 potentials of 4 bytes
    theta, synops, updates, out = 240, 9600, 640, 160
    weights, potentials = 10 + 10 * (3200 * 4 - 8192) / (32768 - 8192), 10 * 80 * 4 / 8192
    assert terms(layer) == pytest.approx(
        {
            "operations": (synops + out) * 0.1e-3,
            "addressing": synops * 0.1e-3,
            "inputs": theta * QUEUE_PJ * 1e-3,
            "weights": synops * weights * 1e-3,
            "potentials": 2 * (synops + updates) * potentials * 1e-3,
            "outputs": out * QUEUE_PJ * 1e-3,
        }
    )


def test_a_convolution_by_hand_locates_each_spike_by_two_multiplications():
    layer = lemaire(conv_case(), [1, 0])["layers"][1]
    # 32 spikes, 800 synapses; 72 weights; 64 neurons
    assert terms(layer) == pytest.approx(
        {
            "operations": 800 * 0.1e-3,
            "addressing": (800 * 0.1 + 2 * 32 * 3.2) * 1e-3,
            "inputs": 32 * QUEUE_PJ * 1e-3,
            "weights": 800 * (10 * 72 * 4 / 8192) * 1e-3,
            "potentials": 2 * (800 + 64 * 8) * (10 * 64 * 4 / 8192) * 1e-3,
            "outputs": 0.0,
        }
    )


def test_analog_input_is_multiplied_and_read_from_the_image():
    layer = lemaire(dense_case(half_zeros()), [3, 2])["layers"][0]
    # 80 pixels x 8 steps through one weight, 240 spikes out
    assert layer["operations"]["value"] == pytest.approx((640 * 3.2 + 240 * 0.1) * 1e-3)
    assert layer["inputs"]["value"] == pytest.approx(640 * (10 * 80 * 4 / 8192) * 1e-3)


def with_neuron(net, **changes):
    old = net.layers[1]
    values = {"theta": old.neuron.theta, "bias": old.neuron.bias, "i_decay": 4096, "v_decay": 0, **changes}
    layer = type(old)(name=old.name, weight=old.weight, neuron=Neuron(**values))
    return Network(input=net.input, layers=(net.layers[0], layer), readout=net.readout, timesteps=net.timesteps)


def test_a_bias_is_added_and_read_in_every_step_and_a_leak_multiplied():
    net = dense_case(half_zeros())
    plain, biased, leaky = (
        lemaire(each, [3, 2])["layers"][1]
        for each in (net, with_neuron(net, bias=np.ones(80, dtype=int)), with_neuron(net, v_decay=100))
    )
    assert biased["operations"]["value"] - plain["operations"]["value"] == pytest.approx(640 * 0.1e-3)
    assert biased["weights"]["value"] == pytest.approx((9600 + 640) * access_pj(3280 * 4, OPERATIONS) * 1e-3)
    assert leaky["operations"]["value"] - plain["operations"]["value"] == pytest.approx(640 * 3.2e-3)


def test_layers_add_up_to_terms_and_terms_to_the_total():
    made = lemaire(conv_case(), [3, 2])
    for name in TERMS:
        assert sum(layer[name]["value"] for layer in made["layers"]) == pytest.approx(made["terms"][name]["value"])
    assert sum(terms(made["terms"]).values()) == pytest.approx(made["total"]["value"])
    assert sum(layer["total"]["value"] for layer in made["layers"]) == pytest.approx(made["total"]["value"])


def test_doubling_every_price_of_an_access_doubles_the_four_terms_of_memory():
    doubled = coefficient(OPERATIONS, "sram_access_pj", 2)
    one, two = (terms(lemaire(conv_case(), [3, 2], operations=each)["terms"]) for each in (OPERATIONS, doubled))
    factor = {name: two[name] / one[name] for name in TERMS}
    assert factor == pytest.approx(
        {"operations": 1, "addressing": 1, "inputs": 2, "weights": 2, "potentials": 2, "outputs": 2}
    )


def test_without_the_price_of_a_multiplication_arithmetic_is_unknown_and_so_is_the_total():
    made = lemaire(conv_case(), [3, 2], operations=coefficient(OPERATIONS, "int32_mul_pj", None))
    assert made["terms"]["operations"]["value"] is None
    assert made["total"]["value"] is None
    assert made["terms"]["weights"]["value"] > 0
