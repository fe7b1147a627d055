"""Where neurons sit: hand-computed words and cores, and what is said where a layer does not fit."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hardware import LOIHI1, LOIHI2, conv, conv_case, dense_case, half_zeros, limited, network, neuron, readout, vgg11

from toolchain import counts, mapping
from toolchain.check import check
from toolchain.errors import CapacityError
from toolchain.ir import Dense, Neuron


def core_of(placed, layer):
    (core,) = (core for core in placed.cores if core.layer == layer)
    return core


@pytest.mark.parametrize("pool", [1, 2])
def test_a_3x3_convolution_on_4x4_maps_takes_18_kernel_words_on_loihi2_pooled_or_not(pool):
    core = core_of(mapping.place(conv_case(pool=pool), LOIHI2), "second")
    # 2 source channels x 9 taps x ceil((4 channels x 8 bit + 32 bit) / 64 bit) = 18 x 1
    assert core.synapse_words == 2 * 9 * math.ceil((4 * 8 + 32) / 64) == 18
    assert (core.axons_in, core.groups, core.n_neurons) == (2, 1, 64)
    # It feeds a dense layer on one core: a word a neuron.
    assert (core.axon_map_words, core.axon_mem_words, core.axons_out) == (64, 0, 0)


def test_a_neuron_that_feeds_a_convolution_takes_a_tenth_of_an_axon_map_word_rounded_up_a_core():
    core = core_of(mapping.place(conv_case(), LOIHI2), "first")
    assert core.n_neurons == 32
    assert core.axon_map_words == 4  # ceil(0.1 x 32)


@pytest.mark.parametrize("pool", [1, 2])
def test_a_3x3_convolution_on_4x4_maps_keeps_nine_kernel_patterns_on_loihi1(pool):
    core = core_of(mapping.place(conv_case(pool=pool), LOIHI1), "second")

    # A row at the top or bottom border is heard by 2 taps, those between by 3: the sets {0,1}, {0,1,2}, {1,2}. So do columns.
    def words(taps):
        bits = taps * 4 * 8 + 10  # 4 channels of 8 bit in one entry
        return math.ceil(bits / 64) + (bits % 64 == 0 or bits % 64 >= 59)

    # corners 4 taps, 138 bit, 3 words; edges 6 taps, 202 bit, 4 words; inside 9 taps, 298 bit, 5 words
    assert [words(4), words(6), words(9)] == [3, 4, 5]
    assert core.synapse_words == 2 * (4 * words(4) + 4 * words(6) + 1 * words(9)) == 66
    assert core.axons_in == 16  # map positions, all channels of each behind one axon
    assert core.axons_out == 64  # each neuron to the one core of a dense layer, 1 slot


@pytest.mark.parametrize("pool", [1, 2])
def test_axons_to_a_shared_kernel_take_two_slots_a_map_position_on_loihi1(pool):
    core = core_of(mapping.place(conv_case(pool=pool), LOIHI1), "first")
    assert core.axons_out == 2 * 16 * pool**2


def test_80x80_with_half_zeros_is_stored_as_sparse_lists_of_half_the_words():
    full, half = (
        core_of(mapping.place(dense_case(weight), LOIHI2), "dense") for weight in (np.ones((80, 80), int), half_zeros())
    )
    # dense: 80 sources x ceil((80 x (8 + 12) + 10 x ceil(80 / 60)) / 64) = 80 x ceil(1620 / 64)
    assert full.synapse_words == 80 * 26 == 2080
    # sparse: 40 synapses in one entry: 80 x ceil((40 x 20 + 10) / 64) = 80 x ceil(810 / 64)
    assert half.synapse_words == 80 * 13 == 1040
    assert full.axons_in == half.axons_in == 80
    total = half.axons_in + half.groups + half.n_neurons + half.synapse_words + half.axon_map_words
    assert total == 80 + 1 + 80 + 1040 + 80


def test_80x80_with_half_zeros_on_loihi1_stores_an_index_with_each_synapse():
    placed = mapping.place(dense_case(half_zeros()), LOIHI1, formats={"dense": "sparse"})
    # dense: 80 x 8 + 2 x 10 = 660 bit, 11 words; sparse: 40 x (8 + max(6, ceil log2 80 = 7)) + 10 = 610 bit, 10 words
    assert core_of(placed, "dense").synapse_words == 80 * 10


def test_80x80_with_half_zeros_on_loihi1_is_stored_in_run_lengths():
    placed = mapping.place(dense_case(half_zeros()), LOIHI1)
    # Every second target: a skip of 2 bits holds the gap of one. 40 x (8 + 2) + 10 = 410 bit, 7 words
    assert placed.formats["dense"] == "run-length"
    assert core_of(placed, "dense").synapse_words == 80 * 7


def test_a_full_matrix_is_stored_dense():
    assert mapping.place(dense_case(np.ones((80, 80), int)), LOIHI2).formats["dense"] == "dense"


def test_a_seven_bit_weight_takes_eight_bits_on_loihi1_which_has_no_seven():
    seven, eight = (
        mapping.place(
            network((1, 4, 4), conv("a", np.ones((4, 1, 3, 3), int), weight_bits=bits), last=readout(16)), LOIHI1
        )
        for bits in (7, 8)
    )
    assert seven.cores[0].synapse_words == eight.cores[0].synapse_words


def test_sources_without_a_synapse_take_no_axon_in_a_sparse_layer():
    weight = np.zeros((80, 80), dtype=int)
    weight[:, :3] = 1
    assert core_of(mapping.place(dense_case(weight), LOIHI2), "dense").axons_in == 3


def test_a_core_holds_no_more_distinct_thresholds_than_groups():
    net = network((1, 4, 4), conv("a", np.ones((16, 1, 3, 3), int), theta=np.arange(1, 17)), last=readout(16 * 4))
    placed = mapping.place(net, LOIHI2)
    assert [core.groups for core in placed.cores if core.layer == "a"] == [8, 8]


SHARED = {f"conv{i}": "shared" for i in range(1, 9)}


def test_vgg11_with_five_pools_and_a_classifier_of_512_to_10_has_114_325_248_unrolled_connections():
    net = vgg11()
    assert sum(counts.n_synapses(layer, source, layer.weight) for layer, source, _ in net.wired()) == 114_325_248


@pytest.mark.parametrize("density", [1.0, 0.1, 0.01])
def test_vgg11_takes_132_cores_for_its_shared_kernels_on_loihi2_pruned_or_not(density):
    placed = mapping.place(vgg11(density), LOIHI2, max_chips=2, formats=SHARED)
    cores = Counter(core.layer for core in placed.cores)
    # 0.9 of 4095 neurons = 3685; 0.9 of 16,000 synapse words = 14,400.
    # conv1 65,536 neurons in tiles of 32x16x7 = 3584: 2 x 10; conv2 32,768 in 16x16x13 = 3328: 10; conv3 in 8x8x52: 5
    assert [cores[f"conv{i}"] for i in (1, 2, 3)] == [20, 10, 5]
    # conv4, conv5: 256 x 9 = 2304 kernel rows of up to 6 words, (44 x 8 + 32) / 64: 44 channels a core
    assert [cores[f"conv{i}"] for i in (4, 5)] == [math.ceil(256 / 44), math.ceil(512 / 44)] == [6, 12]
    # conv6 to conv8: 512 x 9 = 4608 rows of up to 3 words, (20 x 8 + 32) / 64: 20 channels a core
    assert [cores[f"conv{i}"] for i in (6, 7, 8)] == [math.ceil(512 / 20)] * 3 == [26] * 3
    assert (cores["fc"], placed.n_cores, placed.n_chips) == (1, 132, 2)


def least_cores(net, chip, synapse_bits):
    """No placement of a layer a core takes fewer: its neurons, or the bits of its lists or of its shared kernel, stored once."""
    planned = (
        chip.core.neurons.value * chip.core.max_fill.value,
        chip.core.synapse_words.value * chip.core.max_fill.value,
    )
    cores = 0
    for layer, source, shape in net.wired():
        listed = counts.n_synapses(layer, source, layer.weight) * synapse_bits
        kernel = layer.weight.size * layer.weight_bits if layer.weight.ndim == 4 else listed
        cores += math.ceil(max(math.prod(shape) / planned[0], min(listed, kernel) / 64 / planned[1]))
    return cores


@pytest.mark.parametrize(("density", "most"), [(0.1, 109), (0.01, 73)])
def test_vgg11_in_its_best_formats_keeps_between_the_bound_by_neurons_and_words_and_what_is_expected_on_loihi2(
    density, most
):
    net = vgg11(density)
    placed = mapping.place(net, LOIHI2)
    assert violations(net, placed, LOIHI2) == []
    assert least_cores(net, LOIHI2, 8 + 12) <= placed.n_cores <= most


@pytest.mark.slow
@pytest.mark.parametrize(
    ("density", "axons", "most"),
    [(1.0, "discrete", 700), (0.01, "discrete", 158), (0.1, "population", 241), (0.01, "population", 151)],
)
def test_vgg11_on_loihi1_takes_at_least_its_compartments_and_no_more_than_expected(density, axons, most):
    chip = replace(LOIHI1, memory=replace(LOIHI1.memory, list_axons=axons))
    net = vgg11(density)
    placed = mapping.place(net, chip, max_chips=9)
    assert violations(net, placed, chip) == []
    assert math.ceil(sum(math.prod(shape) for shape in net.shapes) / 1024) == 149 <= placed.n_cores <= most


@pytest.mark.slow
def test_vgg11_at_90_percent_on_loihi1_is_beyond_241_cores_because_a_listed_source_takes_an_axon_of_its_own():
    net = vgg11(0.1)
    placed = mapping.place(net, LOIHI1, max_chips=9)
    assert violations(net, placed, LOIHI1) == []
    assert 241 < placed.n_cores <= 285
    # conv6 hears 9 x 512 = 4608 sources in the middle of its map, more than a core has axons: it stays a shared kernel.
    assert placed.formats["conv6"] == "shared"


def violations(net, placed, chip):
    """What a placement can do something about."""
    return [finding for finding in check(net, placed, chip).violations if finding.rule not in {"R12", "R13"}]


def test_layers_share_a_core_where_limits_allow_and_not_where_the_chip_keeps_them_apart():
    net = conv_case()
    assert mapping.place(net, LOIHI1).n_cores == 1
    assert mapping.place(net, LOIHI2).n_cores == 3
    tight = limited(LOIHI1, neurons=64)
    placed = mapping.place(net, tight)
    assert violations(net, placed, tight) == []
    # 32 + 64 + 10 neurons
    assert placed.n_cores == 2


def test_expanded_pools_take_what_netx_would_write():
    net = conv_case(pool=2)
    merged, expanded = (core_of(mapping.place(net, LOIHI2, pools=pools), "second") for pools in ("merged", "expanded"))
    # A 3x3 kernel over 2x2 cells becomes 6x6 taps of the unpooled map.
    assert (merged.synapse_words, expanded.synapse_words) == (2 * 9, 2 * 36)


def test_pruning_shrinks_no_shared_kernel():
    full, sparse = (
        mapping.place(conv_case(weight=w), LOIHI2)
        for w in (None, np.eye(36, dtype=int)[:8].reshape(4, 2, 36)[..., :9].reshape(4, 2, 3, 3))
    )
    assert core_of(full, "second").synapse_words == core_of(sparse, "second").synapse_words


def test_placing_twice_gives_the_same():
    assert mapping.place(vgg11(0.1), LOIHI1, max_chips=9) == mapping.place(vgg11(0.1), LOIHI1, max_chips=9)


def sentence(net, chip, **options):
    with pytest.raises(CapacityError) as raised:
        mapping.place(net, chip, **options)
    return str(raised.value)


def test_a_kernel_no_core_holds_is_refused_with_the_channels_one_could_hold():
    net = network((2, 4, 4), conv("a", np.ones((4, 2, 3, 3), int), padding=(1, 1)), last=readout(16, pool=2, classes=1))
    # One output channel takes 2 x 9 kernel rows of a word; 90 % of 19 words hold 17, a single source channel's and no more.
    assert sentence(net, limited(LOIHI2, synapse_words=19)) == (
        "a of loihi2: synaptic memory for one neuron 18 words of 17. "
        "Give a 1 of its 2 source channels, or use a profile with larger cores."
    )


def test_layers_without_a_synapse_need_no_word_of_cores_that_have_none():
    net = network(
        (1, 1, 4),
        conv("a", np.zeros((1, 1, 1, 1), int)),
        last=replace(readout(4, classes=1), weight=np.zeros((1, 4), int)),
    )
    placed = mapping.place(net, limited(LOIHI1, synapse_words=1, max_fill=0.9))
    assert sum(core.synapse_words for core in placed.cores) == 0


def test_a_fan_in_beyond_the_input_axons_is_refused_with_what_to_prune():
    assert sentence(dense_case(np.ones((4, 80), int)), limited(LOIHI1, axons_in=60)) == (
        "dense of loihi1: input axons for one neuron 80 axons of 60. "
        "Prune the densest rows of dense by a further 25 %, or use a profile with larger cores."
    )


def test_a_fan_out_beyond_the_output_slots_is_refused_for_the_neuron_that_most_axons_leave():
    first = conv("first", np.ones((1, 1, 1, 1), int))
    second = conv("second", np.ones((1, 1, 1, 3), int), padding=(0, 1))
    net = network((1, 1, 6), first, second, last=readout(6, classes=1))
    # A neuron a core and a core a chip: at an end of the row two cores listen, between the ends three, each for two slots and a remote one.
    assert sentence(net, limited(LOIHI1, max_fill=1.0, neurons=1, cores=1, axons_out=5), max_chips=100) == (
        "first of loihi1: output axons for one neuron 9 slots of 5. "
        "The next layer is spread over 6 cores; prune or narrow it, or use a profile with larger cores."
    )


def test_a_network_larger_than_its_chips_is_refused_with_the_chips_it_needs():
    assert sentence(vgg11(0.1), limited(LOIHI2, cores=100)) == (
        "network of loihi2: cores 102 cores of 100. Use --max-chips 2 or --weight-bits 7, or shrink conv6, which takes 26."
    )


def test_a_layer_whose_axons_no_core_can_hold_is_refused_naming_the_layer_behind():
    net = dense_case(np.ones((80, 80), int))
    # 7 slots hold the axons of 7 neurons to the one core of the readout: 12 cores of up to 7 neurons.
    assert sentence(net, limited(LOIHI1, axons_out=7)) == (
        "first of loihi1: output axons for one neuron 12 slots of 7. "
        "The next layer is spread over 12 cores; prune or narrow it, or use a profile with larger cores."
    )


def test_an_axon_to_another_chip_takes_a_slot_more():
    net = dense_case(np.ones((80, 80), int))
    chip = limited(LOIHI1, neurons=40, layers=1)
    one, two = (
        mapping.place(net, chip),
        mapping.place(net, replace(chip, chip=limited(chip, cores=3).chip), max_chips=2),
    )
    # 40 neurons x 2 cores of the dense layer x 1 slot, then x (1 + 1): chip 0 holds the first layer alone.
    assert [core.chip for core in two.cores] == [0, 0, 1, 1, 1]
    assert (one.cores[0].axons_out, two.cores[0].axons_out) == (80, 160)
    # The dense layer feeds the readout beside it.
    assert two.cores[2].axons_out == one.cores[2].axons_out == 40
    assert violations(net, two, replace(chip, chip=limited(chip, cores=3).chip)) == []


def test_a_layer_behind_a_pool_hears_a_cell_by_one_axon():
    dense = Dense(
        name="dense", weight=np.ones((5, 4), int), neuron=Neuron(theta=np.array(3), bias=np.zeros(5, int)), pool=2
    )
    net = network((1, 4, 4), conv("a", np.ones((1, 1, 1, 1), int)), dense, last=readout(5))
    assert core_of(mapping.place(net, LOIHI1), "dense").axons_in == 4
    assert core_of(mapping.place(net, LOIHI1), "a").axons_out == 16


@pytest.mark.parametrize(
    ("neurons", "bits", "words"),
    [
        (76, 3, 4),  # 76 x 3 + 2 x 10 = 248 = 3 x 64 + 56
        (77, 3, 5),  # 251 = 3 x 64 + 59: a word more
        (74, 4, 6),  # 316 = 4 x 64 + 60: a word more
        (75, 4, 6),  # 320 = 5 x 64 + 0: a word more
        (76, 4, 6),  # 324 = 5 x 64 + 4
    ],
)
def test_a_list_on_loihi1_takes_a_word_more_where_its_last_word_has_no_or_at_least_59_bits(neurons, bits, words):
    dense = Dense(name="dense", weight=np.ones((neurons, 1), int), neuron=neuron(neurons), weight_bits=bits)
    net = network((1, 1, 1), conv("a", np.ones((1, 1, 1, 1), int)), dense, last=readout(neurons))
    placed = mapping.place(net, LOIHI1)
    assert core_of(placed, "dense").synapse_words == words
    assert {finding.rule for finding in check(net, placed, LOIHI1).violations} == {"R13"}
