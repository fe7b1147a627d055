"""Shares of images with their intervals, and the difference of two shares of the same images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt

RESAMPLES = 10_000

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


def bootstrap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], *, seed: int = 0) -> tuple[float, float]:
    """The paired bootstrap's 95 % interval of what `compare` gives: percentiles over images drawn again, 10,000 times.

    How often an image that only `one` gets right is drawn, and one that only `other` does, is all that matters of a draw.
    Source: Efron and Tibshirani 1993.
    """
    found = compare(one, other)
    n, only_one, only_other = found["n"], found["only_one"], found["only_other"]
    shares = [only_one / n, only_other / n, 1 - (only_one + only_other) / n]
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=RESAMPLES)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / n, [2.5, 97.5])
    return float(low), float(high)
