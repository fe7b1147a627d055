"""The tutorial and the example: their code does what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE, EXAMPLE = DOCS / "tutorial.md", DOCS / "examples" / "digits.py"
BLOCK = re.compile(r"(<!-- lava -->\n)?```python\n(.*?)```", re.DOTALL)


def play(folder, monkeypatch, *, lava):
    """Run the page's blocks in a folder; those that need Lava only where asked for. Returns what they have defined."""
    monkeypatch.chdir(folder)
    session: dict[str, object] = {}
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == PAGE.read_text(encoding="utf-8").count("```python")
    for needs_lava, code in blocks:
        if lava or not needs_lava:
            exec(compile(code, str(PAGE), "exec"), session)
    return session


def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    session = play(tmp_path, monkeypatch, lava=False)
    assert (tmp_path / "build" / "digits" / "report.html").exists()
    assert session["deployed"]["accuracy"] > 0.5
    said = capsys.readouterr().out
    assert "2: it takes the greatest of spikes, which no synapse does; train with AvgPool2d" in said


@pytest.mark.slow
@pytest.mark.lava
def test_the_tutorial_runs_with_lava(tmp_path, monkeypatch):
    assert play(tmp_path, monkeypatch, lava=True)["verdict"]["passed"]


def test_the_example_is_short():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.slow
def test_the_example_trains_exports_verifies_and_plots(tmp_path):
    hasty = ['model.layers=[8, "A", 16, "A"]', "loss.objective=natural", "attack.steps=1", "attack.validation=16"]
    epochs = [f"{stage}.epochs=2" for stage in ("train", "prune", "sparse", "finetune")]
    command = [sys.executable, str(EXAMPLE), str(tmp_path), *hasty, *epochs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(("identical to Lava in 20 samples", "not proven: "))
    assert "</svg>" in (tmp_path / "robustness.svg").read_text(encoding="utf-8")
    assert (tmp_path / "deployed" / "report.html").exists()
