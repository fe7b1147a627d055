"""What the shipped models are claimed to be, measured again on all test images."""

from __future__ import annotations

import functools

import numpy as np
import torch

from toolchain import attacks, data, deployment, emulate, evaluate, nets, profile, resources, store

EPS = 32 / 255


@functools.cache
def model(name):
    return store.load(resources.model_path(f"{name}.pt"))


@functools.cache
def right(name, attack):
    split = data.load_test(model(name).data_source)
    members = attacks.STRONGEST if attack == "pgd-ens" else None
    return evaluate.attacked(nets.restore(model(name)), split, attack, eps=EPS, members=members).right


def test_both_models_are_at_least_90_percent_sparse_and_of_the_same_shape():
    robust, plain = model("digits-cnn"), model("digits-cnn-plain")
    assert robust.sparsity >= 0.9
    assert plain.sparsity >= 0.9
    assert robust.recipe.model == plain.recipe.model
    assert plain.recipe.loss.objective == "natural"


def test_the_plain_model_falls_below_half_its_clean_accuracy():
    assert right("digits-cnn-plain", "pgd-ens").mean() < right("digits-cnn-plain", "none").mean() / 2


def test_the_robust_model_is_ten_points_above_the_plain_one_under_the_strongest_pgd():
    paired = evaluate.compare(right("digits-cnn", "pgd-ens"), right("digits-cnn-plain", "pgd-ens"))
    assert paired["difference"] >= 0.10
    assert paired["interval95"][0] > 0


def test_the_integers_disagree_with_the_float_snn_on_at_most_five_test_images():
    robust = model("digits-cnn")
    images = data.load_test(robust.data_source).images
    settings = deployment.Settings(profile="loihi2")
    made = deployment.quantized(robust, deployment.training_data(robust), settings, profile.load("loihi2"))
    with torch.no_grad():
        expected = nets.restore(robust)(torch.tensor(images) / 255).argmax(dim=1).numpy()
    assert np.count_nonzero(emulate.run(made.network, images).classes() != expected) <= 5


def test_the_card_states_the_sha256_of_the_shipped_file():
    card = resources.model_path("digits-cnn.pt").with_suffix(".md").read_text(encoding="utf-8")
    assert store.sha256(resources.model_path("digits-cnn.pt"))[:8] in card
    assert store.sha256(resources.model_path("digits-cnn-plain.pt"))[:8] in card
