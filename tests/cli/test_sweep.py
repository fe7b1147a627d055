"""`sweep` on the shipped model: one table, files, exit code 0; what is no range ends with 2."""

from __future__ import annotations

import json

import pytest

QUICK = ["--samples", "20", "--attacked", "0"]


def test_the_shipped_model_is_swept_and_a_second_time_nothing_is_measured_again(run, tmp_path):
    out = tmp_path / "swept"
    options = ["--profile", "loihi2", "--bits", "7..8", "--timesteps", "4", "--out", out, *QUICK]
    answer = run("sweep", "digits-cnn", *options, "--early-exit")
    assert answer.code == 0
    assert "digits-cnn on loihi2" in answer.out
    assert "Stopped early" in answer.out
    assert [line for line in answer.err.splitlines() if line.startswith("point")] == [
        f"point {n} of 2: {bits} bits, T = 4, as sparse as it is" for n, bits in ((1, 7), (2, 8))
    ]
    again = run("sweep", "digits-cnn", *options, "--early-exit", "--json")
    assert again.err == f"wrote {out / 'sweep.json'} and {out / 'sweep.svg'}\n"
    assert json.loads(again.out) == json.loads((out / "sweep.json").read_text())
    assert [row["bits"] for row in again.json["rows"]] == [7, 8]
    other = run("sweep", "digits-cnn", *options)
    fault = "holds another sweep, which differs in early_exit; use another --out, or delete it"
    assert (other.code, other.said) == (2, f"{out}: {fault}")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--bits", "2..9", "9 is not in the range 1<=x<=8."),
        ("--bits", "8..2", "expected whole numbers such as 2..8 or 2,4,8, got '8..2'"),
        ("--timesteps", "2,,4", "expected whole numbers such as 2..8 or 2,4,8, got ''"),
        ("--timesteps", "0..9999", "expected whole numbers such as 2..8 or 2,4,8, got '0..9999'"),
        ("--sparsity", "0,1", "expected shares from 0 to below 1 such as 0,0.95, got 1"),
        ("--sparsity", "0.5,nan", "expected shares from 0 to below 1 such as 0,0.95, got nan"),
        ("--sparsity", "most", "'most' is not a valid float."),
    ],
)
def test_what_is_no_range_is_refused(run, option, value, said):
    answer = run("sweep", "digits-cnn", "--profile", "loihi2", option, value)
    assert (answer.code, answer.err.splitlines()[-1]) == (2, f"Error: Invalid value for '{option}': {said}")


def test_a_device_that_is_none_is_refused_before_the_folder_is_claimed(run, tmp_path):
    answer = run("sweep", "digits-cnn", "--profile", "loihi2", "--device", "abacus", "--out", tmp_path, *QUICK)
    fault = "expected a device that torch can use here, such as cpu, got 'abacus'"
    assert (answer.code, answer.said) == (2, f"--device: {fault}")
    assert list(tmp_path.iterdir()) == []


def test_ranges_and_numbers_mix_each_once(run, tmp_path):
    options = [
        "--profile",
        "loihi2",
        "--bits",
        "8,2..3,3",
        "--timesteps",
        "1",
        "--sparsity",
        "0.5,0",
        "--out",
        tmp_path,
    ]
    rows = run("sweep", "digits-cnn", *options, *QUICK, "--json").json["rows"]
    assert [(row["bits"], row["timesteps"], row["sparsity_asked"]) for row in rows] == [(n, 1, None) for n in (2, 3, 8)]
