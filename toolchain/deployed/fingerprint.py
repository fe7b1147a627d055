"""What tells one integer network from another."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.ir import Network


def fingerprint(network: Network) -> str:
    """The SHA-256 of all that a network computes with, in hexadecimal: the same for a network that was exported and read back."""
    digest = hashlib.sha256()
    for part in _parts(network):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield field.name.encode()
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, np.ndarray):
        yield repr(value.shape).encode()
        yield np.ascontiguousarray(value, dtype="<i4").tobytes()
    elif isinstance(value, tuple):
        yield b"("
        for item in value:
            yield from _parts(item)
        yield b")"
    else:
        yield repr(int(value) if isinstance(value, int | np.integer) else value).encode()
