"""What the shipped models are claimed to be, measured again on all test images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toolchain import data, deployment, emulate, evaluate, nets, profile, resources, store

EPS = 32 / 255


@pytest.fixture(scope="module")
def models():
    return {name: store.load(resources.model_path(name)) for name in ("digits-cnn.pt", "digits-cnn-plain.pt")}


def right(model, attack):
    split = data.load_test(model.data_source)
    return evaluate.attacked(nets.restore(model), split, attack, eps=EPS, steps=10).right


def test_both_models_are_at_least_90_percent_sparse_and_of_the_same_shape(models):
    robust, plain = models.values()
    assert robust.sparsity >= 0.9
    assert plain.sparsity >= 0.9
    assert robust.recipe.model == plain.recipe.model
    assert plain.recipe.loss.objective == "natural"


def test_the_plain_model_falls_below_half_its_clean_accuracy(models):
    plain = models["digits-cnn-plain.pt"]
    assert right(plain, "pgd-ens").mean() < right(plain, "none").mean() / 2


def test_the_robust_model_is_ten_points_above_the_plain_one_under_the_strongest_pgd(models):
    robust, plain = (right(model, "pgd-ens") for model in models.values())
    paired = evaluate.compare(robust, plain)
    assert paired["difference"] >= 0.10
    assert paired["interval95"][0] > 0


def test_the_integers_disagree_with_the_float_snn_on_at_most_five_test_images(models):
    model = models["digits-cnn.pt"]
    images = data.load_test(model.data_source).images
    settings = deployment.Settings(profile="loihi2")
    made = deployment.quantized(model, deployment._data(model), settings, profile.load("loihi2"))
    with torch.no_grad():
        expected = nets.restore(model)(torch.tensor(images) / 255).argmax(dim=1).numpy()
    assert np.count_nonzero(emulate.run(made.network, images).classes() != expected) <= 5


def test_the_card_states_the_sha256_of_the_shipped_file():
    card = resources.model_path("digits-cnn.pt").with_suffix(".md").read_text(encoding="utf-8")
    assert store.sha256(resources.model_path("digits-cnn.pt"))[:8] in card
    assert store.sha256(resources.model_path("digits-cnn-plain.pt"))[:8] in card
