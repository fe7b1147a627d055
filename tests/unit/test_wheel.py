"""The built wheel, installed where there is no checkout, finds its profiles, models and recipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = [
    path.relative_to(ROOT)
    for folder, pattern in (("hw_profiles", "*.toml"), ("models", "*.toml"), ("models", "*.pt"))
    for path in sorted((ROOT / folder).glob(pattern))
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The bin folder of an environment with the wheel and, from this environment, all that it needs."""
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True)
    python = home / "bin" / "python"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        wheel,
    ]
    subprocess.run(install, check=True, capture_output=True)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    # Path files in a folder that a path file names are not read, so this environment's editable checkout stays out.
    (Path(site.stdout.strip()) / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def run(installed, tmp_path, *args: str):
    """What a program of the environment prints, far from the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(installed / args[0]), *args[1:]]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_what_ships_with_it_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {f"toolchain/data/{path}" for path in SHIPPED} <= held
    assert "toolchain/run_lava.py" in held
    assert "toolchain/py.typed" in held
    assert {name.partition("/")[0] for name in held} == {"toolchain"}
    assert not [name for name in held if "test" in name or name.endswith(".pyc")]


PROFILES = ["generic45", "loihi1", "loihi2", "speck2f"]


def test_the_wheel_lists_the_profiles_it_holds(installed, tmp_path):
    listed = json.loads(run(installed, tmp_path, "rsnn-deploy", "profiles", "list", "--json"))
    assert [item["name"] for item in listed["profiles"]] == PROFILES
    lines = run(installed, tmp_path, "rsnn-deploy", "profiles", "list").splitlines()
    assert [line.split()[0] for line in lines] == PROFILES


def test_what_ships_is_found_in_the_wheel_and_not_in_the_checkout(installed, tmp_path):
    code = (
        "import json, toolchain; from toolchain import resources as r;"
        "print(json.dumps([toolchain.__file__, *map(str, [r.profile_path('loihi2'), r.model_path('digits-cnn'),"
        " r.recipe_path('digits-cnn')])]))"
    )
    found = [Path(path) for path in json.loads(run(installed, tmp_path, "python", "-c", code))]
    assert all(path.is_relative_to(installed.parent) for path in found)
    package = found[0].parent
    assert found[1:] == [
        package / "data" / "hw_profiles" / "loihi2.toml",
        package / "data" / "models" / "digits-cnn.pt",
        package / "data" / "models" / "digits-cnn.toml",
    ]
    for path in found[1:]:
        assert path.read_bytes() == (ROOT / path.relative_to(package / "data")).read_bytes()
