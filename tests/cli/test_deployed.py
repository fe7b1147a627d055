"""evaluate --deployed and simulate --images, from one to the other."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from toolchain.deployed import images as adversarial


@pytest.fixture(scope="module")
def saved(model, home, run_once):
    """Adversarial images against the integers that the exported folder holds."""
    path = home / "adversarial.npz"
    options = ("--deployed", "--attack", "fgsm", "--eps", "32/255", "--no-checks", "--save-images", str(path))
    run_once("evaluate", str(model), *options)
    return path


def test_the_integers_are_measured_beside_the_float_network(run, model):
    answer = run("evaluate", model, "--deployed", "--attack", "fgsm", "--eps", "8/255", "--no-checks", "--json")
    assert answer.code == 0
    assert answer.json["backend"] == "integers"
    assert [outcome["attack"] for outcome in answer.json["outcomes"]] == ["none", "fgsm-ens"]
    assert {"accuracy", "before_rounding", "float", "against_float"} <= answer.json["outcomes"][1].keys()


def test_adversarial_images_are_run_in_place_of_the_samples(run, exported, saved):
    answer = run("simulate", exported, "--backend", "emulator", "--images", saved, "--json")
    made = adversarial.read(saved)
    assert answer.code == 0
    assert answer.json["classes"] == answer.json["expected"] == made.classes.tolist()
    assert answer.json["differing"] == 0
    shown = run("simulate", exported, "--backend", "emulator", "--images", saved, "--samples", 7)
    assert "7 of 7 classified as when " in " ".join(shown.out.split())


@pytest.mark.slow
@pytest.mark.lava
def test_lava_classifies_them_as_the_attack_saw_them(run, exported, saved):
    answer = run("simulate", exported, "--backend", "lava", "--kernels", "fast", "--images", saved, "--json")
    assert (answer.code, answer.json["differing"]) == (0, 0)
    assert answer.json["samples"] == len(adversarial.read(saved).images)


def test_another_class_than_the_attack_saw_is_a_no(run, exported, saved, tmp_path):
    with np.load(saved) as file:
        arrays = dict(file)
    arrays["classes"][:2] = (arrays["classes"][:2] + 1) % 10
    np.savez(tmp_path / "other.npz", **arrays)
    answer = run("simulate", exported, "--backend", "emulator", "--images", tmp_path / "other.npz", "--json")
    assert answer.code == 1
    n = len(arrays["classes"])
    assert answer.json["differing"] == 2
    assert answer.said == f"simulate: 2 of {n} images are classified otherwise than when they were made"


def test_images_made_against_another_network_are_refused(run, other_model, saved, tmp_path):
    run("export", other_model, "--profile", "loihi2", "--out", tmp_path / "other", "--samples", 2, "--attacked", 0)
    answer = run("simulate", tmp_path / "other", "--backend", "emulator", "--images", saved)
    assert answer.code == 2
    reason = f"made against another network than that of {tmp_path / 'other'}"
    assert answer.said == f"{saved}: {reason}; export the same model with the same options"


def test_a_damaged_file_is_refused(run, exported, saved, tmp_path):
    path = shutil.copy(saved, tmp_path / "cut.npz")
    path.write_bytes(path.read_bytes()[:100])
    answer = run("simulate", exported, "--backend", "emulator", "--images", path)
    assert (answer.code, answer.said) == (2, f"{path}: not adversarial images of evaluate --save-images")


def test_options_of_the_integers_mean_nothing_without_them(run, model):
    answer = run("evaluate", model, "--profile", "loihi2", "--save-images", "x.npz", "--json")
    assert answer.code == 2
    assert answer.json["error"]["message"] == "--profile, --save-images only with --deployed"


def test_inspect_gives_a_row_a_step(run, model):
    answer = run("inspect", model, "--samples", 10, "--attacked", 5, "--eps", "8/255", "--weight-bits", 4, "--json")
    assert answer.code == 0
    assert answer.json["schema"] == "rsnn-deploy/divergence/1"
    assert [row["step"] for row in answer.json["rows"]] == [
        "float network",
        "batch norm folded",
        "weights quantized",
        "thresholds and biases quantized",
        "integers",
    ]
    assert answer.json["attack"]["eps"] == 8 / 255
    shown = run("inspect", model, "--samples", 10, "--attacked", 0)
    assert "weights quantized" in shown.out
    assert "own" not in shown.out


def test_inspect_explains_an_image_or_says_that_there_is_none(run, model):
    answer = run("inspect", model, "--image", 2, "--weight-bits", 3, "--json")
    assert answer.code == 0
    assert {"classes", "logits", "layers", "first"} <= answer.json.keys()
    refused = run("inspect", model, "--image", 30)
    assert (refused.code, refused.said) == (2, "--image: expected a test image from 0 to 29, got 30")
    assert run("inspect", model, "--eps", "red").code == 2


def test_a_report_carries_the_robustness_that_was_measured_of_its_network(run, model, exported, tmp_path):
    options = ("--deployed", "--attack", "pgd", "--attack", "transfer-ann", "--eps", "8/255", "--no-checks")
    run("evaluate", model, *options, "--out", tmp_path / "evaluation")
    file, page = tmp_path / "evaluation" / "evaluation.json", tmp_path / "page.html"
    answer = run("report", exported, "--evaluation", file, "--html", page, "--json")
    found = answer.json["accuracy"]["deployed_attacked"]
    assert list(found) == ["pgd-ens@8", "transfer-ann@8", "all of these@8"]
    measured = json.loads(file.read_text())["outcomes"][1]
    assert found["pgd-ens@8"]["n_right"] == measured["n_right"]
    assert found["pgd-ens@8"]["against_float"] == measured["against_float"]
    assert "was not measured" not in page.read_text()
    assert "The integers under attack" in run("report", exported, "--evaluation", file).out


def test_a_report_carries_no_other_networks_robustness(run, model, exported, tmp_path):
    run("evaluate", model, "--attack", "none", "--out", tmp_path / "float")
    options = ("--deployed", "--attack", "none", "--weight-bits", 4)
    run("evaluate", model, *options, "--out", tmp_path / "other")
    said = {}
    for name in ("float", "other"):
        answer = run("report", exported, "--evaluation", tmp_path / name / "evaluation.json")
        assert answer.code == 2
        said[name] = answer.said.partition(": ")[2]
    assert said == {
        "float": "not an evaluation of integers, by evaluate --deployed",
        "other": "of another network than the one exported; evaluate the same model with the same options, --deployed",
    }
