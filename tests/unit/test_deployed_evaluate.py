"""Attacks on the integers of a model: what a sensor delivers, who decides, what is kept and what is said beside it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from toolchain import attacks, data, deployment, emulate, evaluate, nets, store
from toolchain.deployed import images as adversarial
from toolchain.deployed import measure, terminal
from toolchain.errors import ConfigError, FormatError, MismatchError, UnsupportedError
from toolchain.evaluate.delivery import Delivery, Target, delivered
from toolchain.train import pixels

EPS = 32 / 255
SETTINGS = deployment.Settings(profile="loihi2")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("deployed")


@pytest.fixture(scope="module")
def model(home):
    return tiny.model(home)


@pytest.fixture(scope="module")
def test_set(model):
    return data.load_test(store.load(model).data_source)


@pytest.fixture(scope="module")
def ready(model):
    return measure.made_ready(store.load(model), SETTINGS)


@pytest.fixture(scope="module")
def result(model, home):
    attack = ("fgsm", "square-20", "transfer-snn", "transfer-ann")
    return measure.evaluate(
        model,
        SETTINGS,
        attack=attack,
        eps=(EPS,),
        checks=False,
        save_images=home / "images.npz",
        out=home / "evaluation",
    )


# ------------------------------------------------------------------ what a sensor delivers


@pytest.mark.parametrize(("eps", "reach"), [(8 / 255, 8), (0.03, 7), (0.001, 0), (1, 255)])
def test_pixels_delivered_are_the_nearest_that_lie_in_the_ball(eps, reach):
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (20, 1, 4, 4), generator=generator) / 255
    inside = attacks.noise(lambda x: x, clean, torch.zeros(20), eps=eps, generator=generator)
    inside = clean + torch.rand(clean.shape, generator=generator) * (inside - clean)
    found = delivered(inside, clean, eps).double()
    assert (found - 255 * clean.double()).abs().max() <= reach + 1e-4
    assert (found - 255 * inside.double()).abs().max() <= max(0.5, 255 * eps - reach) + 1e-4
    assert torch.equal(delivered(clean, clean, eps), (255 * clean).round().byte())


def test_an_image_keeps_what_broke_it_and_is_told_of_what_only_rounding_saved():
    """Classes are a threshold of the one pixel: rounding moves 99.6 below 100."""

    def classify(images):
        return (images.reshape(-1) >= 100).astype(np.int64)

    def unrounded(images):
        over = (255 * images.flatten() > 99.55).double()
        return torch.stack([1 - over, over], dim=1)

    clean = torch.tensor([90.0, 90.0, 90.0, 120.0]).reshape(-1, 1, 1, 1) / 255
    labels = torch.tensor([0, 0, 0, 0])
    delivery = Delivery(Target(classify=classify, unrounded=unrounded), clean, labels, 20 / 255)
    assert delivery.clean().tolist() == [True, True, True, False]
    chosen = torch.tensor([0, 1, 2])

    def tried(*values: float):
        return torch.tensor(values).reshape(-1, 1, 1, 1) / 255

    assert delivery.judge(chosen, tried(105, 99.3, 130)).tolist() == [False, True, False]
    assert delivery.judge(chosen, tried(91, 92, 93)).tolist() == [True, True, True]
    assert delivery.images.flatten().tolist() == [105, 92, 110, 120]
    assert delivery.unrounded.tolist() == [False, True, False, True]
    assert delivery.judge(chosen[1:2], tried(99.58)).tolist() == [False]
    assert delivery.judge(chosen[1:2], tried(99.4)).tolist() == [True]
    assert delivery.images[1].item() == 100


# ------------------------------------------------------------------ who decides


def test_clean_accuracy_is_the_emulators(result, ready, test_set):
    right = emulate.run(ready.made.network, test_set.images).classes() == test_set.labels
    (none,) = [outcome for outcome in result["outcomes"] if outcome["attack"] == "none"]
    assert (none["n_right"], none["n"]) == (int(right.sum()), len(right))
    assert 0 < right.sum() < len(right)


def test_what_is_saved_was_delivered_and_is_what_the_emulator_says_of_it(result, home, ready, test_set):
    made = adversarial.read(home / "images.npz")
    assert made.network == ready.fingerprint == result["deployed"]["network_sha256"]
    assert np.array_equal(emulate.run(ready.made.network, made.images).classes(), made.classes)
    assert np.array_equal(made.labels, test_set.labels[made.index])
    assert np.abs(made.images.astype(int) - test_set.images[made.index]).max() == 32
    by_name = {outcome["attack"]: outcome for outcome in result["outcomes"]}
    n_clean = by_name["none"]["n_right"]
    assert list(dict.fromkeys(made.attack.tolist())) == ["fgsm-ens", "square-20", "transfer-snn", "transfer-ann"]
    for name in by_name.keys() - {"none"}:
        mine = made.attack == name
        assert mine.sum() == n_clean
        assert (made.classes[mine] == made.labels[mine]).sum() == by_name[name]["n_right"]
    assert by_name["fgsm-ens"]["n_right"] < n_clean


def test_the_module_attacked_computes_what_the_emulator_does_on_the_adversarial_images(result, home, ready):
    made = adversarial.read(home / "images.npz")
    trace = emulate.run(ready.made.network, made.images, record=True)
    with torch.no_grad():
        logits = ready.chain.logits(torch.tensor(made.images) - ready.chain.offset)
    assert np.array_equal(logits.numpy(), trace.logits)
    for record, spikes in zip(ready.chain.recorded(pixels(made.images)), trace.spikes, strict=True):
        assert np.array_equal(record.spikes.transpose(0, 1).numpy(), spikes)


def test_lava_says_of_the_adversarial_images_what_the_module_attacked_does(result, home, ready, run_on_lava):
    made = adversarial.read(home / "images.npz")
    few = made.images[:: max(1, len(made.images) // 6)]
    lava = run_on_lava(ready.made.network, few)
    with torch.no_grad():
        logits = ready.chain.logits(torch.tensor(few) - ready.chain.offset)
    assert np.array_equal(lava.logits, logits.numpy())
    for record, spikes in zip(ready.chain.recorded(pixels(few)), lava.spikes, strict=True):
        assert np.array_equal(record.spikes.transpose(0, 1).numpy(), spikes)


def test_a_module_that_differs_from_the_emulator_is_not_attacked(ready, test_set):
    wrong = replace(ready, target=replace(ready.target, classify=lambda images: np.full(len(images), 3)))
    with pytest.raises(MismatchError) as caught:
        measure._agree(wrong, test_set, torch.device("cpu"))
    with torch.no_grad():
        n = int((ready.chain(pixels(test_set.images)).argmax(dim=1) != 3).sum())
    assert str(caught.value) == f"evaluate: the differentiable integers and the emulator differ on {n} of 30 images"


# ------------------------------------------------------------------ beside the float network


def test_the_float_network_beside_it_is_measured_as_evaluate_does(result, model):
    alone = evaluate.evaluate(model, attack=("fgsm", "square-20"), eps=(EPS,), checks=False)
    for outcome in alone["outcomes"]:
        (mine,) = [other for other in result["outcomes"] if other["attack"] == outcome["attack"]]
        assert mine["float"]["n_right"] == outcome["n_right"]
        paired = mine["against_float"]
        assert paired["difference"] == pytest.approx(mine["accuracy"] - outcome["accuracy"])
        assert paired["bootstrap95"][0] <= paired["difference"] <= paired["bootstrap95"][1]
    assert not any("float" in outcome for outcome in result["outcomes"] if outcome["attack"].startswith("transfer"))


def test_another_models_float_network_can_stand_beside(result, model, home, capsys):
    loaded = store.load(model)
    turned = {name: -tensor if name.startswith("readout") else tensor for name, tensor in loaded.state.items()}
    other = home / "other.pt"
    store.save(dataclasses.replace(loaded, state=turned), other)
    found = measure.evaluate(model, SETTINGS, attack=("fgsm",), eps=(EPS,), checks=False, beside=other)
    alone = evaluate.evaluate(other, attack=("fgsm",), eps=(EPS,), checks=False)
    for mine, own, floating in zip(found["outcomes"], result["outcomes"][:2], alone["outcomes"], strict=True):
        assert mine["n_right"] == own["n_right"]
        assert mine["float"]["n_right"] == floating["n_right"]
    assert found["outcomes"][0]["float"]["n_right"] < result["outcomes"][0]["float"]["n_right"]
    assert found["float"] == {"path": str(other), "sha256": store.sha256(other)}
    terminal.evaluation(found)
    assert f"float: {other}" in capsys.readouterr().out


def test_a_transferred_attack_is_made_against_the_float_network(model, ready, test_set, result):
    """The naive way: PGD against the float SNN by each gradient, its images rounded, and the emulator asked."""
    net, settings = nets.restore(store.load(model)), store.load(model).recipe
    from toolchain.evaluate.outcome import _streams

    streams = _streams(settings.seed, "pgd-ens", np.arange(len(test_set)))
    labels, everyone = torch.tensor(test_set.labels), torch.arange(len(test_set))
    right = ready.target.classify(test_set.images) == test_set.labels
    for member in attacks.MEMBERS:
        with member.installed(net):
            found = attacks.pgd(
                net,
                pixels(test_set.images),
                labels,
                eps=EPS,
                steps=settings.attack.steps,
                generator=streams(member, everyone),
            )
        rounded = delivered(found, pixels(test_set.images), EPS).numpy()
        right &= ready.target.classify(rounded) == test_set.labels
    (mine,) = [outcome for outcome in result["outcomes"] if outcome["attack"] == "transfer-snn"]
    assert mine["n_right"] == right.sum()


def test_the_bootstraps_interval_is_that_of_the_binomials_it_draws():
    """Of 400 images one gets 40 right alone and the other none: the difference is binomial(400, 0.1) / 400."""
    one = np.array([True] * 240 + [False] * 160)
    other = np.array([True] * 200 + [False] * 200)
    low, high = evaluate.bootstrap(one, other)
    assert (low, high) == pytest.approx((0.1 - 1.96 * 0.015, 0.1 + 1.96 * 0.015), abs=0.003)
    assert evaluate.bootstrap(one, one) == (0.0, 0.0)


def test_the_result_is_plain_and_shown(result, capsys):
    json.dumps(result)
    terminal.evaluation(result)
    shown = capsys.readouterr().out
    assert "as integers of loihi2 (8 bits)" in shown
    assert all(name in shown for name in ("fgsm-ens", "square-20", "transfer-snn", "transfer-ann", "all of these"))


# ------------------------------------------------------------------ what is kept


def test_an_evaluation_goes_on_from_what_is_there(result, model, home, monkeypatch):
    def fails(*_args: object, **_settings: object):
        raise AssertionError

    for name in ("strongest", "strongest_fgsm"):
        monkeypatch.setattr(attacks, name, fails)
    attack = ("fgsm", "square-20", "transfer-snn", "transfer-ann")
    again = measure.evaluate(
        model,
        SETTINGS,
        attack=attack,
        eps=(EPS,),
        checks=False,
        save_images=home / "again.npz",
        out=home / "evaluation",
    )
    assert again == result == json.loads((home / "evaluation" / "evaluation.json").read_text())
    one, other = (adversarial.read(home / name) for name in ("images.npz", "again.npz"))
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("images", "classes", "index"))


def test_other_integers_do_not_go_on_from_it(result, model, home):
    settings = deployment.Settings(profile="loihi2", weight_bits=4)
    with pytest.raises(ConfigError) as caught:
        measure.evaluate(model, settings, attack=("fgsm",), eps=(EPS,), out=home / "evaluation")
    fault = "holds another evaluation, which differs in network; use another --out, or delete it"
    assert str(caught.value) == f"{home / 'evaluation'}: {fault}"


def test_an_attack_without_right_images_saves_none(home, ready, test_set):
    nothing = np.zeros(len(test_set), dtype=bool)
    outcome = evaluate.Outcome(
        attack="fgsm-ens",
        eps=EPS,
        steps=1,
        clean=nothing,
        right=nothing,
        members={},
        exhaustive=False,
        delivered=test_set.images,
        unrounded=nothing,
    )
    for found in ([outcome], []):
        made = adversarial.collected(found, test_set, network="0", classify=ready.target.classify)
        adversarial.write(home / "none.npz", made)
        assert adversarial.read(home / "none.npz").images.shape == (0, 1, 8, 8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": None}, "not adversarial images of evaluate --save-images"),
        ({"schema": np.array("other/1")}, "expected schema 'rsnn-deploy/adversarial-images/1', got 'other/1'"),
        ({"images": np.zeros((2, 1, 8, 8))}, "images has type float64 and shape (2, 1, 8, 8)"),
        ({"labels": np.zeros(3, dtype=np.int64)}, "labels has type int64 and shape (3,)"),
        ({"classes": np.zeros((2, 1), dtype=np.int64)}, "classes has type int64 and shape (2, 1)"),
        ({"labels": np.array([{}, {}], dtype=object)}, "not adversarial images of evaluate --save-images"),
    ],
)
def test_a_file_that_holds_anything_else_is_refused(tmp_path, change, reason):
    whole = {
        "schema": np.array(adversarial.SCHEMA),
        "network": np.array("0" * 64),
        "images": np.zeros((2, 1, 8, 8), dtype=np.uint8),
        "eps": np.zeros(2),
        "attack": np.array(["pgd-ens", "pgd-ens"]),
        **{name: np.zeros(2, dtype=np.int64) for name in ("labels", "classes", "index")},
    }
    arrays = {name: array for name, array in {**whole, **change}.items() if array is not None}
    np.savez(tmp_path / "made.npz", **arrays)
    with pytest.raises(FormatError) as caught:
        adversarial.read(tmp_path / "made.npz")
    assert str(caught.value) == f"{tmp_path / 'made.npz'}: {reason}"


# ------------------------------------------------------------------ what cannot be asked for


def test_a_model_without_spikes_is_refused_and_an_unknown_attack_named(home, model):
    settings = store.load(model).recipe
    ann = tiny.save(home / "ann.pt", settings, "train")
    with pytest.raises(UnsupportedError, match=r"stage train has no spikes yet"):
        measure.evaluate(ann, SETTINGS)
    with pytest.raises(ConfigError, match=r"^attack: expected one of transfer-snn, transfer-ann, none, .*, got 'fly'$"):
        measure.evaluate(model, SETTINGS, attack=("fly",))
    with pytest.raises(ConfigError, match=r"ann\.pt: is no spiking network$"):
        measure.evaluate(model, SETTINGS, beside=ann)
    other = measure.evaluate(model, SETTINGS, attack=("transfer-ann",), eps=(EPS,), ann=ann, samples=12)
    assert [outcome["attack"] for outcome in other["outcomes"]] == ["none", "transfer-ann"]
