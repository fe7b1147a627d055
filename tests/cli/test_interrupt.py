"""Ctrl-C ends a command with exit code 130 and one sentence, and what it had finished stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from cli_process import COMMAND, contents

from toolchain import resources, store


def interrupted(args, until):
    """The exit code, stdout and stderr of a command that gets SIGINT once a line of its stderr starts with `until`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*COMMAND, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        for line in process.stderr:
            if line.startswith(until):
                break
        else:
            pytest.fail(f"it never said {until}")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "rsnn-deploy: interrupted"
    assert process.returncode == 130
    return out


def test_an_interrupted_export_leaves_the_old_result(exported, folder):
    before = contents(folder)
    shipped = resources.model_path("digits-cnn")
    args = ["export", shipped, "--profile", "loihi2", "--out", folder, "--json"]
    out = interrupted(args, until="quantize to 8 bits")
    assert json.loads(out) == {"error": {"kind": "KeyboardInterrupt", "message": "interrupted"}, "exit_code": 130}
    assert contents(folder) == before


def test_an_interrupted_run_keeps_its_finished_epochs(run, images, tmp_path):
    settings = [f"data.source={images}", "train.epochs=400", "attack.steps=1", "loss.steps=3", "threads=1"]
    args = ["run", "digits-cnn", "--out", tmp_path / "run", "--until", "train", *(f"--set={item}" for item in settings)]
    assert interrupted(args, until="train: epoch") == ""
    assert sorted(contents(tmp_path / "run")) == ["recipe.json", "resume.pt"]
    done = store.read(tmp_path / "run" / "resume.pt")["epoch"]["number"]
    assert 1 <= done < 400
