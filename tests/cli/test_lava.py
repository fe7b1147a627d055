"""The main job on Lava itself. A start of Lava for the demo, for each folder's own script, and for a verify that is interrupted."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from cli_process import COMMAND, contents

from toolchain import deployment, proof, resources, simulate, store

pytestmark = [
    pytest.mark.lava,
    pytest.mark.skipif(not simulate._is_installed(), reason="Lava is not installed"),
]

SAMPLES = 20
LIMIT_S = 120
"""What the main job may take; it takes a fifth of it on a machine that has nothing else to do."""


def session_of(user):
    """The name of the Lava session that a process has started; its processes and shared memory carry it."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            if parent == user and any(word.endswith("supervisor.py") for word in words):
                return next(Path(word).name for word in words if Path(word).name.startswith("rsnn-"))
    return None


def left(name):
    """What there is of a session: processes, shared memory, files."""
    found = [*Path("/dev/shm").glob(f"*{name}*"), *Path(tempfile.gettempdir()).glob(f"{name}*")]
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if name.encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                found.append(entry)
    return found


def wait_for(condition, process):
    """What a condition gives as soon as it gives something, while a process runs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := condition():
            return found
        time.sleep(0.01)
    return pytest.fail("waited in vain")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of `demo`, what it printed, and how long it took."""
    out = tmp_path_factory.mktemp("demo") / "out"
    began = time.monotonic()
    command = [*COMMAND, "demo", "--out", str(out), "--samples", str(SAMPLES), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return out, json.loads(done.stdout), time.monotonic() - began


def test_the_demo_proves_every_spike_of_20_real_digits_on_stock_lava(demo):
    _, result, seconds = demo
    verdict = result["verify"]
    assert verdict["identical"] is True
    assert verdict["logits_identical"] is True
    assert (verdict["samples"], verdict["kernels"]) == (SAMPLES, "stock")
    assert verdict["backends"] == ["emulator (cpu)", "lava (stock kernels)"]
    assert [layer["mismatches"] for layer in verdict["layers"]] == [0] * len(verdict["layers"])
    assert all(0 < layer["rate"] < 1 for layer in verdict["layers"])
    assert seconds < LIMIT_S


def test_the_demo_is_of_the_shipped_model_and_of_real_test_digits(demo):
    out, result, _ = demo
    shipped = resources.model_path("digits-cnn")
    assert result["report"]["model"]["sha256"] == store.sha256(shipped)
    assert result["report"] == json.loads((out / "report.json").read_text())
    from sklearn.datasets import load_digits

    digits = {image.tobytes() for image in np.floor(load_digits().images * 255 / 16 + 0.5).astype(np.uint8)}
    folder = deployment.open_folder(out)
    assert len(folder.images) == SAMPLES
    assert all(image.tobytes() in digits for image in folder.images)


ALONE = """
import runpy, sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "toolchain":
            raise ImportError("toolchain is forbidden here")

sys.meta_path.insert(0, Forbid())
try:
    import toolchain
except ImportError:
    runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.fixture(scope="module")
def biased(tmp_path_factory, model):
    """A folder exported for a chip that sends no messages."""
    out = tmp_path_factory.mktemp("biased")
    deployment.export(model, deployment.Settings(profile="loihi1", samples=4), out, log=lambda _line: None)
    return out


def run_alone(out, cwd):
    """The folder's own script, run by a Python that cannot import the package, and what it should say of each sample."""
    command = [sys.executable, "-I", "-c", ALONE, str(out / "run_lava.py")]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    with np.load(out / "samples.npz") as samples:
        expected = [
            f"sample {index}: class {logits.argmax()} (label {label}), logits {logits.tolist()} as expected"
            for index, (label, logits) in enumerate(zip(samples["labels"], samples["logits"], strict=True))
        ]
    return done, expected


@pytest.mark.parametrize("folder", ["demo", "biased"])
def test_the_folders_own_script_gives_the_logits_on_stock_lava_without_us(folder, tmp_path, request):
    found = request.getfixturevalue(folder)
    done, expected = run_alone(found[0] if folder == "demo" else found, tmp_path)
    assert [line for line in done.stdout.splitlines() if line.startswith("sample ")] == expected
    assert done.stdout.splitlines()[-1] == f"{len(expected)} of {len(expected)} samples as expected"
    assert done.returncode == 0


def test_a_folder_without_messages_is_proven_sample_by_sample(biased, lava):
    verdict = proof.verify(biased, session=lava, allow_silent=True)
    assert (verdict["identical"], verdict["samples"]) == (True, 4)
    assert all(0 < layer["rate"] < 1 for layer in verdict["layers"])


def test_an_interrupted_verify_leaves_no_process_and_no_shared_memory(demo):
    out, *_ = demo
    files = contents(out)
    process = subprocess.Popen(
        [*COMMAND, "verify", str(out), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    name = wait_for(lambda: session_of(process.pid), process)
    wait_for(lambda: list(Path("/dev/shm").glob(f"{name}-*")), process)  # Lava itself runs
    assert len(left(name)) > 5
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    result = json.loads(stdout)
    if "error" in result:  # no sample was done yet
        assert result == {"error": {"kind": "KeyboardInterrupt", "message": "interrupted"}, "exit_code": 130}
        assert stderr.strip() == "rsnn-deploy: interrupted"
    else:
        assert result["identical"]
        assert stderr.strip() == f"rsnn-deploy: interrupted after {result['samples']} of {SAMPLES} samples"
    assert left(name) == []
    assert contents(out) == files
