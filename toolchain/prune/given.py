"""A mask that the user brings: a file of boolean arrays, a pruned model of ours, or any pruned checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from toolchain import nets, store
from toolchain.data import npz
from toolchain.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.nets import Net
    from toolchain.prune.choose import Mask


def given(net: Net, path: str) -> Mask:
    """The mask a file holds for `net`; every layer it does not name keeps all its weights.

    The file is an .npz of boolean arrays by weight (`conv1.weight`), a `model.pt` with its mask, or a torch file of a
    state dict, of which weights that are exactly zero count as pruned.
    Raises: FormatError where it is none of these, or does not fit the network.
    """
    found = _masks(path)
    weights = nets.prunable(net)
    known = {name: mask for name, mask in found.items() if name in weights}
    if not known:
        names = ", ".join(sorted(found)[:3]) or "nothing"
        raise FormatError(path=path, reason=f"expected masks of {', '.join(weights)}; found {names}")
    for name, mask in known.items():
        if mask.shape != weights[name].shape:
            sizes = f"expected {tuple(weights[name].shape)}, got {tuple(mask.shape)}"
            raise FormatError(path=path, reason=f"{name}: {sizes}")
        if not mask.any():
            raise FormatError(path=path, reason=f"{name}: nothing is kept; a network needs every layer")
    every = {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()}
    return {name: mask.to(weights[name].device) for name, mask in (every | known).items()}


def _masks(path: str) -> Mapping[str, Tensor]:
    if path.endswith(".npz"):
        return _arrays(Path(path))
    table = store.read(path)
    if isinstance(table, dict) and "schema" in table:
        model = store.load(path)
        if not model.mask:
            raise FormatError(path=path, reason=f"it has no mask: it is the model after `{model.stage}`")
        return model.mask
    for key in ("state_dict", "model"):
        if isinstance(table, dict) and isinstance(table.get(key), dict):
            table = table[key]
    if not isinstance(table, dict):
        raise FormatError(path=path, reason="not a checkpoint: expected tensors by name")
    return {_bare(name): tensor != 0 for name, tensor in table.items() if isinstance(tensor, Tensor)}


def _bare(name: str) -> str:
    """A weight's name without what wrappers put before it."""
    for prefix in ("module.", "body."):
        name = name.removeprefix(prefix)
    return name


def _arrays(path: Path) -> dict[str, Tensor]:
    with npz.opened(path, plain="bool") as archive:
        arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    for name, array in arrays.items():
        if array.dtype != np.bool_:
            raise FormatError(path=str(path), reason=f"{name}: expected a boolean array, got {array.dtype}")
    return {_bare(name): torch.from_numpy(array) for name, array in arrays.items()}
