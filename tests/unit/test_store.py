import dataclasses
import errno
import io
import os
import pickle
import tarfile
import zipfile

import pytest
import torch
from toy import N_CLASSES, SHAPE, net, toy

from toolchain import nets, prune, store
from toolchain.errors import FormatError


def model(**changes):
    made = net()
    mask = prune.magnitude(made, 0.75)
    nets.apply_mask(made, mask)
    with torch.no_grad():
        kept = mask["conv1.weight"].nonzero()[0]
        made.body.conv1.weight[tuple(kept)] = 0.0
    facts = {
        "recipe": toy(),
        "stage": "finetune",
        "state": made.body.state_dict(),
        "mask": mask,
        "timesteps": 4,
        "input_shape": SHAPE,
        "mean": (0.4,),
        "std": (0.3,),
        "n_classes": N_CLASSES,
        "data_source": "digits",
        "data_sha256": "0" * 64,
        "metrics": {"train": {"clean": 0.5}},
    }
    return store.Model(**{**facts, **changes})


def sentence(path, verb=store.load):
    with pytest.raises(FormatError) as caught:
        verb(path)
    return str(caught.value).removeprefix(f"{path}: ")


def altered(tmp_path, change):
    """A model file whose table `change` has had its way with."""
    table = torch.load(io.BytesIO(store.to_bytes(model())), weights_only=True)
    change(table)
    path = tmp_path / "model.pt"
    path.write_bytes(store.dump(table))
    return path


def test_a_model_survives_its_file(tmp_path):
    path = tmp_path / "model.pt"
    one = model()
    store.save(one, path)
    other = store.load(path)
    for field in dataclasses.fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if field.name in {"state", "mask"}:
            assert left.keys() == right.keys()
            assert all(torch.equal(left[name], right[name]) for name in left)
        elif field.name != "path":
            assert left == right


def test_a_kept_weight_that_is_zero_stays_kept(tmp_path):
    path = tmp_path / "model.pt"
    store.save(model(), path)
    loaded = store.load(path)
    kept, weight = loaded.mask["conv1.weight"], loaded.state["conv1.weight"]
    assert int(kept.sum()) == 9
    assert int((weight != 0).sum()) == 8
    assert loaded.n_weights == 4 * 9 + 6 * 4 * 9 + 3 * 24
    assert loaded.n_nonzero_weights == 9 + 54 + 18
    assert loaded.sparsity == 0.75


def test_equal_models_make_equal_bytes(tmp_path):
    path = tmp_path / "model.pt"
    store.save(model(), path)
    assert store.to_bytes(model()) == path.read_bytes() == store.to_bytes(store.load(path))


def test_pruned_weights_take_a_bit_each(tmp_path):
    table = torch.load(io.BytesIO(store.to_bytes(model())), weights_only=True)
    packed = table["weights"]["conv2.weight"]
    assert (packed["mask"].numel(), packed["values"].numel(), packed["shape"]) == (27, 54, [6, 4, 3, 3])


def test_the_fields_of_the_file_are_those_of_the_format():
    table = torch.load(io.BytesIO(store.to_bytes(model())), weights_only=True)
    assert list(table) == [
        *["schema", "recipe", "stage", "timesteps", "input", "n_classes", "data", "weights", "thresholds"],
        *["batch_norm", "metrics"],
    ]
    assert set(table["thresholds"]) == {"act1", "act2"}
    assert set(table["batch_norm"]["bn1"]) == {"mean", "var", "count"}


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("executed",))


def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    torch.save({"schema": store.SCHEMA, "weights": Payload()}, path)
    expected = "it holds Python objects other than tensors and plain types, which could execute code; nothing was run"
    assert sentence(path) == expected
    path.write_bytes(pickle.dumps(Payload()))
    assert sentence(path) == "not a model: expected a zip file as torch.save writes it"
    assert not (tmp_path / "executed").exists()


def test_torchs_older_formats_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    assert sentence(path) == "not a model: expected a zip file as torch.save writes it"
    with tarfile.open(path, "w"):
        pass
    assert sentence(path) == "not a model: expected a zip file as torch.save writes it"


def test_an_older_format_with_a_zip_behind_it_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Payload()) + store.to_bytes(model()))
    assert zipfile.is_zipfile(path)
    assert sentence(path) == "not a model: expected a zip file as torch.save writes it"


def test_a_torchscript_program_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/constants.pkl", b"")
    assert sentence(path) == "a TorchScript program, not a model"


@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_a_truncated_file_is_one_sentence(tmp_path, share):
    path = tmp_path / "model.pt"
    whole = store.to_bytes(model())
    path.write_bytes(whole[: int(len(whole) * share)])
    assert sentence(path) == "truncated or not a model (BadZipFile)"


def test_a_damaged_file_is_one_sentence(tmp_path):
    path = tmp_path / "model.pt"
    whole = bytearray(store.to_bytes(model()))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
    lengths = whole[entry.header_offset + 26 : entry.header_offset + 30]
    start = entry.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    whole[start] ^= 255
    path.write_bytes(whole)
    assert sentence(path) == f"damaged at {entry.filename}"


def test_files_that_are_no_models_are_one_sentence(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"")
    assert sentence(path) == "not a model: expected a zip file as torch.save writes it"
    assert sentence(tmp_path / "none.pt") == "cannot be read: No such file or directory"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    assert sentence(path) == "truncated or not a model (RuntimeError)"
    torch.save([1], path)
    assert sentence(path) == "not a model of this version: expected schema 'rsnn-deploy/model/1', got no schema"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.update(schema="rsnn-deploy/model/9"),
         "not a model of this version: expected schema 'rsnn-deploy/model/1', got schema 'rsnn-deploy/model/9'"),
        (lambda t: t.pop("thresholds"), "not a whole model: thresholds is missing"),
        (lambda t: t.update(stage="fly"), "not a whole model: stage 'fly'"),
        (lambda t: t.update(timesteps=0), "not a whole model: timesteps 0"),
        (lambda t: t["input"].update(std=[0.0]),
         "not a whole model: input mean (0.4,) outside [0, 1], or std (0.0,) not positive"),
        (lambda t: t["input"].update(mean=[]), "not a whole model: input mean () and std (0.3,) for 1 channels"),
        (lambda t: t["thresholds"].update(act1=torch.tensor(float("nan"))),
         "not a whole model: act1.v_th holds a number that is not finite"),
        (lambda t: t["batch_norm"]["bn1"].update(var=-torch.ones(4)),
         "not a whole model: bn1.running_var holds a negative variance"),
        (lambda t: t["weights"]["conv1.weight"].update(values=torch.zeros(3)),
         "not a whole model: 3 values for a mask of 9"),
        (lambda t: t["weights"]["conv1.weight"].update(shape=[10**9, 10**9]),
         "not a whole model: a mask of 5 bytes for 1000000000000000000 weights"),
        (lambda t: t["weights"]["conv1.weight"].update(shape=[-4, 1, 3, 3]),
         "not a whole model: a weight of shape [-4, 1, 3, 3]"),
        (lambda t: t["recipe"].update(seed="x"), "its recipe cannot be read, seed: expected int, got 'x'"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_one_sentence(tmp_path, change, expected):
    assert sentence(altered(tmp_path, change)) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t["weights"].update({"bn1.weight": torch.ones(9)}),
         "bn1.weight: its recipe asks for (4,), it holds (9,)"),
        (lambda t: t["weights"].pop("conv2.weight"),
         "conv2.weight: its recipe asks for (6, 4, 3, 3), it holds nothing"),
        (lambda t: t["weights"].update(extra=torch.ones(1)), "extra: its recipe asks for nothing, it holds (1,)"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_its_recipes_is_one_sentence(tmp_path, change, expected):
    path = altered(tmp_path, change)
    assert sentence(path, lambda path: nets.restore(store.load(path))) == expected


def test_a_restored_network_computes_as_the_one_saved(tmp_path):
    path = tmp_path / "model.pt"
    saved = model()
    store.save(saved, path)
    images = torch.rand(4, *SHAPE)
    restored = nets.restore(store.load(path))
    assert (restored.mode, restored.timesteps, restored.training) == ("snn", 4, False)
    assert torch.equal(restored(images), nets.restore(saved)(images))


@pytest.mark.parametrize("function", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, function):
    path = tmp_path / "model.pt"
    path.write_bytes(b"old")

    def full(_self, _target=None):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(function, full)
    expected = "cannot be written: No space left on device; what was there is unchanged"
    assert sentence(path, lambda path: store.write_bytes(path, b"new")) == expected
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("model.pt", b"old")]


def test_when_one_file_of_several_cannot_be_written_none_is(tmp_path):
    store.write_files(tmp_path, {"a": b"1", "b": b"2"})
    with pytest.raises(FormatError, match=r"cannot be written: .*; what was there is unchanged$"):
        store.write_files(tmp_path, {"a": b"3", "no/such/folder": b"4"})
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"a": b"1", "b": b"2"}


def test_an_interrupt_while_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a"
    store.write_text(path, "old")

    def interrupted(_handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.write_text(path, "new")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a", "old")]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "model.pt"
    expected = "cannot be written: File exists; what was there is unchanged"
    assert sentence(path, lambda path: store.write_bytes(path, b"")) == expected
