"""What does not fit exits 1, and the sentence names layer, core, resource, used, limit and a remedy."""

from __future__ import annotations

import math
import re

import pytest

from toolchain import deployment

SPIKES_ONLY = (
    "input of loihi1: graded input messages 9 bits of 1. loihi1 sends spikes, not numbers; "
    "export the model for loihi1, so that its input is coded as biases. [R13]"
)


def test_a_model_that_fits_exits_0(run, model):
    answer = run("check", model, "--profile", "loihi2", "--json")
    assert answer.code == 0
    assert answer.json["fits"] is True
    assert answer.json["sentences"] == []
    assert (answer.json["n_cores"], answer.json["n_chips"]) == (3, 1)


def test_a_folder_is_checked_without_its_model(run, exported, model):
    of_model = run("check", model, "--profile", "loihi2", "--json").json
    assert run("check", exported, "--profile", "loihi2", "--json").json == of_model


def test_a_network_with_messages_is_refused_by_a_chip_that_sends_none(run, exported):
    answer = run("check", exported, "--profile", "loihi1", "--json")
    assert answer.code == 1
    assert answer.json["fits"] is False
    assert answer.json["sentences"] == [SPIKES_ONLY]
    assert "does not fit on loihi1" in run("check", exported, "--profile", "loihi1").out


def test_a_model_fits_a_chip_that_sends_no_messages_as_biases(run, model):
    answer = run("check", model, "--profile", "loihi1", "--json")
    assert answer.code == 0
    assert answer.json["fits"] is True


def test_export_refuses_what_check_refuses(run, model, tmp_path, profile):
    few = profile({"cores = { value = 120,": "cores = { value = 2,"})
    said = "network of loihi2: cores 3 cores of 2. Use --max-chips 2, or shrink conv1, which takes 1."
    answer = run("export", model, "--profile", few, "--out", tmp_path / "out", "--samples", "5", "--json")
    assert answer.code == 1
    assert answer.said == said
    assert answer.json == {"error": {"kind": "CapacityError", "message": said}, "exit_code": 1}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["check", "export"])
def test_a_layer_that_fits_no_core_is_named_with_a_remedy(run, model, profile, tmp_path, command):
    small = profile(
        {
            "synapse_words = { value = 16000,": "synapse_words = { value = 10,",
            "max_fill = { value = 0.9,": "max_fill = { value = 1.0,",
        }
    )
    options = ["--out", tmp_path / "out", "--samples", "5"] if command == "export" else []
    answer = run(command, model, "--profile", small, *options)
    assert (answer.code, answer.out) == (1, "")
    found = re.fullmatch(
        r"readout of loihi2: synaptic memory for one neuron (\d+) words of 10\. "
        r"Prune the densest rows of readout by a further (\d+) %, or use a profile with larger cores\.",
        answer.said,
    )
    used, percent = map(int, found.groups())
    assert used > 10
    assert percent == math.ceil(100 * (1 - 10 / used))
    assert not (tmp_path / "out").exists()


def test_too_few_cores_are_named_with_a_remedy(run, model, profile):
    answer = run("check", model, "--profile", profile({"cores = { value = 120,": "cores = { value = 2,"}), "--json")
    assert answer.code == 1
    assert answer.said == ("network of loihi2: cores 3 cores of 2. Use --max-chips 2, or shrink conv1, which takes 1.")


def test_more_chips_are_used_where_they_are_allowed(run, model, profile):
    path = profile({"cores = { value = 120,": "cores = { value = 2,"})
    answer = run("check", model, "--profile", path, "--max-chips", "2", "--json")
    assert answer.code == 0
    assert (answer.json["n_cores"], answer.json["n_chips"]) == (3, 2)


def test_a_core_over_its_limit_is_named(run, exported, monkeypatch, profile):
    """The mapping is made for a large core, the check is done for a small one, as where a mapping has an error."""
    large = deployment.profiles.load("loihi2")
    place = deployment.mapping.place
    monkeypatch.setattr(
        deployment.mapping, "place", lambda network, _profile, **options: place(network, large, **options)
    )
    answer = run(
        "check", exported, "--profile", profile({"neurons = { value = 4095,": "neurons = { value = 300,"}), "--json"
    )
    assert answer.code == 1
    (sentence,) = [text for text in answer.json["sentences"] if "neurons" in text]
    assert sentence.startswith("conv1 on core 0 of loihi2: neurons 384 neurons of 270. ")
    assert sentence.endswith("[R01]")


def test_a_weight_wider_than_the_chips_is_refused(run, model, profile):
    narrow = profile({"weight_bits = { value = 8,": "weight_bits = { value = 4,"})
    answer = run("check", model, "--profile", narrow)
    assert answer.code == 1
    assert answer.said == "weights: bits 8 of 4. Use --weight-bits 4 or fewer"
    assert run("check", model, "--profile", narrow, "--weight-bits", "4").code == 0
