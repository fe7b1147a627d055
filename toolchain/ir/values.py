"""Checks of what the nouns of the integer network are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int32]


def ints(value: Any, name: str, shapes: tuple[tuple[int, ...], ...], low: int, high: int) -> Ints:
    """Return `value` as a read-only int32 array, or raise naming what is wrong with it."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise ConfigError(where=name, faults=(f"expected integers, got {array.dtype}",))
    if shapes and array.shape not in shapes:
        wanted = " or ".join(str(shape) for shape in shapes)
        raise ConfigError(where=name, faults=(f"expected shape {wanted}, got {array.shape}",))
    if array.size and (array.min() < low or array.max() > high):
        raise ConfigError(where=name, faults=(f"expected {low} to {high}, got {array.min()} to {array.max()}",))
    array = np.array(array, dtype=np.int32)
    array.setflags(write=False)
    return array


def positive(where: str, **values: int) -> None:
    """Raise ConfigError unless every value is a positive integer."""
    faults = tuple(
        f"{name}: expected a positive integer, got {value!r}"
        for name, value in values.items()
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1
    )
    if faults:
        raise ConfigError(where=where, faults=faults)


def pooled(name: str, shape: tuple[int, int, int], pool: int) -> tuple[int, int, int]:
    """Return the shape of a map summed over cells of pool x pool. Raises ConfigError."""
    channels, height, width = shape
    if height % pool or width % pool:
        fault = f"a {pool}x{pool} pool does not divide a {height}x{width} map; crop or resize the image"
        raise ConfigError(where=name, faults=(fault,))
    return channels, height // pool, width // pool
