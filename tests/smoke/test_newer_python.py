"""On a newer Python, without Lava: the package installs, imports and emulates, and says what Lava needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny

from toolchain import deployment, proof
from toolchain.deployment import Settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.13", "3.12", "3.11")


def newer_pythons():
    """Pythons on the PATH or of pyenv. A pyenv shim may exist and still fail."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        for python in [f"python{version}", *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]:
            path = shutil.which(python)
            if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
                yield path


def uv():
    for candidate in ("uv", str(ROOT / ".uv" / "bin" / "uv")):
        path = shutil.which(candidate)
        if path and subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return pytest.skip("no uv; `make` installs one")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The bin folder of a newer Python with the pinned versions and this package."""
    python = next(newer_pythons(), None)
    if python is None:
        pytest.skip(f"no Python {', '.join(VERSIONS)} on the PATH or in pyenv")
    home = tmp_path_factory.mktemp("newer") / "venv"
    tool = uv()
    subprocess.run([tool, "venv", "--quiet", "--python", python, str(home)], check=True, capture_output=True)
    install = [tool, "pip", "install", "--quiet", "--python", str(home / "bin" / "python")]
    if backend := os.environ.get("TORCH_BACKEND"):
        install.append(f"--torch-backend={backend}")
    done = subprocess.run(
        [*install, "--constraint", str(ROOT / "constraints.txt"), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and ("Failed to fetch" in done.stderr or "error sending request" in done.stderr):
        pytest.skip(f"the packages cannot be fetched here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    yield home / "bin"
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder exported by this Python."""
    home = tmp_path_factory.mktemp("exported")
    deployment.export(tiny.model(home), Settings(profile="loihi2", samples=5), home / "out", log=lambda _line: None)
    return home / "out"


def run(environment, *args: object):
    command = [str(environment / "rsnn-deploy"), *map(str, args)]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)


def test_it_is_newer_and_has_no_lava(environment):
    code = "import sys, toolchain, importlib.util as u; print(sys.version_info[:2] > (3, 10), u.find_spec('lava'))"
    done = subprocess.run([environment / "python", "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == "True None\n"


def test_the_emulator_there_gives_the_logits_from_here(environment, exported):
    done = run(environment, "simulate", exported, "--backend", "emulator", "--json")
    assert done.returncode == 0, done.stderr
    with np.load(exported / "samples.npz") as samples:
        assert json.loads(done.stdout)["logits"] == samples["logits"].tolist()


def test_a_shipped_model_is_exported_there(environment, tmp_path):
    done = run(environment, "export", "digits-cnn", "--profile", "loihi2", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mapping"]["n_chips"] == 1
    folder = deployment.open_folder(tmp_path / "out")
    result = proof.simulate_folder(tmp_path / "out", backend="emulator", samples=None, kernels="stock")
    assert result["logits"] == folder.logits.tolist()


@pytest.mark.parametrize("command", [["simulate", "--backend", "lava"], ["verify"], ["demo"]], ids=" ".join)
def test_lava_is_asked_for_in_one_sentence(environment, exported, command, tmp_path):
    target = ["--out", tmp_path / "out"] if command == ["demo"] else [exported]
    done = run(environment, *command, *target)
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("rsnn-deploy: lava: Lava is not installed in this Python 3.1")
    assert sentence.endswith(
        "Install under Python 3.10, or on 3.11 or 3.12 run `make install-lava`, or use --backend emulator"
    )
