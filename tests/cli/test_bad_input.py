"""Bad input gets one clear sentence and exit code 2, runs no code and loses nothing."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from cli_process import contents

from toolchain import recipe, store


class Payload:
    """What, unpickled, creates a file."""

    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(self.mark),)


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "executed"


def test_the_payload_of_these_tests_works(mark):
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


def truncated(model, _mark):
    data = model.read_bytes()
    return data[: len(data) // 2]


def text(_model, _mark):
    return b"weights = 1\n"


def empty(_model, _mark):
    return b""


def bare_pickle(_model, mark):
    return pickle.dumps(Payload(mark))


def zipped_pickle(_model, mark):
    buffer = io.BytesIO()
    torch.save({"schema": store.SCHEMA, "weights": Payload(mark)}, buffer)
    return buffer.getvalue()


def legacy_pickle(_model, mark):
    buffer = io.BytesIO()
    torch.save({"weights": Payload(mark)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def legacy_tar(_model, mark):
    """The format of torch before 0.1.10, whose reader unpickles without a guard."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(pickle.dumps(Payload(mark)))
            archive.addfile(member, io.BytesIO(pickle.dumps(Payload(mark))))
    return buffer.getvalue()


def torchscript(_model, _mark):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def damaged(model, _mark):
    data = bytearray(model.read_bytes())
    with zipfile.ZipFile(model) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    data[largest.header_offset + 200] ^= 0xFF
    return bytes(data)


def other_table(_model, _mark):
    return store.dump({"state_dict": {"weight": torch.zeros(2)}})


def newer(_model, _mark):
    return store.dump({"schema": "rsnn-deploy/model/2"})


NOT_ZIP = "not a model: expected a zip file as torch.save writes it"
CODE = "it holds Python objects other than tensors and plain types, which could execute code; nothing was run"
EXPECTED = "not a model of this version: expected schema 'rsnn-deploy/model/1'"
MODELS = {
    truncated: "truncated or not a model (BadZipFile)",
    text: NOT_ZIP,
    empty: NOT_ZIP,
    bare_pickle: NOT_ZIP,
    legacy_pickle: NOT_ZIP,
    legacy_tar: NOT_ZIP,
    zipped_pickle: CODE,
    torchscript: "a TorchScript program, not a model",
    damaged: "damaged at archive/data.pkl",
    other_table: f"{EXPECTED}, got no schema",
    newer: f"{EXPECTED}, got schema 'rsnn-deploy/model/2'",
}


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("command", ["export", "check", "evaluate"])
def test_a_file_that_is_no_model_is_refused_and_runs_no_code(run, model, folder, mark, tmp_path, kind, command):
    path = tmp_path / "hostile.pt"
    path.write_bytes(kind(model, mark))
    before = contents(folder)
    options = {"export": ["--profile", "loihi2", "--out", folder], "check": ["--profile", "loihi2"], "evaluate": []}
    answer = run(command, path, *options[command], "--json")
    assert answer.code == 2
    assert answer.err == f"rsnn-deploy: {path}: {MODELS[kind]}\n"
    assert answer.json == {"error": {"kind": "FormatError", "message": f"{path}: {MODELS[kind]}"}, "exit_code": 2}
    assert not mark.exists()
    assert contents(folder) == before


def test_a_model_without_spikes_is_not_exported(run, images, tmp_path):
    overrides = [*tiny.OVERRIDES, f"data.source={images}", "train.epochs=0"]
    path = tiny.save(tmp_path / "dense.pt", recipe.load("digits-cnn", overrides=overrides), "train")
    answer = run("export", path, "--profile", "loihi2", "--out", tmp_path / "out")
    assert answer.code == 2
    assert answer.said == f"{path}: stage train has no spikes yet. Run the recipe until convert"
    assert not (tmp_path / "out").exists()


def test_a_layer_that_cannot_be_deployed_is_named(run, model, tmp_path):
    weight = store.load(model).state["readout.weight"]
    path = tiny.altered(tmp_path / "negative.pt", model, readout__weight=torch.full_like(weight, -1.0))
    options = ["--profile", "loihi2", "--samples", "5", "--weight-bits", "2"]
    answer = run("export", path, *options, "--out", tmp_path / "out")
    assert answer.code == 2
    assert answer.said == (
        "readout: netx computes a dense matrix without positive entries wrongly when its least entry is -1. "
        "Use other weight bits, or train the layer so that it keeps a positive weight"
    )
    assert not (tmp_path / "out").exists()


def test_every_fault_of_a_profile_is_listed_at_once(run, profile):
    path = profile(
        {
            "neurons = { value = 4095,": "neuorns = { value = 4095,",
            'synapse_words = { value = 16000, unit = "words",': "synapse_words = { value = 16000,",
            "groups = { value = 8,": "groups = { value = -8,",
        }
    )
    expected = [
        f"rsnn-deploy: {path}: 3 faults",
        "  core.neuorns: unknown key; did you mean core.neurons?",
        '  core.synapse_words: missing unit (expected "words")',
        "  core.groups: expected at least 1, got -8",
    ]
    for args in (
        ["profiles", "check", path],
        ["profiles", "show", path],
        ["export", "digits-cnn", "--profile", path],
        ["check", "digits-cnn", "--profile", path],
    ):
        answer = run(*args)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.splitlines() == expected


def test_a_profile_that_is_no_toml_is_refused(run, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe not text")
    answer = run("profiles", "check", path)
    assert answer.code == 2
    assert answer.said.startswith(f"{path}: not TOML: ")
    assert len(answer.err.splitlines()) == 1


def arrays(images):
    with np.load(images) as file:
        return dict(file)


OBJECTS = "it holds arrays of Python objects, which could execute code; save plain uint8"
DATA = {
    "objects": (lambda raw: {"x_train": raw["x_train"].astype(object)}, OBJECTS),
    "missing": (
        lambda _raw: {"y_test": None},
        "expected the arrays x_train, y_train, x_test, y_test; y_test is missing, found x_train, x_test, y_train",
    ),
    "floats": (
        lambda raw: {"x_train": raw["x_train"] / 255},
        "x_train: expected uint8 pixels from 0 to 255, got float64",
    ),
    "flat": (
        lambda raw: {"x_test": raw["x_test"].reshape(30, 64)},
        "x_test: expected images (N,H,W), (N,H,W,C) or (N,C,H,W), got shape (30, 64)",
    ),
    "words": (
        lambda raw: {"y_train": raw["y_train"].astype(str)},
        "y_train: expected integers of shape (N,), got <U21 of shape (100,)",
    ),
    "too few labels": (
        lambda raw: {"y_test": raw["y_test"][:7]},
        "y_test: expected a label for each of 30 images, got 7",
    ),
    "an unknown label": (
        lambda raw: {"y_test": raw["y_test"] + 1},
        "y_test: expected labels from 0 to 9, the greatest of y_train, got 1 to 10",
    ),
}


UNSEEN = ("run", "an unknown label")
"""Only labels of test images are wrong, and training does not read them."""


@pytest.mark.parametrize(
    ("command", "case"), [pair for pair in itertools.product(["run", "evaluate"], DATA) if pair != UNSEEN]
)
def test_a_data_set_that_is_none_is_refused(run, model, images, tmp_path, command, case):
    change, reason = DATA[case]
    raw = arrays(images)
    changed = raw | change(raw)
    path = tmp_path / "hostile.npz"
    np.savez(path, **{name: array for name, array in changed.items() if array is not None})
    options = {
        "run": ["digits-cnn", "--set", f"data.source={path}", "--out", tmp_path / "out"],
        "evaluate": [model, "--data", path],
    }
    answer = run(command, *options[command])
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"rsnn-deploy: {path}: {reason}\n"


def test_a_data_set_that_would_execute_code_is_refused(run, images, mark, tmp_path):
    path = tmp_path / "hostile.npz"
    np.savez(path, **arrays(images) | {"x_test": np.array([Payload(mark)], dtype=object)})
    answer = run("run", "digits-cnn", "--set", f"data.source={path}", "--out", tmp_path / "out")
    assert answer.code == 2
    assert answer.said == f"{path}: {OBJECTS}"
    assert not mark.exists()


def test_a_data_set_of_another_size_does_not_suit_a_model(run, model, tmp_path):
    answer = run("evaluate", "digits-cnn", "--data", tmp_path / "missing.npz")
    assert (answer.code, answer.said) == (2, f"{tmp_path / 'missing.npz'}: cannot be read: No such file or directory")
    path = tmp_path / "wide.npz"
    pixels, labels = np.arange(640, dtype=np.uint8).reshape(10, 8, 8), np.arange(10)
    np.savez(path, x_train=pixels, y_train=labels, x_test=np.zeros((2, 9, 9), np.uint8), y_test=labels[:2])
    answer = run("evaluate", model, "--data", path)
    assert answer.code == 2
    assert answer.said == f"{path}: x_test: expected images of shape (8, 8) as in x_train, got (9, 9)"


READERS = {
    "simulate": ["--backend", "emulator"],
    "simulate on Lava": [],
    "verify": [],
    "report": [],
    "check": ["--profile", "loihi2"],
}


@pytest.fixture(params=READERS)
def read(run, request, monkeypatch):
    """Read a folder with each command that does; none of them gets as far as Lava."""
    monkeypatch.setattr("toolchain.simulate.Session.start", lambda _session: pytest.fail("Lava was started"))
    return lambda folder: run(request.param.split()[0], folder, *READERS[request.param])


def test_a_folder_that_was_not_exported_is_refused(read, tmp_path):
    (tmp_path / "empty").mkdir()
    answer = read(tmp_path / "empty")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        f"rsnn-deploy: {tmp_path / 'empty'}: not an exported folder: manifest.json is missing or unreadable\n"
    )


@pytest.mark.parametrize(
    "name", ["network.net", "samples.npz", "run_lava.py", "mapping.json", "report.json", "report.html"]
)
def test_a_folder_with_a_changed_file_is_refused(read, folder, name):
    with (folder / name).open("ab") as file:
        file.write(b" ")
    answer = read(folder)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"rsnn-deploy: {folder / name}: not the file that was exported; export again\n"


def test_a_folder_with_a_missing_file_is_refused(read, folder):
    (folder / "mapping.json").unlink()
    answer = read(folder)
    assert answer.code == 2
    assert answer.err == f"rsnn-deploy: {folder}: not an exported folder: mapping.json is missing or unreadable\n"


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"schema": 1, "files": []}', "\udcff"])
def test_a_manifest_that_is_none_is_refused(read, folder, content):
    (folder / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
    answer = read(folder)
    assert answer.code == 2
    assert answer.err == f"rsnn-deploy: {folder / 'manifest.json'}: not a manifest; export again\n"


def test_a_folder_of_a_newer_version_is_refused(read, folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema": 2}))
    answer = read(folder)
    assert answer.code == 2
    assert answer.err == f"rsnn-deploy: {folder}: schema 2 is not the 1 this version reads; export again\n"


def replace(folder, name, data):
    """A file is another, and the manifest says that it should be."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


SAMPLES = {
    "images": (lambda array: array.astype(np.float32), "images has type float32 and shape (5, 1, 8, 8)"),
    "labels": (lambda array: array[:3], "labels has type int64 and shape (3,)"),
    "logits": (lambda array: array[:, :9], "logits has type int64 and shape (5, 9)"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_of_another_network_are_refused(run, folder, name):
    change, facts = SAMPLES[name]
    with np.load(folder / "samples.npz") as file:
        held = dict(file)
    buffer = io.BytesIO()
    np.savez(buffer, **held | {name: change(held[name])})
    replace(folder, "samples.npz", buffer.getvalue())
    answer = run("simulate", folder, "--backend", "emulator")
    assert answer.code == 2
    assert answer.said == f"{folder / 'samples.npz'}: not the samples of this network: {facts}"


def test_samples_that_would_execute_code_are_refused(run, folder, mark):
    buffer = io.BytesIO()
    np.savez(buffer, images=np.array([Payload(mark)], dtype=object))
    replace(folder, "samples.npz", buffer.getvalue())
    answer = run("simulate", folder, "--backend", "emulator")
    assert answer.code == 2
    assert answer.said.startswith(f"{folder / 'samples.npz'}: not the samples of an export (ValueError: Object arrays")
    assert not mark.exists()


def test_a_network_of_an_honest_manifest_is_read_with_distrust(run, folder):
    replace(folder, "network.net", b"not HDF5")
    answer = run("simulate", folder, "--backend", "emulator")
    assert answer.code == 2
    assert answer.said.startswith(f"{folder / 'network.net'}: not a netx file written by rsnn-deploy export (OSError")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema": 2}'])
def test_a_report_of_an_honest_manifest_is_read_with_distrust(run, folder, content):
    replace(folder, "report.json", content)
    answer = run("report", folder)
    assert answer.code == 2
    assert answer.said == f"{folder / 'report.json'}: not a report; export again"


@pytest.mark.parametrize("command", [["simulate", "--backend", "emulator"], ["simulate"], ["verify"]], ids=" ".join)
def test_more_samples_than_a_folder_holds_are_not_made_up(run, exported, command, monkeypatch):
    monkeypatch.setattr("toolchain.simulate.Session.start", lambda _session: pytest.fail("Lava was started"))
    answer = run(*command, exported, "--samples", "6")
    assert answer.code == 2
    assert answer.said == f"{exported}: it holds 5 samples, not 6; export again with --samples 6"


def test_more_samples_than_the_test_set_has_are_not_made_up(run, model, tmp_path):
    answer = run("export", model, "--profile", "loihi2", "--out", tmp_path / "out", "--samples", "31")
    assert answer.code == 2
    assert answer.said == "test set: 31 samples asked for, the test set gives 30; use --samples 30 or fewer"
    assert not (tmp_path / "out").exists()
