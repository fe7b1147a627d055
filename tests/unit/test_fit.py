"""Fitting a model into fewer cores: within the budget, by masks that only shrink, at the least damage, or not at all."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
import tiny
import torch

from toolchain import deployment, fit, mapping, nets, profile, store
from toolchain.deployment import Settings
from toolchain.emulate import reference
from toolchain.errors import CapacityError, ConfigError, UnsupportedError
from toolchain.train import pixels

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
    data = deployment.training_data(after)
    network = deployment.quantized(after, data, Settings(profile=small), profile.load(small)).network
    right = reference.run(network, data.validation.images).logits.argmax(axis=1) == data.validation.labels
    assert (integers["n_right"], integers["n"]) == (right.sum(), len(right))


def test_without_epochs_the_kept_weights_and_the_stage_stay(model, small, tmp_path):
    out = tmp_path / "fit.pt"
    fit.fit(model, out, profile=small, n_cores=n_cores(model, small) - 1, epochs=0)
    before, after = store.load(model), store.load(out)
    assert after.stage == before.stage
    for name, mask in after.mask.items():
        assert torch.equal(after.state[name], before.state[name] * mask)


def test_a_tighter_budget_gives_up_all_that_a_wider_one_does(model, small, tmp_path):
    least = n_cores(model, small)
    kept = []
    for n in (least - 1, least - 2, least // 2):
        fit.fit(model, tmp_path / f"{n}.pt", profile=small, n_cores=n, epochs=0)
        kept.append(store.load(tmp_path / f"{n}.pt"))
    for wide, tight in itertools.pairwise(kept):
        assert all(tight.weight_bits[name] <= bits for name, bits in wide.weight_bits.items())
        assert not any(bool((tight.mask[name] & ~mask).any()) for name, mask in wide.mask.items())


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
    net = nets.restore(store.load(model))
    images = pixels(deployment.training_data(store.load(model)).train.images[:8])
    found = fit.importance(net, images)
    spikes = []
    net.body.act1.register_forward_hook(lambda _layer, _inputs, output: spikes.append(output))
    with torch.no_grad():
        net(images)
    rate = spikes[0].mean(dim=(0, 2, 3))  # an average pool keeps the mean
    assert torch.allclose(found["conv2"], net.body.conv2.weight.abs() * rate[None, :, None, None])
