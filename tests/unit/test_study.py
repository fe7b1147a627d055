"""The study of docs/results.md: what decides its verdicts, and the figures they rest on."""

import itertools

import numpy as np
import pytest
import torch
from study import claims, measure, page, plan, work
from toy import net, split, toy

from toolchain import data, prune, spiking
from toolchain import recipe as recipes
from toolchain.train import pixels

BASE = recipes.load(plan.RECIPE)


def claim(**changes):
    settings = {"says": "", "paper": "", "effect": lambda figures: figures["x"], "unit": "points", **changes}
    return claims.Claim(**settings)


@pytest.mark.parametrize(
    ("values", "changes", "verdict"),
    [
        ((5.0, 5.1, 4.9), {}, claims.REPRODUCED),
        ((-5.0, -5.1, -4.9), {}, claims.NOT_REPRODUCED),
        ((5.0, -1.0, 2.0), {}, claims.UNDECIDED),
        ((5.0, 5.1, 4.9), {"above": 6.0}, claims.NOT_REPRODUCED),
        ((0.1, -0.1, 0.0), {"within": 3.0}, claims.REPRODUCED),
        ((5.0, 5.1, 4.9), {"within": 3.0}, claims.NOT_REPRODUCED),
        ((5.0, 1.0, 2.0), {"within": 3.0}, claims.UNDECIDED),
        ((5.0,), {}, claims.UNDECIDED),
        ((), {}, claims.UNDECIDED),
    ],
)
def test_a_claim_is_decided_by_the_interval_of_its_effect_over_seeds(values, changes, verdict):
    assert claims.judge(claim(**changes), [{"x": value} for value in values]).verdict == verdict


def test_a_verdicts_interval_is_students_over_seeds():
    found = claims.judge(claim(), [{"x": value} for value in (1.0, 2.0, 6.0)])
    half = 4.303 * np.std([1, 2, 6], ddof=1) / 3**0.5
    assert (found.mean, found.low, found.high) == pytest.approx((3, 3 - half, 3 + half))


def test_a_seed_whose_arms_are_not_measured_yet_is_left_out():
    assert claims.judge(claim(), [{"x": 1.0}, {}, {"x": 2.0}]).values == (1.0, 2.0)


def test_counts_that_only_fall_or_only_rise_are_monotone():
    effect = claims.turns("spikes", "a", "b", "c")
    for counts in itertools.permutations((1, 2, 3)):
        figures = {arm: {"activity": {"spikes": n}} for arm, n in zip("abc", counts, strict=True)}
        assert effect(figures) == (-1 if counts in {(1, 2, 3), (3, 2, 1)} else 1)


def test_equal_work_is_the_conversions_passes_in_epochs_of_the_spiking_network():
    base = toy(timesteps=5, loss={"steps": 4}, train={"epochs": 6}, prune={"epochs": 2}, sparse={"epochs": 1})
    assert plan.equal_work(base) == 2 + round(9 * 15 / 45)


@pytest.mark.parametrize("layer", ["act1", "act2"])
def test_psi_is_what_one_spike_of_each_neuron_adds_up_to(layer):
    """Each neuron alone is set to 1 and sent through pool and masked synapses of weight 1."""
    model = net(mode="snn", hidden=(5,))
    mask = prune.magnitude(model, 0.6)
    body = model.body
    shape, following = {
        "act1": ((4, 8, 8), lambda x: torch.conv2d(body.pool1(x), mask["conv2.weight"].float(), padding=1)),
        "act2": ((6, 4, 4), lambda x: body.pool2(x).flatten(1) @ mask["linear1.weight"].float().T),
    }[layer]
    found = measure.psi(model, mask, layer, torch.Size(shape))
    n = int(np.prod(shape))
    alone = torch.stack([following(one[None]).sum() for one in torch.eye(n).reshape(n, *shape)]).reshape(shape)
    torch.testing.assert_close(found.float(), alone)


def test_activity_counts_every_spike_and_its_synapses():
    model = net(mode="snn")
    mask = prune.magnitude(model, 0.6)
    images = split(10)
    found = measure.activity(model, mask, images, batch=4)
    spikes = {}
    model.body.act2.register_forward_hook(lambda _layer, _inputs, output: spikes.update(act2=output))
    with torch.no_grad():
        model(pixels(images.images))
    total = spikes["act2"].sum(dim=0)
    outgoing = mask["readout.weight"].sum(dim=0).reshape(6, 2, 2).repeat_interleave(2, 1).repeat_interleave(2, 2) / 4
    assert found["layers"]["act2"]["spikes"] == pytest.approx(total.sum().item() / 10)
    assert found["layers"]["act2"]["additions"] == pytest.approx((total * outgoing).sum().item() / 10)
    assert found["spikes"] == sum(layer["spikes"] for layer in found["layers"].values())
    assert spiking.neurons(model)[0].mode == "snn"


def test_images_are_the_rounded_means_of_their_cells(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8)
    labels = np.arange(40) % 3
    np.savez(tmp_path / "raw.npz", x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9])
    plan.prepare(tmp_path / "raw.npz", tmp_path, 30)
    with np.load(tmp_path / "data.npz") as found:
        cells = images[:30].reshape(30, 4, 2, 4, 2).astype(float).mean(axis=(2, 4))
        assert np.array_equal(found["x_train"], np.floor(cells + 0.5))
        assert found["x_test"].shape == (9, 4, 4)
    assert len(data.load(str(tmp_path / "data.npz")).train) == 26


def test_every_arms_recipe_can_be_read_and_shares_what_it_should(tmp_path):
    choices = {grid.name: 0.5 for grid in plan.GRIDS}
    made = {arm.name: plan.recipe(BASE, arm, 1, tmp_path, choices) for arm in plan.arms(BASE)}
    assert made["hydra-90"].finetune.lr == made["e2e-ann-90"].finetune.lr == 0.5
    assert made["e2e-ann-90"].prune.mask == str(tmp_path / "seed-1" / "hydra-90" / "prune.pt")
    assert {recipe.train for recipe in made.values()} == {BASE.train}
    assert made["e2e-random-90-work"].finetune.epochs == plan.equal_work(BASE) > BASE.finetune.epochs


def figures(seed):
    rng = np.random.default_rng(seed)

    def one(arm):
        accuracies = {
            key: {"accuracy": k / 100, "n": 100, "n_right": int(k), "right": "1" * k + "0" * (100 - k)}
            for key, k in shares()
        }
        counts = {"spikes": rng.uniform(900, 1100), "additions": rng.uniform(1e4, 2e4), "n": 10}
        return {"arm": arm, "seed": seed, "sparsity": 0.9, **accuracies, "activity": counts}

    def shares():
        return ((key, rng.integers(0, 100)) for key in page.columns())

    return one


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_page_shows_what_there_is(tmp_path, n_seeds):
    """A partial study, too: an arm without figures is not in the tables, a claim about it is not decided."""
    pytest.importorskip("matplotlib")
    out, docs = tmp_path / "out", tmp_path / "docs"
    for seed in range(n_seeds):
        for arm in ("dense", "hydra-90", "lwm-99"):
            work.keep(out / f"seed-{seed}" / arm / "figures.json", figures(seed)(arm))
        work.keep(out / f"seed-{seed}" / "seconds.json", {"dense/train": 60.0})
    page.write(BASE, out, docs)
    text = (docs / "results.md").read_text()
    assert text.count("| HYDRA 90 % |") == 2 + n_seeds
    assert "HARP 90 %" not in text
    assert text.count("| not measured |") > 3
    assert ("±" in text.split("## The paper's claims")[0]) == (n_seeds > 1)
    assert "masked gradients" in text
    assert (docs / "results" / "arms.svg").exists()
    first = (docs / "results" / "arms.svg").read_bytes()
    page.write(BASE, out, docs)
    assert (docs / "results" / "arms.svg").read_bytes() == first


def test_robust_is_what_is_right_under_both_attacks_and_not_known_before():
    pgd, search = claims.ATTACKS
    found = {pgd: {"eps": 0.1, "right": "1101"}, "clean": {"right": "1111"}}
    assert work.robust(found) == found
    both = work.robust({**found, search: {"eps": 0.1, "right": "0111"}})[claims.ROBUST]
    assert (both["right"], both["n"], both["n_right"], both["accuracy"]) == ("0101", 4, 2, 0.5)
