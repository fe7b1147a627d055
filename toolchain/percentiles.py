"""Percentiles of more numbers than can be sorted, or held: exact, by counting.

The bits of a float, read as an integer, are in the order of the floats once those of negative ones are reversed. So the
upper half of the bits tells the bucket of a rank, and a second look at the numbers in that bucket tells the rest.
`torch.quantile` sorts, and refuses more than 16 million numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

_HALF = 16
_BUCKETS = 1 << _HALF
CHUNK = 1 << 22
"""Numbers looked at together; what is held beside the numbers is a small multiple of it."""


def percentile(parts: Iterable[Tensor], percent: float) -> float:
    """The percentile of all numbers of float32 tensors, interpolated between the two ranks beside it.

    Equation: with x sorted and p = percent / 100 * (n - 1): x[floor(p)] + (p - floor(p)) * (x[floor(p) + 1] - x[floor(p)]).
    parts are gone through three times at the most, so a generator will not do.
    """
    upper = _count(parts, None)
    place = percent / 100 * (int(upper.sum()) - 1)
    rank = math.floor(place)
    low = _at(parts, upper, rank)
    if place == rank:
        return low
    high = _at(parts, upper, rank + 1)
    return low + (place - rank) * (high - low)


def _at(parts: Iterable[Tensor], upper: Tensor, rank: int) -> float:
    """The number of a rank, counted from 0."""
    bucket, within = _find(upper, rank)
    lower = _count(parts, bucket)
    bits, _ = _find(lower, within)
    key = (bucket << _HALF) + bits - (1 << 31)
    raw = key if key >= 0 else key ^ 0x7FFFFFFF
    return torch.tensor(raw, dtype=torch.int32).view(torch.float32).item()


def _find(counts: Tensor, rank: int) -> tuple[int, int]:
    """The bucket of a rank, and the rank within it."""
    ends = counts.cumsum(dim=0)
    bucket = int(torch.searchsorted(ends, torch.tensor(rank), right=True))
    return bucket, rank - (int(ends[bucket - 1]) if bucket else 0)


def _count(parts: Iterable[Tensor], bucket: int | None) -> Tensor:
    """How many numbers fall into each bucket of the upper half of their bits; or, of those in one, of the lower half."""
    counts = torch.zeros(_BUCKETS, dtype=torch.int64)
    for part in parts:
        for chunk in torch.split(part.detach().reshape(-1), CHUNK):
            raw = chunk.contiguous().view(torch.int32)
            key = torch.where(raw >= 0, raw, raw ^ 0x7FFFFFFF)  # the integers' order is now the floats'
            upper = (key >> _HALF) + _BUCKETS // 2
            found = upper if bucket is None else key[upper == bucket] & (_BUCKETS - 1)
            counts += torch.bincount(found, minlength=_BUCKETS).cpu()
    return counts
