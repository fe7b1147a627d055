"""The fewest equal tiles of one layer: every height and width, the most channels that fit, in every format."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from toolchain.mapping import cost
from toolchain.mapping.cost import GROUPS, IN, LAYERS, LONGEST, MAP, NEURONS, OUT, TOTAL, WORDS
from toolchain.mapping.fill import Plan
from toolchain.mapping.job import spans
from toolchain.profile import BudgetMemory

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.mapping.fan import Behind
    from toolchain.mapping.job import Job, Strip

    Ints = npt.NDArray[np.int64]

Reach = tuple["Behind", int | None]
"""How the layer behind is addressed, and from which chip: None where from far"""
_Ranked = tuple[tuple[int, int, int, int], Plan]
"""Tiles, spatial ones, rows of them, and words of a plan: less is better"""


def sizes(n: int) -> list[int]:
    """Tile sizes worth trying: the least for each number of tiles, falling."""
    return sorted({-(-n // tiles) for tiles in range(1, n + 1)}, reverse=True)


def best(job: Job, forms: tuple[str, ...], caps: cost.Caps, fan: Reach | None) -> Plan | None:
    """The fewest tiles of a layer, or None where no core can hold one neuron of it."""
    found: _Ranked | None = None
    for form in forms:
        if found is None or _least(job, form, caps) <= found[0][0]:
            other = _search(job, form, caps, fan, found[0][0] if found else None)
            if other and (found is None or (other[0][0], other[0][-1]) < (found[0][0], found[0][-1])):
                found = other
    return found[1] if found else None


def _least(job: Job, form: str, caps: cost.Caps) -> int:
    """No plan of this format has fewer tiles: the neurons, and the bits of unrolled synapses, fill so many cores."""
    bits = 0
    if form not in {"shared", "bias"}:
        extra = job.memory.synapse_bits.value if isinstance(job.memory, BudgetMemory) else 0
        bits = job.n_synapses * (job.bits + extra)
    words = -(-bits // job.memory.word_bits.value)
    return max(-(-math.prod(job.shape) // max(1, int(caps[NEURONS]))), -(-words // max(1, int(caps[WORDS]))))


def _search(job: Job, form: str, caps: cost.Caps, fan: Reach | None, most_tiles: int | None) -> _Ranked | None:
    """The fewest tiles in a format, no more than most_tiles; of as many, those that cut the map least."""
    channels, height, width = job.shape
    options = sizes(channels)
    shapes = []
    for th in sizes(height):
        for tw in sizes(width):
            most = min(channels, int(caps[NEURONS]) // (th * tw))
            if most:
                ny, nx = -(-height // th), -(-width // tw)
                shapes.append((ny * nx * -(-channels // most), ny * nx, ny, th, tw, most))
    found: _Ranked | None = None
    for count, spatial, ny, th, tw, most in sorted(shapes):

        def rank(size: int, spatial: int = spatial, ny: int = ny) -> tuple[int, int, int]:
            return spatial * -(-channels // size), spatial, ny

        if (found and (count, spatial, ny) >= found[0][:3]) or (most_tiles is not None and count > most_tiles):
            continue
        fitting = [size for size in options if size <= most]
        if most_tiles is not None:
            fitting = [size for size in fitting if rank(size)[0] <= most_tiles]
        if found:
            fitting = [size for size in fitting if rank(size) < found[0][:3]]
        size, loads = _largest(job, form, caps, fan, [(th, tw, size) for size in fitting])
        if loads is not None:
            ranked = (*rank(size), int(loads[WORDS].sum()))
            found = ranked, Plan(job=job, form=form, tile=(th, tw, size))
    return found


def _largest(
    job: Job, form: str, caps: cost.Caps, fan: Reach | None, tiles: list[tuple[int, int, int]]
) -> tuple[int, Ints | None]:
    """The channels of the first of ever smaller tiles that all fit, by bisection, and what they spend."""
    low, high = 0, len(tiles)
    size, loads = 0, None
    while low < high:
        # Most layers are bound by neurons: the largest size first, then the smallest, then halves.
        middle = low if (low, high) == (0, len(tiles)) else high - 1 if high == len(tiles) else (low + high) // 2
        tried = _loads(job, form, caps, fan, tiles[middle])
        if tried is None:
            if middle == len(tiles) - 1:
                break
            low = middle + 1
        else:
            high, size, loads = middle, tiles[middle][2], tried
    return size, loads


def _loads(job: Job, form: str, caps: cost.Caps, fan: Reach | None, tile: tuple[int, int, int]) -> Ints | None:
    """What every tile spends, or None where one exceeds a limit. Shape: (resources, channel tiles, rows, columns)."""
    rows, cols, cuts = job.strips(0, tile[0]), job.strips(1, tile[1]), spans(job.shape[0], tile[2])
    groups = np.array([job.thresholds(c) for c in cuts])
    if groups.max() > caps[GROUPS]:
        return None
    row_kinds, col_kinds = _kinds(rows), _kinds(cols)
    shape = len(cuts), len(rows), len(cols)
    loads = np.zeros((len(cost.RESOURCES), *shape), dtype=np.int64)
    pairs = [(r, c) for r in row_kinds.values() for c in col_kinds.values()]
    pairs.sort(key=lambda pair: -_taps(rows[pair[0][0]]) * _taps(cols[pair[1][0]]))
    for r, c in pairs:
        found = cost.synapses(job, form, rows[r[0]], cols[c[0]], cuts)
        for resource, values in ((WORDS, found.words), (IN, found.axons), (LONGEST, found.longest)):
            if values.max() > caps[resource]:
                return None
            loads[resource][:, np.array(r)[:, None], np.array(c)] = values[:, None, None]
    lengths = [np.array([last - first for first, last in spans_]) for spans_ in (cuts, _spans(rows), _spans(cols))]
    loads[NEURONS] = lengths[0][:, None, None] * lengths[1][:, None] * lengths[2]
    loads[GROUPS], loads[LAYERS] = groups[:, None, None], 1
    slots = np.zeros(shape, dtype=np.int64) if fan is None else fan[0].sums((_spans(rows), _spans(cols), cuts), fan[1])
    loads[MAP if isinstance(job.memory, BudgetMemory) else OUT] = slots
    loads[TOTAL] = loads[WORDS]
    if isinstance(job.memory, BudgetMemory):
        loads[TOTAL] += loads[IN] + loads[GROUPS] + loads[NEURONS] + slots
    return None if (loads > caps[:, None, None, None]).any() else loads


def _spans(strips: list[Strip]) -> list[tuple[int, int]]:
    return [strip.span for strip in strips]


def _taps(strip: Strip) -> int:
    return sum(len(taps) * times for taps, times in zip(strip.sets, strip.times, strict=True))


def _kinds(strips: list[Strip]) -> dict[object, list[int]]:
    """The strips that cost the same, together."""
    kinds: dict[object, list[int]] = {}
    for index, strip in enumerate(strips):
        kinds.setdefault(strip.kind, []).append(index)
    return kinds
