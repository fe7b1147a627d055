"""Laws of placements, for random networks on random chips: none violates a limit, whatever the chip's size."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import relays
from hardware import LOIHI1, LOIHI2, limited
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks import cases

from toolchain import counts, mapping
from toolchain.check import check
from toolchain.errors import CapacityError
from toolchain.ir.parts import parts
from toolchain.profile import ListMemory

PRECISION = {"R10", "R11", "R12", "R13", "R14"}
"""What a placement can do nothing about."""

TIGHT = {
    "neurons": (1, 40),
    "synapse_words": (1, 300),
    "axons_in": (1, 300),
    "axons_out": (1, 300),
    "axon_map_words": (1, 300),
    "total_words": (1, 600),
    "list_words": (1, 20),
    "groups": (1, 8),
    "layers": (1, 4),
}
LIMITS = {
    "R01": "neurons",
    "R02": "synapse_words",
    "R03": "total_words",
    "R04": "axons_in",
    "R05": "axons_out",
    "R06": "axon_map_words",
    "R07": "list_words",
    "R08": "groups",
}
"""Rule -> the limit it holds."""
LAW = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def chips(draw):
    """A shipped chip, some of its limits cut to a size that small networks meet."""
    chip = draw(st.sampled_from([LOIHI1, LOIHI2]))
    limits = {
        name: draw(st.integers(*span))
        for name, span in TIGHT.items()
        if (getattr(chip.core, name) is not None or name == "layers") and draw(st.booleans())
    }
    if isinstance(chip.memory, ListMemory) and draw(st.booleans()):
        chip = replace(chip, memory=replace(chip.memory, list_axons="population"))
    return limited(chip, max_fill=draw(st.sampled_from([1.0, 0.9, 0.7])), cores=draw(st.integers(2, 200)), **limits)


def violations(network, placed, chip):
    return [finding for finding in check(network, placed, chip).violations if finding.rule not in PRECISION]


def place(network, chip, **options):
    """A placement on as many chips as it takes, or None where no core can hold a layer."""
    try:
        return mapping.place(network, chip, max_chips=100_000, **options)
    except CapacityError as error:
        refused = error
    assert refused.used > refused.limit
    assert refused.remedy
    return None


ANY = cases() | st.integers(0, 10_000).map(relays.seeded)
"""Chains, and chains that relay spikes"""


@given(case=ANY, chip=chips(), pools=st.sampled_from(["merged", "expanded"]))
@LAW
def test_no_placement_violates_a_limit_and_its_figures_are_those_of_the_check(case, chip, pools):
    placed = place(case.network, chip, pools=pools)
    assume(placed)
    assert violations(case.network, placed, chip) == []


@given(case=ANY, chip=chips())
@LAW
def test_every_neuron_sits_on_exactly_one_core(case, chip):
    placed = place(case.network, chip)
    assume(placed)
    for part in parts(case.network):
        times = np.zeros(part.shape, dtype=int)
        for core in placed.cores:
            if core.layer == part.name:
                times[slice(*core.channels), slice(*core.y), slice(*core.x)] += 1
        assert (times == 1).all()


@given(case=ANY, chip=st.sampled_from([LOIHI1, LOIHI2]), data=st.data())
@LAW
def test_one_unit_less_than_the_fullest_core_uses_is_kept_or_refused(case, chip, data):
    chip = limited(chip, max_fill=1.0)
    use = data.draw(
        st.sampled_from(
            [use for use in check(case.network, place(case.network, chip), chip).usage if use.rule in LIMITS]
        )
    )
    name = LIMITS[use.rule]
    assume(use.used > 1)
    short = limited(chip, **{name: use.used - 1})
    assert any(f.rule == use.rule for f in violations(case.network, place(case.network, chip), short))
    placed = place(case.network, short)
    if placed is not None:
        assert violations(case.network, placed, short) == []


def thinned(network, share, bits):
    """The network with a share of its synapses and narrower weights; masks of smaller shares lie within those of larger."""

    def thin(layer):
        order = np.random.default_rng(0).random(layer.weight.shape)
        weight = np.clip(layer.weight, -(1 << bits - 1), max(1, (1 << bits - 1) - 1))
        return replace(layer, weight=np.where(order < share, weight, 0), weight_bits=min(bits, layer.weight_bits))

    return replace(network, layers=tuple(map(thin, network.layers)), readout=thin(network.readout))


# Where layers share cores, packing is a search, and no search of its kind keeps these laws in every case.
@given(case=cases(), chip=chips())
@LAW
def test_a_larger_core_never_needs_more_cores(case, chip):
    chip = limited(chip, layers=1)
    large = replace(chip, core=replace(chip.core, max_fill=replace(chip.core.max_fill, value=1.0)))
    few, many = place(case.network, large), place(case.network, chip)
    assume(many)
    assert few is not None
    assert few.n_cores <= many.n_cores


@given(case=cases(), chip=chips(), share=st.sampled_from([0.1, 0.5]), bits=st.sampled_from([3, 6, 8]))
@LAW
def test_more_sparsity_or_fewer_bits_in_the_same_formats_never_need_more_cores(case, chip, share, bits):
    chip = limited(chip, layers=1)
    many = place(case.network, chip)
    assume(many)
    few = place(thinned(case.network, share, bits), chip, formats=many.formats)
    assert few is not None
    assert few.n_cores <= many.n_cores


@given(case=cases(), seed=st.integers(0, 99))
@LAW
def test_nested_masks_never_have_more_synapses(case, seed):
    rng = np.random.default_rng(seed)
    for layer, source, _ in case.network.wired():
        order = rng.random(layer.weight.shape)
        found = [counts.n_synapses(layer, source, (layer.weight != 0) & (order < share)) for share in (0.1, 0.5, 1)]
        assert all(less <= more for less, more in pairwise(found))
