"""`fit` on the shipped model: exit code 0 where it fits or was made to, 1 where nothing helps, 2 where the question is none."""

from __future__ import annotations

import json

import pytest

SMALL = """
extends = "loihi2"
name = "small"
description = "small cores"

[core]
synapse_words = { value = 160, unit = "words", status = "assumed", source = "own" }
neurons = { value = 600, unit = "neurons", status = "assumed", source = "own" }

[sources]
own = "made up"
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.mark.slow
def test_the_shipped_model_is_made_to_fit_smaller_cores(run, small, tmp_path):
    out = tmp_path / "fit.pt"
    options = ["--profile", small, "--cores", "200", "--epochs", "0", "--out", out, "--json"]
    answer = run("fit", "digits-cnn", *options)
    assert answer.code == 0
    result = json.loads(answer.out)
    assert result["cores"]["after"] <= 200 < result["cores"]["before"]
    checked = run("check", out, "--profile", small, "--max-chips", "2", "--json")
    assert (checked.code, json.loads(checked.out)["n_cores"]) == (0, result["cores"]["after"])


def test_a_model_that_fits_ends_with_0_and_one_that_never_will_with_1(run, small, tmp_path):
    out = tmp_path / "fit.pt"
    answer = run("fit", "digits-cnn", "--profile", "loihi2", "--chips", "1", "--out", out)
    assert (answer.code, answer.out) == (0, "fits as it is: 3 of 120 cores of loihi2; nothing was changed\n")
    answer = run("fit", "digits-cnn", "--profile", small, "--cores", "2", "--out", out)
    assert (answer.code, answer.out) == (1, "")
    assert "allow --cores 7" in answer.err
    assert not out.exists()


def test_a_budget_of_nothing_and_a_budget_of_both_are_no_questions(run, tmp_path):
    for wanted in ([], ["--cores", "3", "--chips", "1"]):
        answer = run("fit", "digits-cnn", "--profile", "loihi2", "--out", tmp_path / "fit.pt", *wanted)
        assert (answer.code, answer.said) == (2, "fit: expected either --cores or --chips")
