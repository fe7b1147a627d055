"""Percentiles of more numbers than are sorted with ease: exact, from those alone that a sample says are near.

`torch.quantile` sorts all of them, and refuses more than 16 million.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLE = 1 << 16
"""About how many numbers are sorted to find where to look."""
CHUNK = 1 << 22
"""Numbers looked at together; what is held beside the numbers is a small multiple of it."""


def percentile(parts: Sequence[Tensor], percent: float) -> float:
    """The percentile of all numbers of some tensors, interpolated between the two ranks beside it.

    Equation: with x sorted and p = percent / 100 * (n - 1): x[floor(p)] + (p - floor(p)) * (x[floor(p) + 1] - x[floor(p)]).
    """
    n = sum(part.numel() for part in parts)
    place = percent / 100 * (n - 1)
    rank = math.floor(place)
    stride = max(1, n // SAMPLE) | 1  # odd, so that it does not always meet the same channel
    sample = torch.cat([part.detach().reshape(-1)[::stride] for part in parts]).sort().values
    margin = 4.0
    while True:
        low, high = _bounds(sample, place / max(1, n - 1), margin)
        n_below, near = _between(parts, low, high)
        if n_below <= rank and min(rank + 1, n - 1) < n_below + len(near):
            break
        margin *= 8  # the sample was not typical; in the end, all numbers are near
    first, second = (near[min(index, n - 1) - n_below].item() for index in (rank, rank + 1))
    return first + (place - rank) * (second - first)


def _bounds(sample: Tensor, share: float, margin: float) -> tuple[float, float]:
    """Numbers around a share of a sorted sample, `margin` standard errors away on either side."""
    n = len(sample)
    reach = margin * (1 + math.sqrt(n * share * (1 - share)))
    low, high = math.floor(share * n - reach), math.ceil(share * n + reach)
    return (sample[low].item() if low > 0 else -math.inf), (sample[high].item() if high < n else math.inf)


def _between(parts: Sequence[Tensor], low: float, high: float) -> tuple[int, Tensor]:
    """How many numbers are below `low`, and those from there to `high`, sorted."""
    n_below, near = 0, []
    for part in parts:
        for chunk in torch.split(part.detach().reshape(-1), CHUNK):
            n_below += int((chunk < low).sum())
            near.append(chunk[(chunk >= low) & (chunk <= high)])
    return n_below, torch.cat(near).sort().values
