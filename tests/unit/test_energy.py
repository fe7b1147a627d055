"""Counts and energies: hand-computed cases that show the arithmetic, and every synapse one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hardware import LOIHI1, LOIHI2, conv, conv_case, dense_case, half_zeros, network, readout, trace, unrolled
from networks import seeded

from toolchain import counts, energy, mapping


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
    for core, synops in energy.core_synops(net, placed, events):
        reached[core.layer] += synops
    for (layer, source, _), event in zip(net.wired(), events, strict=True):
        assert reached[layer.name] == (unrolled(layer, source) @ event.ravel()).sum()


def masks(net):
    return {layer.name: layer.weight != 0 for layer in net.chain}


def value(entry):
    return entry["value"]


def test_eq12_prices_each_spike_by_its_synapses_and_leaves_the_first_layer_apart():
    net = dense_case(half_zeros())
    found = energy.eq12(net, masks(net), trace(net, [3, 2]))
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
    found = energy.eq12(net, masks(net), trace(net, [1, 0]))
    # Each of a cell's q x q neurons spikes once and counts 1 / q^2.
    assert value(found["additions"]) == 800


def test_eq12_counts_the_trained_mask_also_where_a_weight_rounded_to_zero():
    net = dense_case(half_zeros())
    trained = masks(net) | {"dense": np.ones((80, 80), dtype=bool)}
    assert value(energy.eq12(net, trained, trace(net, [1, 0]))["additions"]) == 80 * 80


def test_spikes_are_the_mean_over_images():
    net = dense_case(half_zeros())
    one, many = (energy.eq12(net, masks(net), trace(net, [3, 2], samples=n)) for n in (1, 5))
    assert value(one["additions"]) == value(many["additions"])


def hardware(net, chip, counted, **options):
    return energy.hardware(net, mapping.place(net, chip), chip, counted, **options)


def test_the_hardware_terms_of_loihi1_are_events_times_coefficients():
    net = dense_case(half_zeros())
    found = hardware(net, LOIHI1, trace(net, [3, 2], active=[100, 60]))
    # synops: 80 pixels x 1 x 8 steps, then 80 x 40 x 3, then 80 x 10 x 2
    synops = 640 + 9600 + 1600
    # neurons x T: (80 + 80 + 10) x 8; active: 160 as traced, and the 10 x 8 of the readout
    updates, active = 1360, 160 + 80
    spikes = 80 * 3 + 80 * 2
    assert value(found["counts"]["synops_nonzero"]) == synops
    assert value(found["counts"]["updates"]) == updates
    terms = {name: value(term) for name, term in found["terms"].items()}
    assert terms["synapses_nonzero"] == pytest.approx(synops * 23.6e-3)
    assert terms["updates_active"] == pytest.approx(active * 81e-3)
    assert terms["updates_inactive"] == pytest.approx((updates - active) * 52e-3)
    assert terms["spikes"] == pytest.approx(spikes * 1.7e-3)
    # The busiest core holds `dense`: 9600 synops in 8 steps x 3.5 ns + 80 updates x 5.3 ns; + 113 ns barrier
    t_step = 9600 / 8 * 3.5 + 80 * 5.3 + 113
    assert value(found["t_step"]) == pytest.approx(t_step)
    assert value(found["steps"]) == 8 + 2
    assert value(found["latency"]) == pytest.approx(10 * t_step / 1000)
    assert terms["static"] == pytest.approx(0.104 * 10 * t_step)  # W x ns = nJ
    known = [name for name in terms if name not in {"hops", "synapses_stored"}]
    assert value(found["total_low"]) == pytest.approx(sum(terms[name] for name in known))
    assert found["omitted"] == ["hops"]


def test_stored_zeros_make_synops_a_range_in_a_shared_kernel_only():
    weight = np.zeros((4, 2, 3, 3), dtype=int)
    weight[:, :, 1, 1] = 1
    net = conv_case(weight=weight)
    found = hardware(net, LOIHI1, trace(net, [1, 0]))["counts"]
    # into `first` 16 pixels x 2 x 8 steps; into `second` 2 x 4 x 16 of the centre tap, of 800 stored
    assert value(found["synops_nonzero"]) == 256 + 128
    assert value(found["synops_stored"]) == 256 + 800
    sparse = dense_case(half_zeros())
    found = hardware(sparse, LOIHI1, trace(sparse, [1, 0]))["counts"]
    assert value(found["synops_nonzero"]) == value(found["synops_stored"])


def test_hardware_synops_are_not_divided_by_a_pool():
    plain, pooled = (conv_case(pool=pool) for pool in (1, 2))
    nothing = {pool: np.zeros(net.input.shape) for pool, net in ((1, plain), (2, pooled))}
    one = hardware(plain, LOIHI1, trace(plain, [1, 0]), messages=nothing[1])["counts"]["synops_nonzero"]
    four = hardware(pooled, LOIHI1, trace(pooled, [1, 0]), messages=nothing[2])["counts"]["synops_nonzero"]
    assert (value(one), value(four)) == (800, 4 * 800)


def test_what_loihi2_does_not_publish_is_none_and_omitted_never_zero():
    net = dense_case(half_zeros())
    found = hardware(net, LOIHI2, trace(net, [3, 2], active=[1, 1]))
    assert {name: value(term) for name, term in found["terms"].items()} == dict.fromkeys(found["terms"])
    assert found["omitted"] == list(found["terms"])
    assert [value(found[name]) for name in ("t_step", "latency", "total_low", "total_high")] == [None] * 4


def test_a_given_time_of_a_step_prices_static_power_alone_on_loihi2():
    net = dense_case(half_zeros())
    found = hardware(net, LOIHI2, trace(net, [3, 2]), t_step_ns=1000.0)
    assert found["t_step"]["how"] == "assumed"
    assert value(found["total_low"]) == pytest.approx(0.232 * 10 * 1000)  # 10 steps
    assert "static" not in found["omitted"]


def test_without_a_count_of_driven_neurons_updates_are_omitted():
    net = dense_case(half_zeros())
    found = hardware(net, LOIHI1, trace(net, [3, 2]))
    assert found["omitted"] == ["updates_active", "updates_inactive", "hops"]
    assert found["terms"]["updates_active"]["source"] == "omitted: by hand does not count driven neurons"


def test_counted_messages_replace_the_assumption_that_every_pixel_sends():
    net = network((1, 2, 2), conv("a", np.ones((1, 1, 1, 1), int)), last=readout(4))
    assumed = hardware(net, LOIHI1, trace(net, [0]))["counts"]["synops_nonzero"]
    counted = hardware(net, LOIHI1, trace(net, [0]), messages=np.array([[[8.0, 0, 0, 0]]]).reshape(1, 2, 2))["counts"]
    assert (value(assumed), assumed["how"]) == (4 * 8, "assumed")
    assert (value(counted["synops_nonzero"]), counted["synops_nonzero"]["how"]) == (8, "counted")
