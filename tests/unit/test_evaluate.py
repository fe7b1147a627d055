import json
import sys

import numpy as np
import pytest
import torch
from toy import net, split

from toolchain import attacks, evaluate, resources
from toolchain.errors import BackendError, ConfigError, FormatError
from toolchain.evaluate import stored
from toolchain.train import pixels


def trained(mode="snn"):
    """A network that is right about every image, by the labels being its own answers."""
    model = net(mode=mode)
    images = split(48).images
    with torch.no_grad():
        labels = model(pixels(images)).argmax(dim=1).numpy()
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
        for attack, eps, steps in [("none", 0.0, 1), ("fgsm", 0.03, 1), ("pgd-ens", 0.03, 10), ("pgd-ens", 1.0, 10)]
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
    assert len(alone) == 19
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
    path = resources.model_path("digits-cnn.pt")
    result = evaluate.evaluate(path, attack=["fgsm", "noise"], samples=20, checks=False)
    assert result["data"] == {"source": "digits", "split": "test", "n": 20, "of": 360, "subset": "the first 20 of 360"}
    assert [outcome["attack"] for outcome in result["outcomes"]] == ["none", "fgsm-ens", "noise"]
    (together,) = result["together"]
    rights = [evaluate.measure(path, attack, eps=32 / 255, images=range(20)).right for attack in ("fgsm", "noise")]
    assert (together["eps"], together["n_right"]) == (32 / 255, int((rights[0] & rights[1]).sum()))
    assert result["model"]["sparsity"] >= 0.9
    json.dumps(result)
    evaluate.render(result)
    assert "fgsm-ens" in capsys.readouterr().out


KNOWN = "none, noise, fgsm-ens, pgd-ens, apgd-ce-ens, apgd-dlr-ens, search-ens, rga, square-500, square-1000, square-5000, autoattack"


@pytest.mark.parametrize(
    ("mode", "attack", "reason"),
    [
        ("snn", "apgd", f"expected one of {KNOWN}, got 'apgd'"),
        ("snn", "square-0", f"expected one of {KNOWN}, got 'square-0'"),
        ("ann", "rga", "rga takes a spiking network, and this one does not spike"),
        (
            "snn",
            "autoattack",
            "autoattack takes a network with a true gradient, and this one spikes; use apgd-ce-ens or apgd-dlr-ens",
        ),
    ],
)
def test_an_attack_that_does_not_suit_is_one_sentence(mode, attack, reason):
    model, images = trained(mode)
    with pytest.raises(ConfigError) as caught:
        evaluate.attacked(model, images, attack, eps=0.1)
    assert str(caught.value) == f"attack: {reason}"


@pytest.mark.parametrize("attack", ["noise", "fgsm", "pgd", "apgd-ce", "apgd-dlr", "search", "rga", "square-30"])
def test_an_images_fate_depends_on_no_other_image(attack):
    model, images = trained()
    whole = evaluate.attacked(model, images, attack, eps=0.03, steps=2, seed=7)
    chosen = np.array([40, 3, 17, 4, 5])
    few = type(images)(images=images.images[chosen], labels=images.labels[chosen])
    part = evaluate.attacked(model, few, attack, eps=0.03, steps=2, seed=7, indices=chosen)
    assert part.right.tolist() == whole.right[chosen].tolist()
    assert part.clean.tolist() == whole.clean[chosen].tolist()


def test_random_starts_depend_on_the_seed():
    model, images = trained()
    rights = [evaluate.attacked(model, images, "noise", eps=0.2, seed=seed).right.tolist() for seed in (0, 1)]
    assert rights[0] != rights[1]


def test_members_say_how_many_images_each_of_them_broke():
    model, images = trained()
    outcome = evaluate.attacked(model, images, "fgsm", eps=0.02)
    table = outcome.to_dict()
    assert sum(entry["n_broken"] for entry in table["members"].values()) == 48 - table["n_right"]
    assert list(table["members"]) == [member.name for member in attacks.MEMBERS]
    assert list(table["members"].values())[-1]["accuracy_so_far"] == table["accuracy"]


def test_measure_pairs_images_by_their_index_whatever_the_subset():
    path = resources.model_path("digits-cnn.pt")
    settings = {"eps": 32 / 255, "steps": 2, "members": attacks.STRONGEST[:2]}
    whole = evaluate.measure(path, "pgd", images=range(40), **settings)
    part = evaluate.measure(path, "pgd", images=[31, 5, 6], **settings)
    assert part.right.tolist() == whole.right[[31, 5, 6]].tolist()
    with pytest.raises(ConfigError, match=r"images: expected indices from 0 to 359, got 5 to 360$"):
        evaluate.measure(path, "none", images=[5, 360])


def test_progress_is_told_with_its_total():
    told = []
    settings = {"attack": ["noise", "square-5"], "eps": [0.1, 0.2], "samples": 6, "checks": False}
    evaluate.evaluate(resources.model_path("digits-cnn.pt"), **settings, advance=lambda *n: told.append(n))
    assert told == [(6, 30), (12, 30), (18, 30), (24, 30), (30, 30)]


class KilledError(Exception):
    pass


def killed_after(n):
    def advance(_done, _of):
        nonlocal n
        n -= 1
        if n < 0:
            raise KilledError

    return advance


def test_an_evaluation_that_is_killed_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("toolchain.evaluate.outcome.UNIT", 16)
    path = resources.model_path("digits-cnn.pt")
    settings = {"attack": ["fgsm", "square-20"], "eps": [0.1, 0.2], "samples": 40}
    expected = evaluate.evaluate(path, **settings, checks=False)
    with pytest.raises(KilledError):
        evaluate.evaluate(path, **settings, checks=False, out=tmp_path, advance=killed_after(5))
    kept = sorted(file.name for file in (tmp_path / "units").iterdir())
    assert len(kept) == 6
    monkeypatch.setattr("toolchain.attacks.ensemble._Shared", None)  # what is kept is not computed again
    with pytest.raises(TypeError):
        evaluate.evaluate(path, **settings, checks=False, out=tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("toolchain.evaluate.outcome.UNIT", 16)
    assert evaluate.evaluate(path, **settings, checks=False, out=tmp_path) == expected
    monkeypatch.setattr("toolchain.evaluate.outcome.UNIT", 32)  # units of other sizes are not mistaken for these
    assert evaluate.evaluate(path, **settings, checks=False, out=tmp_path) == expected
    assert json.loads((tmp_path / "evaluation.json").read_text()) == expected
    evaluate.evaluate(path, attack=["noise"], eps=[0.1], samples=40, checks=False, out=tmp_path)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"samples": 41}, "images, n"),
        ({"steps": 3}, "steps"),
        ({"exhaustive": True}, "exhaustive"),
        ({"path": "digits-cnn-plain.pt"}, "model"),
    ],
)
def test_a_folder_keeps_one_evaluation(tmp_path, changed, what):
    settings = {"path": "digits-cnn.pt", "samples": 8, "steps": 2, "exhaustive": False}

    def run(table):
        path = resources.model_path(table["path"])
        rest = {key: value for key, value in table.items() if key != "path"}
        return evaluate.evaluate(path, attack=["noise"], checks=False, out=tmp_path, **rest)

    run(settings)
    with pytest.raises(ConfigError) as caught:
        run({**settings, **changed})
    fault = f"holds another evaluation, which differs in {what}; use another --out, or delete it"
    assert str(caught.value) == f"{tmp_path}: {fault}"


def test_a_damaged_unit_is_refused(tmp_path):
    path = resources.model_path("digits-cnn.pt")
    settings = {"attack": ["none"], "samples": 8, "checks": False, "out": tmp_path}
    evaluate.evaluate(path, **settings)
    (unit,) = (tmp_path / "units").iterdir()
    unit.write_text('{"n": 8, "clean": "zz", "right": "", "members": {}}')
    with pytest.raises(FormatError) as caught:
        evaluate.evaluate(path, **settings)
    assert str(caught.value) == f"{unit}: not a unit of an evaluation; delete it to repeat it"


@pytest.mark.parametrize("device", ["abacus", "cpu:x", "cuda:99"])
def test_a_device_that_is_not_there_is_one_sentence(device):
    with pytest.raises(ConfigError) as caught:
        evaluate.evaluate(resources.model_path("digits-cnn.pt"), attack=["none"], device=device)
    assert str(caught.value) == f"--device: expected a device that torch can use here, such as cpu, got {device!r}"


def test_all_leaves_out_what_does_not_suit_the_model():
    names = {mode: stored.fitting_names(net(mode=mode), ["all"], 10) for mode in ("ann", "snn")}
    squares = ("square-500", "square-1000", "square-5000")
    assert names["ann"] == ("fgsm-ens", "pgd-ens", "apgd-ce-ens", "apgd-dlr-ens", "search-ens", *squares)
    assert names["snn"] == ("fgsm-ens", "pgd-ens", "apgd-ce-ens", "apgd-dlr-ens", "search-ens", "rga", *squares)
    assert "apgd-dlr-ens" not in stored.fitting_names(net(), ["all", "pgd"], 2)


def test_what_an_attack_lacks_is_said_before_anything_is_attacked(monkeypatch):
    with pytest.raises(ConfigError, match=r"^attack: the DLR loss takes three classes, got 2$"):
        stored.fitting_names(net(), ["pgd", "apgd-dlr"], 2)
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(BackendError, match="pyautoattack is not installed"):
        stored.fitting_names(net(), ["pgd", "autoattack"], 10)
