"""Fitting a model into fewer cores: within the budget, by masks that only shrink, at the least damage, or not at all."""

from __future__ import annotations

import copy
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain import data, deployment, emulate, fit, mapping, nets, profile, quantize, store
from toolchain.deployment import Settings
from toolchain.emulate import reference
from toolchain.errors import CapacityError, ConfigError, UnsupportedError
from toolchain.fit import reduce, search
from toolchain.fit.search import Option

SMALL = """
extends = "loihi2"
name = "small"
description = "cores that hold a few synapses"

[core]
synapse_words = { value = 40, unit = "words", status = "assumed", source = "own" }

[sources]
own = "made up"
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "small.toml"
    path.write_text(SMALL)
    return str(path)


def n_cores(path, small):
    made, chip = store.load(path), profile.load(small)
    network = deployment.quantized(made, deployment.training_data(made), Settings(profile=small), chip).network
    return mapping.place(network, chip, max_chips=100).n_cores


@pytest.fixture(scope="module")
def fitted(model, small, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "fit.pt"
    allowed = n_cores(model, small) // 2
    return out, allowed, fit.fit(model, out, profile=small, n_cores=allowed, epochs=1)


def test_what_is_written_keeps_to_the_budget_and_passes_every_rule(fitted, small):
    out, allowed, result = fitted
    verdict = deployment.check_limits(str(out), Settings(profile=small))
    assert verdict["fits"]
    assert verdict["n_cores"] == result["cores"]["after"] <= allowed < result["cores"]["before"]


def test_masks_only_shrink_and_finetuning_leaves_every_pruned_weight_at_zero(fitted, model):
    before, after = store.load(model), store.load(fitted[0])
    assert after.n_nonzero_weights < before.n_nonzero_weights
    for name, mask in after.mask.items():
        assert not bool((mask & ~before.mask[name]).any())
        assert bool((after.state[name][~mask] == 0).all())
    assert any(not torch.equal(after.state[name][mask], before.state[name][mask]) for name, mask in after.mask.items())


def test_what_was_given_up_is_what_the_two_models_differ_in(fitted, model, small):
    out, _, result = fitted
    before, after = store.load(model), store.load(out)
    assert json.loads(json.dumps(result)) == result
    result = copy.deepcopy(result)
    for layer in result["layers"]:
        name = f"{layer['name']}.weight"
        shares = [1 - float(one.mask[name].float().mean()) for one in (before, after)]
        assert [layer["sparsity"]["before"], layer["sparsity"]["after"]] == pytest.approx(shares)
        assert layer["bits"] == {"before": 8, "after": after.weight_bits[layer["name"]]}
    integers = result["validation"]["after"].pop("integers")
    assert after.metrics["finetune"]["validation"] == result["validation"]["after"]
    loaded = deployment.training_data(after)
    network = deployment.quantized(after, loaded, Settings(profile=small), profile.load(small)).network
    right = reference.run(network, loaded.validation.images).logits.argmax(axis=1) == loaded.validation.labels
    assert (integers["n_right"], integers["n"]) == (right.sum(), len(right))


def test_without_epochs_the_kept_weights_and_the_stage_stay(model, small, tmp_path):
    out = tmp_path / "fit.pt"
    fit.fit(model, out, profile=small, n_cores=n_cores(model, small) - 1, epochs=0)
    before, after = store.load(model), store.load(out)
    assert after.stage == before.stage
    for name, mask in after.mask.items():
        assert torch.equal(after.state[name], before.state[name] * mask)


def test_a_tighter_budget_does_no_less_damage(model, small, tmp_path):
    needed = n_cores(model, small)
    damage = [
        fit.fit(model, tmp_path / "fit.pt", profile=small, n_cores=n, epochs=0)["damage"]["foreseen"]
        for n in (needed - 1, needed - 3, needed // 2)
    ]
    assert 0 < damage[0] <= damage[1] <= damage[2]


def test_the_test_images_are_never_read(model, small, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_test", lambda *_: pytest.fail("test images were read"))
    result = fit.fit(model, tmp_path / "fit.pt", profile=small, n_cores=n_cores(model, small) - 1, epochs=0)
    assert result["out"] == str(tmp_path / "fit.pt")


def test_a_model_that_fits_is_left_alone(model, tmp_path):
    out = tmp_path / "fit.pt"
    result = fit.fit(model, out, profile="loihi2", n_chips=1)
    assert (result["out"], result["validation"]) == (None, None)
    assert result["cores"]["before"] == result["cores"]["after"] == n_cores(model, "loihi2")
    assert not out.exists()


def test_where_nothing_helps_nothing_is_written_and_the_sentence_says_what_would(model, small, tmp_path):
    out = tmp_path / "fit.pt"
    with pytest.raises(CapacityError) as raised:
        fit.fit(model, out, profile=small, n_cores=2)
    used = raised.value.used
    assert used == 3  # a core a layer
    assert str(raised.value) == (
        "network of small: cores 3 cores of 2. That is what its neurons take with 2 bit weights, 0.2% of them kept: allow "
        "--cores 3 or --chips 1, or train a network with fewer channels or on smaller images"
    )
    assert not out.exists()


def test_a_budget_is_of_cores_or_of_chips_and_of_a_profile_that_has_them(model, small, tmp_path):
    for wanted in ({}, {"n_cores": 3, "n_chips": 1}):
        with pytest.raises(ConfigError, match="expected either --cores or --chips"):
            fit.fit(model, tmp_path / "fit.pt", profile=small, **wanted)
    with pytest.raises(UnsupportedError, match="generic45: this profile has no cores"):
        fit.fit(model, tmp_path / "fit.pt", profile="generic45", n_cores=3)


def test_importance_is_a_weight_times_the_activity_of_its_source(model):
    made = store.load(model)
    images = deployment.training_data(made).train.images[:8]
    chip = profile.load("loihi2")
    done = deployment.quantized(made, deployment.training_data(made), Settings(profile="loihi2"), chip)
    _, folded = quantize.fold(nets.restore(made), images.shape[1:], done.masks)
    trace = emulate.run(done.network, images, record=True)
    active = reduce.activity(done.network, trace, images)
    rate = 4 * trace.spikes[0].mean(axis=(0, 1, 3, 4))  # a pool sums 2 x 2 cells
    assert np.allclose(active[1].mean(axis=(1, 2)), rate)
    found = reduce.importance(folded[1], active[1])
    assert np.allclose(found, np.abs(folded[1].weight) * rate[None, :, None, None])
    assert np.allclose(active[0], np.abs(done.network.input.encode(images)).mean(axis=0))
    dense = reduce.importance(folded[2], active[2])
    assert np.allclose(dense, np.abs(folded[2].weight) * active[2].reshape(-1))


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_a_narrower_layer_keeps_to_its_width_and_its_unit(model, bits):
    made = store.load(model)
    chip = profile.load("loihi2")
    network = deployment.quantized(made, deployment.training_data(made), Settings(profile="loihi2"), chip).network
    for layer in (network.layers[1], network.readout):
        narrow, unit = reduce.narrowed(layer, bits)
        assert narrow.weight_bits == bits
        assert np.abs(narrow.weight).max() <= (1 << (bits - 1)) - 1 or bits == 8
        inside = np.abs(narrow.weight) < (1 << (bits - 1)) - 1
        assert np.abs(narrow.weight * unit - layer.weight)[inside].max() <= unit / 2


def test_masks_grow_by_importance_and_are_nested():
    rng = np.random.default_rng(0)
    mask, values = rng.random((6, 5)) < 0.7, rng.integers(0, 5, (6, 5)).astype(float)
    kept = [reduce.grown(mask, values, keep) for keep in range(1, int(mask.sum()) + 1)]
    assert [int(one.sum()) for one in kept] == list(range(1, int(mask.sum()) + 1))
    assert np.array_equal(kept[-1], mask)
    for fewer, more in pairwise(kept):
        assert not (fewer & ~more).any()
        assert values[fewer].min() >= values[more & ~fewer].max()


LAW = settings(max_examples=150, derandomize=True, database=None, deadline=None)


@st.composite
def layers(draw):
    """Frontiers of some layers, and the cores that their costs, rounded up together or each, come to."""
    frontiers = {}
    for index in range(draw(st.integers(1, 4))):
        n = draw(st.integers(1, 6))
        damages = sorted(draw(st.lists(st.integers(0, 40), min_size=n, max_size=n)))
        costs = sorted(draw(st.lists(st.integers(1, 40), min_size=n, max_size=n)), reverse=True)
        options = (
            Option(sparsity=0.0, weight_bits=8, damage=d / 8, cost=c / 4) for d, c in zip(damages, costs, strict=True)
        )
        frontiers[f"layer{index}"] = search.frontier(options)
    shared = draw(st.booleans())

    def cores(places):
        costs = [frontiers[name][place].cost for name, place in places.items()]
        return math.ceil(sum(costs)) if shared else sum(map(math.ceil, costs))

    return frontiers, cores


@LAW
@given(case=layers(), budget=st.integers(0, 40))
def test_a_walk_ends_within_the_budget_or_at_the_fewest_cores(case, budget):
    frontiers, cores = case
    places, needed = search.walk(frontiers, cores, budget)
    assert needed == cores(places)
    least = cores({name: len(options) - 1 for name, options in frontiers.items()})
    assert needed <= budget or needed == least


@LAW
@given(case=layers(), budgets=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_a_smaller_budget_never_does_less_damage_to_any_layer(case, budgets):
    frontiers, cores = case
    smaller, larger = (search.walk(frontiers, cores, budget)[0] for budget in sorted(budgets))
    assert all(smaller[name] >= larger[name] for name in frontiers)
    assert search.damage(frontiers, smaller) >= search.damage(frontiers, larger)


@LAW
@given(case=layers(), budget=st.integers(0, 40))
def test_what_fits_already_is_left_as_it_is(case, budget):
    frontiers, cores = case
    start = dict.fromkeys(frontiers, 0)
    if cores(start) <= budget:
        assert search.walk(frontiers, cores, budget) == (start, cores(start))


def test_a_frontier_holds_what_no_other_option_beats():
    def option(damage, cost):
        return Option(sparsity=0.5, weight_bits=8, damage=damage, cost=cost)

    best = option(0, 3), option(1, 2), option(4, 1)
    assert search.frontier([option(2, 2), best[2], option(0, math.inf), best[0], option(1, 3), best[1]]) == best
    assert search.frontier([option(0, math.inf)]) == ()
