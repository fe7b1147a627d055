"""The command line in this process, and the folders it works on."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import tiny

from toolchain import cli, resources

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = 5


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that stdout is."""
        found = json.loads(self.out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
        assert isinstance(found, dict)
        return found

    @property
    def said(self) -> str:
        """The last line of stderr, as one sentence without the command's name."""
        return self.err.splitlines()[-1].removeprefix("rsnn-deploy: ")


@pytest.fixture
def run(capsys):
    """Run a command in this process; whatever it does, it ends with an exit code and without a traceback."""

    def run(*args: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as raised:
            cli.main([str(arg) for arg in args])
        answer = Answer(raised.value.code, *capsys.readouterr())
        assert "Traceback" not in answer.err
        assert "internal error" not in answer.err
        return answer

    return run


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def images(home):
    return tiny.images(home)


@pytest.fixture(scope="session")
def model(home):
    """A spiking model on which an export takes a fraction of a second."""
    return tiny.model(home)


@pytest.fixture(scope="session")
def other_model(home):
    """Another one, of the same shape."""
    return tiny.model(home, "seed=1")


@pytest.fixture(scope="session")
def exported(model, home):
    """A folder that nobody may change."""
    out = home / "exported"
    with pytest.raises(SystemExit) as raised:
        cli.main(["export", str(model), "--profile", "loihi2", "--out", str(out), "--samples", str(SAMPLES)])
    assert raised.value.code == 0
    return out


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(exported, tmp_path / "copy")


@pytest.fixture
def profile(tmp_path):
    """A profile of one's own: the text of loihi2 with lines replaced."""

    def write(changes: dict[str, str], name: str = "mine.toml") -> Path:
        text = resources.profile_path("loihi2").read_text(encoding="utf-8")
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def run_once():
    """Run a command in this process for a fixture that outlives a test."""

    def run(*args: str) -> None:
        with pytest.raises(SystemExit) as raised:
            cli.main(args)
        assert raised.value.code == 0

    return run
