import json

import numpy as np
import pytest
import torch
from toy import net, split

from toolchain import evaluate, resources
from toolchain.errors import ConfigError


def trained(mode="snn"):
    """A network that is right about every image, by the labels being its own answers."""
    model = net(mode=mode)
    images = split(48).images
    with torch.no_grad():
        labels = model(evaluate.pixels(images)).argmax(dim=1).numpy()
    return model, type(split())(images=images, labels=labels)


@pytest.mark.parametrize(
    ("k", "n", "expected"), [(9, 10, (0.5958, 0.9821)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0))]
)
def test_wilsons_interval_is_the_published_one(k, n, expected):
    assert evaluate.wilson(k, n) == pytest.approx(expected, abs=5e-5)


def test_the_paired_interval_is_the_formulas_by_hand():
    """n = 100, b = 25, c = 5: 20/102 +- 1.96 sqrt(31 - 400/102) / 102."""
    one = np.array([True] * 25 + [False] * 5 + [True] * 40 + [False] * 30)
    other = np.array([False] * 25 + [True] * 5 + [True] * 40 + [False] * 30)
    result = evaluate.compare(one, other)
    assert (result["difference"], result["only_one"], result["only_other"], result["n"]) == (0.2, 25, 5, 100)
    assert result["interval95"] == pytest.approx([0.19608 - 0.10000, 0.19608 + 0.10000], abs=2e-4)


def test_equal_outcomes_have_no_difference():
    right = np.array([True, False] * 20)
    result = evaluate.compare(right, right)
    assert result["difference"] == 0
    assert result["interval95"][0] < 0 < result["interval95"][1]


def test_comparing_different_images_is_refused():
    with pytest.raises(ConfigError, match=r"^compare: expected the same images, got 3 and 4$"):
        evaluate.compare(np.ones(3, bool), np.ones(4, bool))


def test_a_stronger_attack_never_helps_the_defender():
    model, images = trained()
    rates = [
        evaluate.attacked(model, images, attack, eps=eps, steps=steps).right.mean()
        for attack, eps, steps in [("none", 0, 1), ("fgsm", 0.03, 1), ("pgd-ens", 0.03, 10), ("pgd-ens", 1.0, 10)]
    ]
    assert rates[0] == 1
    assert rates == sorted(rates, reverse=True)
    assert rates[3] < 0.1


def test_no_attack_at_eps_zero_changes_anything():
    model, images = trained()
    assert evaluate.attacked(model, images, "pgd-ens", eps=0.0, steps=3).right.all()


def test_the_ensemble_is_no_better_than_its_best_member():
    model, images = trained()
    outcome = evaluate.attacked(model, images, "pgd-ens", eps=0.02, steps=5, exhaustive=True)
    alone = [entry["accuracy_alone"] for entry in outcome.to_dict()["members"].values()]
    assert len(alone) == 6
    assert 0 < outcome.right.mean() <= min(alone) < 1


def test_an_ann_is_attacked_by_its_true_gradient():
    model, images = trained("ann")
    outcome = evaluate.attacked(model, images, "fgsm", eps=0.05, steps=1)
    assert list(outcome.members) == ["true gradient"]


def test_outcomes_are_json_and_the_same_each_time():
    model, images = trained()
    first, second = (
        json.dumps(evaluate.attacked(model, images, "pgd-ens", eps=0.05, steps=2, seed=3).to_dict()) for _ in range(2)
    )
    assert first == second


def test_the_result_on_a_shipped_model_names_its_facts(capsys):
    result = evaluate.evaluate(resources.model_path("digits-cnn.pt"), attack="fgsm", samples=20)
    assert result["data"] == {"source": "digits", "split": "test", "n": 20}
    assert list(result["outcomes"]) == ["none", "fgsm"]
    assert result["model"]["sparsity"] >= 0.9
    json.dumps(result)
    evaluate.render(result)
    assert "fgsm" in capsys.readouterr().out


def test_an_unknown_attack_is_one_sentence():
    model, images = trained()
    with pytest.raises(ConfigError, match=r"^attack: expected one of none, fgsm, pgd-ens, got 'apgd'$"):
        evaluate.attacked(model, images, "apgd", eps=0.1, steps=1)
