"""Counts and energies: hand-computed cases that show the arithmetic, and every synapse one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hardware import LOIHI1, coefficient, conv_case, dense_case, half_zeros, trace, unrolled
from networks import seeded

from toolchain import counts, energy, mapping, profile

OPERATIONS = profile.read("generic45").operations


@pytest.mark.parametrize(("pool", "in_the_file"), [(1, 800), (2, 3200)])
def test_a_3x3_convolution_on_4x4_maps_has_800_synapses_and_four_times_as_many_spread(pool, in_the_file):
    net = conv_case(pool=pool)
    layer, source = net.layers[1], net.shapes[0]
    # 2 x 4 channel pairs x (3 x 4 - 2)^2: of 4 rows a tap at the border hits 3, the middle one 4, and so do columns
    assert counts.n_synapses(layer, source, layer.weight != 0) == 2 * 4 * (3 + 4 + 3) ** 2 == 800
    assert counts.n_synapses_netx(layer, source, layer.weight != 0) == 800 * pool**2 == in_the_file


def test_zero_weights_are_no_synapses():
    weight = np.zeros((4, 2, 3, 3), dtype=int)
    weight[0, 0, 0, 0], weight[3, 1, 1, 1] = 1, -1  # a corner tap: 3 x 3 positions; the centre: 4 x 4
    net = conv_case(weight=weight)
    assert counts.n_synapses(net.layers[1], net.shapes[0], weight != 0) == 9 + 16


def test_80x80_with_half_zeros_has_3200_synapses():
    layer = dense_case(half_zeros()).layers[1]
    assert counts.n_synapses(layer, (1, 8, 10), layer.weight != 0) == 80 * 80 // 2


@pytest.mark.parametrize("pool", [1, 2])
def test_psi_is_16_in_a_corner_24_at_an_edge_36_inside_and_a_pools_area_less(pool):
    net = conv_case(pool=pool)
    layer = net.layers[1]
    found = energy.psi(layer, net.shapes[0], layer.weight != 0)
    # 4 channels x 2x2, 2x3 or 3x3 outputs that the kernel reaches
    cells = np.array([[16, 24, 24, 16], [24, 36, 36, 24], [24, 36, 36, 24], [16, 24, 24, 16]])
    expected = cells.repeat(pool, axis=0).repeat(pool, axis=1) / pool**2
    assert np.array_equal(found, [expected, expected])


@pytest.mark.parametrize("seed", range(60))
def test_synapses_and_psi_are_those_counted_one_by_one(seed):
    net = seeded(seed, tiny=True).network
    for layer, source, _ in net.wired():
        matrix = unrolled(layer, source)
        area = layer.pool**2
        assert counts.n_synapses(layer, source, layer.weight != 0) * area == matrix.sum()
        assert counts.n_synapses_netx(layer, source, layer.weight != 0) == matrix.sum()
        fan = counts.fan_out(layer, source, layer.weight != 0)
        assert np.array_equal(fan.ravel(), matrix.sum(axis=0))
        assert np.array_equal(energy.psi(layer, source, layer.weight != 0).ravel(), matrix.sum(axis=0) / area)


@pytest.mark.parametrize("seed", range(20))
def test_the_synops_of_all_cores_are_those_of_the_layer(seed):
    net = seeded(seed, tiny=True).network
    rng = np.random.default_rng(seed)
    events = [rng.integers(0, 9, source).astype(float) for _, source, _ in net.wired()]
    placed = mapping.place(net, LOIHI1)
    reached = dict.fromkeys(placed.formats, 0.0)
    for load in energy.loads(net, placed, events):
        reached[load.core.layer] += load.synops
    for (layer, source, _), event in zip(net.wired(), events, strict=True):
        assert reached[layer.name] == (unrolled(layer, source) @ event.ravel()).sum()


def masks(net):
    return {layer.name: layer.weight != 0 for layer in net.chain}


def eq12(net, trained, counted):
    return energy.eq12(net, trained, energy.Run(trace=counted), OPERATIONS)


def value(entry):
    return entry["value"]


def test_eq12_prices_each_spike_by_its_synapses_and_leaves_the_first_layer_apart():
    net = dense_case(half_zeros())
    found = eq12(net, masks(net), trace(net, [3, 2]))
    # `first` feeds the dense layer: 80 neurons x psi 40 x 3 spikes; `dense` the readout: 80 x psi 10 x 2
    additions = 80 * 40 * 3 + 80 * 10 * 2
    assert [value(entry["additions"]) for entry in found["layers"]] == [9600, 1600]
    assert value(found["additions"]) == additions == 11_200
    assert value(found["fp32"]) == pytest.approx(additions * 0.9e-3)  # 0.9 pJ, in nJ
    assert value(found["int32"]) == pytest.approx(additions * 0.1e-3)
    assert value(found["input_macs"]) == 80 * 1 * 8  # 80 pixels x 1 synapse x T


@pytest.mark.parametrize("pool", [1, 2])
def test_eq12_of_a_convolution_is_its_800_synapses_a_spike_of_every_cell(pool):
    net = conv_case(pool=pool)
    found = eq12(net, masks(net), trace(net, [1, 0]))
    # Each of a cell's q x q neurons spikes once and counts 1 / q^2.
    assert value(found["additions"]) == 800


def test_eq12_counts_the_trained_mask_also_where_a_weight_rounded_to_zero():
    net = dense_case(half_zeros())
    trained = masks(net) | {"dense": np.ones((80, 80), dtype=bool)}
    assert value(eq12(net, trained, trace(net, [1, 0]))["additions"]) == 80 * 80


def test_spikes_are_the_mean_over_images():
    net = dense_case(half_zeros())
    one, many = (eq12(net, masks(net), trace(net, [3, 2], samples=n)) for n in (1, 5))
    assert value(one["additions"]) == value(many["additions"])


def test_doubling_the_price_of_an_addition_doubles_eq12_and_an_unknown_one_leaves_it_unknown():
    net = dense_case(half_zeros())
    run = energy.Run(trace=trace(net, [3, 2]))
    for key, price in (("fp32", "fp32_add_pj"), ("int32", "int32_add_pj")):
        one, two, none = (
            energy.eq12(net, masks(net), run, coefficient(OPERATIONS, price, times)) for times in (1, 2, None)
        )
        assert value(two[key]) == pytest.approx(2 * value(one[key]))
        assert value(none[key]) is None
        assert value(none["additions"]) == value(one["additions"])
    assert sum(value(layer["fp32"]) for layer in one["layers"]) == pytest.approx(value(one["fp32"]))
