"""An export that fails leaves what was there; one that is killed leaves the old result, the new one, or a refusal."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from cli_process import COMMAND, contents

from toolchain import deployment, store
from toolchain.errors import FormatError

N_FILES = 7
NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def export(run, other_model, folder):
    """Export another model into the folder."""
    return lambda out=folder: run("export", other_model, "--profile", "loihi2", "--out", out, "--samples", "5")


def failing(monkeypatch, owner, function, at):
    """The `at`-th call of a function fails, from 1; returns the list of the calls."""
    real, calls = getattr(owner, function), []

    def call(*args: object):
        calls.append(args)
        if len(calls) == at:
            raise NO_SPACE
        return real(*args)

    monkeypatch.setattr(owner, function, call)
    return calls


def test_an_export_replaces_every_file(export, folder):
    before = contents(folder)
    assert export().code == 0
    after = contents(folder)
    assert len(before) == N_FILES
    assert before.keys() == after.keys()
    for name in ("network.net", "samples.npz", "report.json", "manifest.json"):
        assert before[name] != after[name], f"{name} proves nothing"
    assert deployment.open_folder(folder).logits.shape == (5, 10)


@pytest.mark.parametrize("at", range(1, N_FILES + 1))
def test_a_disk_that_is_full_at_any_file_changes_nothing(export, folder, monkeypatch, at):
    before = contents(folder)
    calls = failing(monkeypatch, os, "fsync", at)
    answer = export()
    assert len(calls) == at
    assert (answer.code, answer.out) == (2, "")
    assert answer.said == f"{folder}: cannot be written: No space left on device; what was there is unchanged"
    assert contents(folder) == before


@pytest.mark.parametrize("at", range(1, N_FILES + 1))
def test_a_rename_that_fails_at_any_file_leaves_no_mixture(export, folder, monkeypatch, at):
    before = contents(folder)
    failing(monkeypatch, Path, "replace", at)
    answer = export()
    assert answer.code == 2
    assert set(contents(folder)) == set(before)
    if at == 1:
        assert answer.said == f"{folder}: cannot be written: No space left on device; what was there is unchanged"
        assert contents(folder) == before
        return
    assert answer.said == f"{folder}: cannot be written: No space left on device; some of it may be new; write it again"
    with pytest.raises(FormatError) as raised:
        deployment.open_folder(folder)
    assert str(raised.value) == f"{folder / 'network.net'}: not the file that was exported; export again"
    monkeypatch.undo()
    assert export().code == 0
    deployment.open_folder(folder)


def test_a_full_disk_is_survived_by_a_process_of_its_own(exported, folder, other_model):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    before = contents(folder)
    command = [*COMMAND, "export", str(other_model), "--profile", "loihi2", "--out", str(folder), "--samples", "5"]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        f"rsnn-deploy: {folder}: cannot be written: File too large; what was there is unchanged"
    )
    assert contents(folder) == before


def test_a_folder_that_may_not_be_written_stays_as_it_is(export, exported, monkeypatch):
    """As another user where this one may write everywhere."""
    base = Path(tempfile.mkdtemp(prefix="rsnn-test-"))
    try:
        folder = shutil.copytree(exported, base / "out")
        before = contents(folder)
        base.chmod(0o755)
        folder.chmod(0o555)
        write = store.write_files

        def as_nobody(path, files):
            os.seteuid(65534)
            try:
                write(path, files)
            finally:
                os.seteuid(0)

        if os.geteuid() == 0:
            monkeypatch.setattr(store, "write_files", as_nobody)
        answer = export(folder)
        assert answer.code == 2
        assert answer.said == f"{folder}: cannot be written: Permission denied; what was there is unchanged"
        assert contents(folder) == before
    finally:
        (base / "out").chmod(0o755)
        shutil.rmtree(base)


def test_a_file_where_the_folder_should_be_stays(export, tmp_path):
    (tmp_path / "file").write_text("mine")
    answer = export(tmp_path / "file")
    assert answer.code == 2
    assert answer.said == f"{tmp_path / 'file'}: cannot be written: File exists; what was there is unchanged"
    answer = export(tmp_path / "file" / "deeper")
    assert answer.code == 2
    assert answer.said == (
        f"{tmp_path / 'file' / 'deeper'}: cannot be written: Not a directory; what was there is unchanged"
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_where_a_file_should_be_stays_and_so_do_the_files_before_it(export, folder):
    (folder / "mapping.json").unlink()
    (folder / "mapping.json").mkdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    answer = export()
    assert answer.code == 2
    assert answer.said == f"{folder}: cannot be written: mapping.json is a folder; what was there is unchanged"
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


KILLED = """
import os, signal, sys
from pathlib import Path
from toolchain import store

source, out, at, calls = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), 0

def deadly(real):
    def call(*args):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    return call

os.fsync, Path.replace = deadly(os.fsync), deadly(Path.replace)
names = ["network.net", "samples.npz", "run_lava.py", "mapping.json", "report.json", "report.html", "manifest.json"]
store.write_files(out, {name: (source / name).read_bytes() for name in names})
print(calls)
"""


def refusal(folder):
    try:
        deployment.open_folder(folder)
    except FormatError as error:
        return str(error)
    return None


def state(folder, old, new):
    """What a folder is: `old`, `new` or `refused`; never a mixture."""
    reason = refusal(folder)
    if reason:
        assert reason.endswith("not the file that was exported; export again")
        return "refused"
    held = {name: data for name, data in contents(folder).items() if not name.endswith(".tmp")}
    assert held in (old, new)
    return "old" if held == old else "new"


@pytest.fixture(scope="session")
def others(run_once, other_model, home):
    out = home / "others"
    run_once("export", str(other_model), "--profile", "loihi2", "--out", str(out), "--samples", "5")
    return out


def test_a_writer_killed_at_any_step_leaves_old_new_or_a_refusal(exported, others, tmp_path):
    old, new, seen = contents(exported), contents(others), []

    def write(at):
        folder = shutil.copytree(exported, tmp_path / str(at))
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(others), str(folder), str(at)],
            capture_output=True,
            text=True,
            check=False,
        )
        return folder, done

    _, done = write(0)
    n_steps = int(done.stdout)
    assert n_steps == 2 * N_FILES + 1  # each file to the disk, each to its place, the folder to the disk
    for at in range(1, n_steps + 1):
        folder, done = write(at)
        assert done.returncode == -signal.SIGKILL
        seen.append(state(folder, old, new))
        store.write_files(
            folder, {name: new[name] for name in [*sorted(new.keys() - {"manifest.json"}), "manifest.json"]}
        )
        assert contents(folder) == new, "what the killed writer left is still there"
    # The manifest is the last to take its place.
    assert seen == ["old"] * (N_FILES + 1) + ["refused"] * (N_FILES - 1) + ["new"]


EXPORTS = """
import os, sys
from toolchain import deployment, emulate
from toolchain.cli import main

models, out = sys.argv[1:3], sys.argv[3]
print("ready", flush=True)
for _ in sys.stdin:
    child = os.fork()
    if not child:
        while True:
            for model in models:
                try:
                    main(["export", model, "--profile", "loihi2", "--out", out, "--samples", "5"])
                except SystemExit as end:
                    if end.code:
                        os._exit(end.code)
                print("exported", flush=True)
    print(child, flush=True)
    print("killed", os.waitpid(child, 0)[1], flush=True)
"""


def test_an_export_killed_at_random_moments_leaves_old_new_or_a_refusal(exported, others, model, other_model, tmp_path):
    old, new, chance = contents(exported), contents(others), random.Random(0)
    out = shutil.copytree(exported, tmp_path / "out")
    command = [sys.executable, "-c", EXPORTS, str(other_model), str(model), str(out)]
    single = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=single
    ) as process:
        lines = iter(process.stdout.readline, "")
        assert next(lines) == "ready\n"
        for _ in range(10):
            process.stdin.write("go\n")
            process.stdin.flush()
            child = int(next(line for line in lines if line.strip().isdigit()))
            time.sleep(chance.uniform(0.0, 0.8))
            os.kill(child, signal.SIGKILL)
            assert next(line for line in lines if line.startswith("killed")) == f"killed {int(signal.SIGKILL)}\n"
            state(out, old, new)
        process.stdin.close()
        assert process.wait(10) == 0
