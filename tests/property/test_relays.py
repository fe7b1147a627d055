"""Relays: a layer that passes spikes on computes what the same layer does with every relay written as a kernel."""

from __future__ import annotations

import numpy as np
import pytest
from relays import densified, seeded

from toolchain import counts, emulate
from toolchain.emulate import reference

SEEDS = range(25)


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
def test_the_emulator_copies_relays_and_does_what_the_reference_does_with_all_their_zeros(kernels):
    for seed in SEEDS:
        case = seeded(seed)
        expected = reference.run(densified(case.network), case.images, record=True)
        found = emulate.Emulator(case.network, kernels=kernels).run(case.images, record=True)
        for ours, theirs in zip(found.spikes, expected.spikes, strict=True):
            assert np.array_equal(ours, theirs), seed
        assert np.array_equal(found.logits, expected.logits)
        assert np.array_equal(found.active, expected.active)
        assert np.array_equal(found.saturations, expected.saturations)


def test_synapses_are_counted_as_in_the_layer_written_out():
    for seed in SEEDS:
        network = seeded(seed).network
        for (layer, source, _), (dense, _, _) in zip(network.wired(), densified(network).wired(), strict=True):
            args = (source, layer.weight != 0), (source, dense.weight != 0)
            assert counts.n_synapses(layer, *args[0]) == counts.n_synapses(dense, *args[1])
            assert np.array_equal(counts.fan_out(layer, *args[0]), counts.fan_out(dense, *args[1]))


def test_synaptic_operations_and_steps_of_spikes_are_those_of_the_layer_written_out():
    for seed in SEEDS:
        case = seeded(seed)
        found, expected = (emulate.run(network, case.images) for network in (case.network, densified(case.network)))
        assert np.array_equal(found.synops, expected.synops)
        assert np.array_equal(found.step_spikes, expected.step_spikes)
