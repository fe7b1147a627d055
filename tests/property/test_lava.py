"""Stock Lava, Lava with fast kernels, and the reference compute the same spikes and logits."""

from __future__ import annotations

import itertools

import pytest
import relays
from networks import Case, corners, deployed, driven, refusal, seeded
from traces import differences

from toolchain.emulate import reference
from toolchain.errors import UnsupportedError
from toolchain.export import pack

DRAWN = 120


def exportable() -> dict[int, Case]:
    """Return the first random networks that netx can say, by their seed."""
    drawn = ((seed, seeded(seed)) for seed in itertools.count())
    return dict(itertools.islice(((seed, case) for seed, case in drawn if refusal(case.network) is None), DRAWN))


CASES = exportable()
SEEDS = list(CASES)
CORNERS = corners()


def compare(run_on_lava, case: Case, kernels: str) -> list[str]:
    expected = reference.run(case.network, case.images, record=True)
    return differences(expected, run_on_lava(case.network, case.images, kernels))


@pytest.mark.parametrize("seed", SEEDS[:30])
def test_stock_lava_spikes_as_the_reference_does(run_on_lava, seed):
    assert compare(run_on_lava, CASES[seed], "stock") == []


@pytest.mark.parametrize("seed", SEEDS[:12])
def test_fast_kernels_spike_as_the_reference_does(run_on_lava, seed):
    assert compare(run_on_lava, CASES[seed], "fast") == []


@pytest.mark.parametrize(("seed", "kernels"), [(seed, ("stock", "fast")[seed % 2]) for seed in SEEDS[:8]])
def test_lava_driven_by_biases_spikes_as_the_reference_does(run_on_lava, seed, kernels):
    assert compare(run_on_lava, driven(CASES[seed], divisor=1 + seed % 5), kernels) == []


@pytest.mark.parametrize(("seed", "kernels"), itertools.product(range(4), ["stock", "fast"]))
def test_relays_pass_spikes_on_as_the_reference_does(run_on_lava, seed, kernels):
    assert compare(run_on_lava, relays.seeded(seed), kernels) == []


@pytest.mark.parametrize("name", CORNERS)
def test_stock_lava_spikes_as_the_reference_does_in_the_corners(run_on_lava, name):
    assert compare(run_on_lava, CORNERS[name], "stock") == []


@pytest.mark.parametrize("name", CORNERS)
def test_fast_kernels_spike_as_the_reference_does_in_the_corners(run_on_lava, name):
    assert compare(run_on_lava, CORNERS[name], "fast") == []


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["stock", "fast"])
@pytest.mark.parametrize("seed", SEEDS[30:])
def test_lava_spikes_as_the_reference_does_in_further_networks(run_on_lava, seed, kernels):
    assert compare(run_on_lava, CASES[seed], kernels) == []


def test_networks_that_netx_would_change_are_refused():
    refused = [seed for seed in range(SEEDS[29]) if seed not in CASES]
    assert len(refused) >= 10
    for seed in refused:
        network = seeded(seed).network
        with pytest.raises(UnsupportedError) as error:
            pack(deployed(network))
        assert str(error.value) == refusal(network)
