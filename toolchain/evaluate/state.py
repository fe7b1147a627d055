"""What an evaluation has found so far, so that a killed one goes on: a file for each unit of images it finished.

A folder holds `state.json`, what the results depend on, and `units/ATTACK@EPS-FIRST.json`, each written whole or not at all:
which images were right clean, under all members, and under each, as bits in hexadecimal. Of a deployed network also which
were right before rounding, and beside it `ATTACK@EPS-FIRST.npz`, the adversarial images it got.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from toolchain import store
from toolchain.attacks import Broken
from toolchain.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from toolchain.attacks import Member

SCHEMA = "rsnn-deploy/evaluation-state/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A folder that belongs to one evaluation."""

    folder: Path

    def read(
        self,
        attack: str,
        eps: float,
        first: int,
        n: int,
        members: Sequence[Member],
        *,
        delivered: tuple[int, ...] | None = None,
    ) -> Broken | None:
        """The result of the n images from `first` on, or None where it is not there, or of other images or members.

        delivered: the shape of the adversarial images that a deployed network got, where they are wanted.
        Raises: FormatError for a file that is none.
        """
        path = self._path(attack, eps, first)
        if not path.exists() or (delivered and not path.with_suffix(".npz").exists()):
            return None
        try:
            table = json.loads(store.read_bytes(path))
            if table["n"] != n or list(table["members"]) != [member.name for member in members]:
                return None
            clean, right, *each = (
                _bits(text, table["n"]) for text in (table["clean"], table["right"], *table["members"].values())
            )
            unrounded = _bits(table["unrounded"], table["n"]) if delivered else None
        except (KeyError, TypeError, ValueError, AttributeError):
            raise FormatError(path=str(path), reason="not a unit of an evaluation; delete it to repeat it") from None
        images = _images(path.with_suffix(".npz"), delivered) if delivered else None
        named = dict(zip(table["members"], each, strict=True))
        return Broken(clean=clean, right=right, members=named, delivered=images, unrounded=unrounded)

    def write(self, attack: str, eps: float, first: int, members: Sequence[Member], result: Broken) -> None:
        """The result of a unit is on the disk. Raises FormatError where it cannot be written."""
        table = {
            "n": len(result.right),
            "clean": _hex(result.clean),
            "right": _hex(result.right),
            "members": {member.name: _hex(result.members[member.name]) for member in members},
        }
        path = self._path(attack, eps, first)
        if result.delivered is not None and result.unrounded is not None:
            table["unrounded"] = _hex(result.unrounded)
            buffer = io.BytesIO()
            np.savez_compressed(buffer, images=result.delivered.cpu().numpy())
            store.write_bytes(path.with_suffix(".npz"), buffer.getvalue())
        store.write_text(path, json.dumps(table) + "\n")

    def _path(self, attack: str, eps: float, first: int) -> Path:
        return self.folder / "units" / f"{attack}@{eps!r}-{first:06d}.json"


def claim(folder: Path, depends_on: Mapping[str, Any]) -> State:
    """The state of an evaluation in `folder`, which depends on the given facts and no others.

    Raises: ConfigError where the folder holds an evaluation that differs in one; FormatError.
    """
    same_task(folder / "state.json", {"schema": SCHEMA, **depends_on}, "evaluation")
    return State(folder=folder)


def same_task(path: Path, wanted: Mapping[str, Any], called: str) -> None:
    """`path` holds the facts that what is in its folder depends on, these and no others.

    Raises: ConfigError where it holds other facts; FormatError.
    """
    if path.exists():
        try:
            there = json.loads(store.read_bytes(path))
            changed = sorted(key for key in wanted.keys() | there.keys() if wanted.get(key) != there.get(key))
        except (ValueError, AttributeError):
            raise FormatError(path=str(path), reason=f"not the state of an earlier {called}") from None
        if changed:
            fault = f"holds another {called}, which differs in {', '.join(changed)}; use another --out, or delete it"
            raise ConfigError(where=str(path.parent), faults=(fault,))
    else:
        store.write_text(path, json.dumps(wanted, indent=2) + "\n")


def _images(path: Path, shape: tuple[int, ...]) -> Tensor:
    try:
        with np.load(io.BytesIO(store.read_bytes(path)), allow_pickle=False) as file:
            images = file["images"]
    except (KeyError, ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile):
        images = np.zeros(0)
    if images.dtype != np.uint8 or images.shape != shape:
        raise FormatError(path=str(path), reason="not the images of a unit; delete it to repeat it")
    return torch.from_numpy(images)


def _hex(flags: Tensor) -> str:
    return np.packbits(flags.cpu().numpy()).tobytes().hex()


def _bits(text: str, n: int) -> Tensor:
    packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    if len(packed) != (n + 7) // 8:
        raise ValueError(n)
    return torch.from_numpy(np.unpackbits(packed, count=n).astype(bool))
