"""`heal` on the shipped model: a table, a file that exports as narrow as it was healed, or exit code 1."""

from __future__ import annotations

import json

from toolchain import heal


def test_the_shipped_model_is_healed_for_three_bits(run, tmp_path):
    out = tmp_path / "healed.pt"
    answer = run("heal", "digits-cnn", "--profile", "loihi2", "--weight-bits", "3", "--epochs", "1", "--out", out)
    assert answer.code == 0
    assert "integers after" in answer.out
    assert "weight bits for loihi2: conv1 3, conv2 3, readout 3" in answer.out
    assert f"wrote {out}; next: rsnn-deploy export {out} --profile loihi2" in answer.err
    checked = run("check", out, "--profile", "loihi2", "--json")
    assert json.loads(checked.out)["fits"]


def test_what_did_not_help_ends_with_1_and_no_file(run, tmp_path, monkeypatch):
    worse = iter([0.4, 0.5])
    monkeypatch.setattr(heal, "_mean", lambda _found: next(worse))
    answer = run("heal", "digits-cnn", "--profile", "loihi2", "--epochs", "1", "--out", tmp_path / "healed.pt")
    assert answer.code == 1
    assert "it did not help: nothing was written" in answer.out
    assert list(tmp_path.iterdir()) == []


def test_a_rate_at_which_training_diverges_is_named(run, tmp_path):
    options = ["--profile", "loihi2", "--epochs", "1", "--out", tmp_path / "healed.pt", "--lr", "1000"]
    answer = run("heal", "digits-cnn", *options)
    assert (answer.code, answer.said) == (2, "heal: training diverged at lr = 1000; use a smaller --lr")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(run, tmp_path):
    (tmp_path / "file").write_text("")
    answer = run("heal", "digits-cnn", "--profile", "loihi2", "--out", tmp_path / "file" / "healed.pt")
    assert (answer.code, answer.said) == (2, f"{tmp_path / 'file'}: cannot be written: File exists")
    assert "integers before" not in answer.err
