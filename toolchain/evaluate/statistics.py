"""Shares of images with their intervals, and the difference of two shares of the same images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from toolchain.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Z95 = 1.959963984540054


def accuracy(right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Share of right images with its 95 % Wilson interval."""
    n, k = len(right), int(right.sum())
    return {"accuracy": k / n, "n": n, "n_right": k, "interval95": list(wilson(k, n))}


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share k / n. Source: Wilson 1927."""
    centre = (k + Z95**2 / 2) / (n + Z95**2)
    half = Z95 / (n + Z95**2) * math.sqrt(k * (n - k) / n + Z95**2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def compare(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Accuracy of `one` less that of `other` on the same images, with its paired 95 % interval.

    Equation: with b images only `one` gets right and c only `other`, each cell of the 2x2 table raised by 0.5,
    (b - c) / n +- z * sqrt(b + c - (b - c)^2 / n) / n. Source: Agresti and Min 2005, doi 10.1002/sim.1781.
    """
    if one.shape != other.shape:
        raise ConfigError(where="compare", faults=(f"expected the same images, got {len(one)} and {len(other)}",))
    n, b, c = len(one), int((one & ~other).sum()), int((other & ~one).sum())
    m, d, s = n + 2, b - c, b + c + 1
    half = Z95 * math.sqrt(s - d * d / m) / m
    interval = [max(-1.0, d / m - half), min(1.0, d / m + half)]
    return {"difference": d / n, "n": n, "only_one": b, "only_other": c, "interval95": interval}
