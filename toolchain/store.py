"""Checkpoints: read, written, hashed; and the atomic writing everything else uses.

A `model.pt` is a torch zip file of plain types and tensors, schema `rsnn-deploy/model/1`:

- `recipe`, `stage`, `timesteps`, `n_classes`, `metrics`, `weight_bits` and `scales` (if any): as in `Model`;
- `input`: `shape` (C, H, W), `mean` and `std` of each channel in pixels of [0, 1];
- `data`: `source` and `sha256` of the data set;
- `weights`: parameters by name, a tensor each, or for a pruned one `shape`, `mask` (bits, as `numpy.packbits` packs them)
  and `values` (the kept weights in order; one that is zero by chance is kept);
- `thresholds`: v_th of each IF layer; `batch_norm`: `mean`, `var` and `count` of each batch normalisation.

Equal models make equal bytes. Files are read with `weights_only=True`, and only torch's zip format: the older ones bypass
that guard in torch before 2.6 (CVE-2025-32434).
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolchain import recipe as recipes
from toolchain.errors import ConfigError, FormatError

if TYPE_CHECKING:
    import torch

    from toolchain.recipe import Recipe

SCHEMA = "rsnn-deploy/model/1"

_ZIP = b"PK\x03\x04"
_STATISTICS = {"mean": "running_mean", "var": "running_var", "count": "num_batches_tracked"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network after a stage, with all it takes to use it.

    state holds every parameter and statistic by its name in the network's body, pruned weights as zeros; mask is true where
    a weight is kept, by the name of the pruned weight, and empty before pruning; mean and std are in pixels of [0, 1].
    weight_bits are of the layers whose weights are to be deployed in other than 8 bits; scales, what one unit of a layer's
    weights stands for where the model was trained as integers, one number or one a channel.
    """

    recipe: Recipe
    stage: str
    state: Mapping[str, torch.Tensor]
    mask: Mapping[str, torch.Tensor]
    timesteps: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    n_classes: int
    data_source: str
    data_sha256: str
    metrics: Mapping[str, Any]
    weight_bits: Mapping[str, int] = field(default_factory=dict)
    scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    path: str = "model"

    @property
    def mode(self) -> Literal["ann", "snn"]:
        """Whether the network spikes at this stage."""
        return "snn" if self.stage in {"convert", "finetune", recipes.HEAL} else "ann"

    @property
    def n_weights(self) -> int:
        """Weights that pruning counts: those of convolutions and linear layers, or of the mask where there is one."""
        return sum(tensor.numel() for tensor in self._weights().values())

    @property
    def n_nonzero_weights(self) -> int:
        """Weights that are kept: where there is a mask, its count, whatever the values are."""
        weights = self._weights()
        return sum(int(self.mask.get(name, tensor != 0).sum()) for name, tensor in weights.items())

    @property
    def sparsity(self) -> float:
        """Share of the weights that is pruned."""
        return 1 - self.n_nonzero_weights / self.n_weights

    @property
    def layer_sparsity(self) -> dict[str, float]:
        """Share of each layer's weights that is pruned, by the layer's name."""
        return {
            name.removesuffix(".weight"): 1 - int(self.mask.get(name, tensor != 0).sum()) / tensor.numel()
            for name, tensor in self._weights().items()
        }

    def _weights(self) -> dict[str, torch.Tensor]:
        return {
            name: tensor for name, tensor in self.state.items() if name.endswith(".weight") and tensor.ndim in {2, 4}
        }


def save(model: Model, path: Path) -> None:
    """`path` holds the model, whole or not at all. Raises FormatError where it cannot be written."""
    write_bytes(path, to_bytes(model))


def to_bytes(model: Model) -> bytes:
    """The bytes of a model's file, the same for equal models."""
    weights: dict[str, Any] = {}
    thresholds: dict[str, Any] = {}
    batch_norm: dict[str, dict[str, Any]] = {}
    short = {long: name for name, long in _STATISTICS.items()}
    for name, tensor in model.state.items():
        layer, _, kind = name.rpartition(".")
        if kind == "v_th":
            thresholds[layer] = _own(tensor)
        elif kind in short:
            batch_norm.setdefault(layer, {})[short[kind]] = _own(tensor)
        elif name in model.mask:
            weights[name] = _pack(tensor, model.mask[name])
        else:
            weights[name] = _own(tensor)
    return dump(
        {
            "schema": SCHEMA,
            "recipe": model.recipe.to_dict(),
            "stage": model.stage,
            "timesteps": model.timesteps,
            "input": {"shape": list(model.input_shape), "mean": list(model.mean), "std": list(model.std)},
            "n_classes": model.n_classes,
            "data": {"source": model.data_source, "sha256": model.data_sha256},
            "weights": weights,
            "thresholds": thresholds,
            "batch_norm": batch_norm,
            "metrics": dict(model.metrics),
            **({"weight_bits": dict(model.weight_bits)} if model.weight_bits else {}),
            **({"scales": {name: list(each) for name, each in model.scales.items()}} if model.scales else {}),
        }
    )


def load(path: Path | str) -> Model:
    """The model of a file, every field checked. Raises FormatError for anything else, and runs no code the file holds."""
    table = read(path)
    if not isinstance(table, dict) or table.get("schema") != SCHEMA:
        schema = table.get("schema") if isinstance(table, dict) else None
        found = f"schema {schema!r}" if isinstance(schema, str) else "no schema"
        raise FormatError(
            path=str(path), reason=f"not a model of this version: expected schema {SCHEMA!r}, got {found}"
        )
    try:
        return _model(table, str(path))
    except FormatError:
        raise
    except ConfigError as error:
        raise FormatError(path=str(path), reason=f"its recipe cannot be read, {'; '.join(error.faults)}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise FormatError(path=str(path), reason=f"not a whole model: {what}") from None


def dump(table: Mapping[str, Any]) -> bytes:
    """The bytes of a torch zip file of plain types and tensors."""
    import torch

    buffer = io.BytesIO()
    torch.save(_canonical(table), buffer)
    return buffer.getvalue()


def read(path: Path | str) -> Any:
    """What a torch zip file holds, if that is plain types and tensors. Raises FormatError."""
    import pickle

    import torch

    data = read_bytes(path)
    if not data.startswith(_ZIP):
        raise FormatError(path=str(path), reason="not a model: expected a zip file as torch.save writes it")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names, damaged = archive.namelist(), archive.testzip()
        if damaged is None and not any(name.endswith("constants.pkl") for name in names):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        reason = f"damaged at {damaged}" if damaged else "a TorchScript program, not a model"
    except pickle.UnpicklingError:
        reason = "it holds Python objects other than tensors and plain types, which could execute code; nothing was run"
    except Exception as error:  # noqa: BLE001 - what a hostile file makes zipfile and torch raise has no bounds
        reason = f"truncated or not a model ({type(error).__name__})"
    raise FormatError(path=str(path), reason=reason) from None


def read_bytes(path: Path | str) -> bytes:
    """The bytes of a file. Raises FormatError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FormatError(path=str(path), reason=f"cannot be read: {error.strerror or error}") from None


def write_bytes(path: Path, data: bytes) -> None:
    """`path` holds `data` on the disk; if that fails, it holds what it held before, and no other file is left.

    Raises: FormatError where the disk is full or the folder cannot be written.
    """
    write_files(path.parent, {path.name: data})


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """`folder` holds these files, by name; each takes its place, in the order given, only when all are on the disk.

    If writing fails, the folder holds what it held before, and no other file is left. What a killed writer left of these
    files is removed.
    Raises: FormatError where the disk is full or the folder cannot be written.
    """
    temporaries = {name: folder / f".{name}.{os.getpid()}.tmp" for name in contents}
    kept = "what was there is unchanged"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in contents:
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
            for leftover in folder.glob(f".{name}.*.tmp"):
                leftover.unlink(missing_ok=True)
        try:
            for name, data in contents.items():
                _write_through(temporaries[name], data)
            for name, temporary in temporaries.items():
                temporary.replace(folder / name)
                kept = "some of it may be new; write it again"
            _sync_folder(folder)
        finally:
            for temporary in temporaries.values():
                temporary.unlink(missing_ok=True)
    except OSError as error:
        path = folder / next(iter(contents)) if len(contents) == 1 else folder
        reason = f"cannot be written: {error.strerror or error}; {kept}"
        raise FormatError(path=str(path), reason=reason) from None


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """The folder's names are on the disk, where the system can say so of a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_space(folder: Path, n_bytes: int) -> None:
    """`folder`, made where there is none, can take n_bytes more. Raises FormatError where it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise FormatError(path=str(folder), reason=f"cannot be written: {error.strerror or error}") from None
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        reason = f"{free / 1e6:,.0f} MB are free, and about {n_bytes / 1e6:,.0f} MB will be written; make room, or use another --out"
        raise FormatError(path=str(folder), reason=reason)


def write_text(path: Path, text: str) -> None:
    """`path` holds `text` in UTF-8; otherwise as `write_bytes`."""
    write_bytes(path, text.encode())


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises FormatError."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def _canonical(value: Any) -> Any:
    """Equal values in equal objects: pickle writes a string it has met before, by identity, as a reference."""
    match value:
        case Mapping():
            return {_canonical(key): _canonical(item) for key, item in value.items()}
        case list() | tuple():
            return [_canonical(item) for item in value]
        case str():
            return sys.intern(str(value))
        case _:
            return value


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in its own storage: a view would save all of what it views."""
    return tensor.detach().cpu().contiguous().clone()


def _pack(tensor: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
    import numpy as np
    import torch

    bits = np.packbits(mask.cpu().numpy().reshape(-1))
    return {"shape": list(tensor.shape), "mask": torch.from_numpy(bits), "values": _own(tensor)[mask.cpu()]}


def _unpack(entry: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    import numpy as np
    import torch

    shape, packed, values = entry["shape"], entry["mask"], entry["values"]
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"a weight of shape {shape}")
    n = int(np.prod([int(size) for size in shape], dtype=object))
    if packed.dtype != torch.uint8 or packed.shape != ((n + 7) // 8,):
        raise ValueError(f"a mask of {packed.numel()} bytes for {n} weights")
    bits = np.unpackbits(packed.numpy(), count=n).astype(bool)
    if not values.is_floating_point() or values.shape != (int(bits.sum()),):
        raise ValueError(f"{values.numel()} values for a mask of {int(bits.sum())}")
    mask = torch.from_numpy(bits).reshape(shape)
    weight = torch.zeros(shape, dtype=values.dtype)
    weight[mask] = values
    return weight, mask


def _model(table: Mapping[str, Any], path: str) -> Model:
    state: dict[str, torch.Tensor] = {}
    mask: dict[str, torch.Tensor] = {}
    for name, entry in table["weights"].items():
        if isinstance(entry, dict):
            state[name], mask[name] = _unpack(entry)
        else:
            state[name] = entry
    for layer, tensor in table["thresholds"].items():
        state[f"{layer}.v_th"] = tensor
    for layer, statistics in table["batch_norm"].items():
        for short, long in _STATISTICS.items():
            state[f"{layer}.{long}"] = statistics[short]
    _check_state(state)
    if table["stage"] not in {*recipes.STAGES, recipes.HEAL}:
        raise ValueError(f"stage {table['stage']!r}")
    shape, mean, std = _input(table["input"])
    return Model(
        recipe=recipes.from_dict(table["recipe"], where=path),
        stage=table["stage"],
        state=state,
        mask=mask,
        timesteps=_positive(table["timesteps"], "timesteps"),
        input_shape=shape,
        mean=mean,
        std=std,
        n_classes=_positive(table["n_classes"], "n_classes"),
        data_source=str(table["data"]["source"]),
        data_sha256=str(table["data"]["sha256"]),
        metrics=dict(table["metrics"]),
        weight_bits=_bits(table.get("weight_bits", {})),
        scales=_scales(table.get("scales", {})),
        path=path,
    )


def _check_state(state: Mapping[str, torch.Tensor]) -> None:
    """Every number is one a network can compute with."""
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds a number that is not finite")
        if name.endswith(".running_var") and bool((tensor < 0).any()):
            raise ValueError(f"{name} holds a negative variance")


def _input(table: Mapping[str, Any]) -> tuple[tuple[int, int, int], tuple[float, ...], tuple[float, ...]]:
    """Shape, mean and std of the input coding."""
    channels, height, width = (_positive(size, "input.shape") for size in table["shape"])
    mean, std = (tuple(float(number) for number in table[key]) for key in ("mean", "std"))
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"input mean {mean} and std {std} for {channels} channels")
    if not all(0 <= number <= 1 for number in mean) or not all(0 < number < float("inf") for number in std):
        raise ValueError(f"input mean {mean} outside [0, 1], or std {std} not positive")
    return (channels, height, width), mean, std


def _bits(table: Any) -> dict[str, int]:
    if not isinstance(table, dict) or any(
        not isinstance(name, str) or type(bits) is not int or not 1 <= bits <= 8 for name, bits in table.items()
    ):
        raise ValueError(f"weight_bits {table!r}")
    return table


def _scales(table: Any) -> dict[str, tuple[float, ...]]:
    found = {name: tuple(float(number) for number in each) for name, each in dict(table).items()}
    if any(not each or not all(0 < number < float("inf") for number in each) for each in found.values()):
        raise ValueError("scales that are not positive")
    return found


def _positive(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} {value!r}")
    return value
