"""Tiles onto cores, chip after chip, and layers that share cores where the chip lets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.mapping import cost
from toolchain.mapping.cost import IN, LONGEST, NEURONS, OUT, WORDS
from toolchain.mapping.fan import Fan

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.mapping.fan import Behind
    from toolchain.mapping.job import Job, Strip
    from toolchain.placement import Range

    Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A layer cut into tiles of (height, width, channels), stored in one format."""

    job: Job
    form: str
    tile: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a layer on a core and what it spends there."""

    job: Job
    y: Range
    x: Range
    c: Range
    load: Ints


class Floor:
    """All cores that are being filled; layers come from the last to the first.

    Where cores hold one layer, each tile opens one. Where they are shared, `n_cores` are open from the start, so that what a
    layer leaves of them is there for the next; a tile, or part of it, goes where what it needs is left, and opens another core
    where that is nowhere. A part has at least the `least_part`-th of a tile's channels: each needs axons of its own.
    Shapes: used (cores, RESOURCES).
    """

    def __init__(self, caps: cost.Caps, per_chip: int, *, n_cores: int = 0, least_part: int = 1) -> None:
        self.caps, self.per_chip, self.least_part = caps, per_chip, least_part
        self.used = np.zeros((n_cores, len(caps)), dtype=np.int64)
        self.shares: list[list[Share]] = [[] for _ in range(n_cores)]

    @property
    def n_cores(self) -> int:
        """Cores that hold something."""
        return sum(bool(shares) for shares in self.shares)

    @property
    def chip(self) -> int:
        """The chip that the next new core lies on."""
        return self.chip_of(len(self.shares))

    def chip_of(self, core: int) -> int:
        """The chip of a core."""
        return core // self.per_chip

    def lay(self, plan: Plan, behind: Behind | None) -> Fan | None:
        """Place every tile of a layer. Returns how its source layer addresses it; None, and nothing is placed, where one fits no core."""
        before = self.used.copy(), [len(shares) for shares in self.shares]
        own = Fan(plan.job, plan.form)
        areas = [(y, x) for y in plan.job.strips(0, plan.tile[0]) for x in plan.job.strips(1, plan.tile[1])]
        while areas:
            rows, cols = areas.pop(0)
            first = 0
            while first < plan.job.shape[0]:
                tile = _Tile(self, plan, rows, cols, first, behind)
                core, channels, load = self._core(tile)
                if not channels:
                    break
                span = first, first + channels
                self._take(core, Share(plan.job, rows.span, cols.span, span, load))
                own.add(rows, cols, span, self.chip_of(core))
                first += channels
            if first < plan.job.shape[0]:
                halves = _halves(plan.job, rows, cols) if not first else []
                if not halves:
                    self.used, lengths = before
                    self.shares = [shares[:n] for shares, n in zip(self.shares, lengths, strict=False)]
                    return None
                areas = halves + areas
        return own

    def _take(self, core: int, share: Share) -> None:
        if core == len(self.shares):
            self.used = np.vstack([self.used, np.zeros((1, len(self.caps)), dtype=np.int64)])
            self.shares.append([])
        self.used[core] = self._with(core, share.load)
        self.shares[core].append(share)

    def _with(self, core: int, load: Ints) -> Ints:
        """What a core would have spent. A list's length is no sum."""
        used = self.used[core] if core < len(self.used) else np.zeros_like(load)
        total = used + load
        total[LONGEST] = max(used[LONGEST], load[LONGEST])
        return total

    def _core(self, tile: _Tile) -> tuple[int, int, Ints]:
        """A core, how many channels of the tile fit there, and what they spend; 0 where none fits."""
        if self.caps[cost.LAYERS] > 1:
            channels = tile.want
            least = -(-tile.want // self.least_part)
            while channels >= least:
                core = self._roomiest(tile, channels)
                if core is not None:
                    most = min(2 * channels - 1, tile.want)
                    return core, *self._largest(tile, core, channels, most)
                channels = -(-channels // 2) if channels > 1 else 0
        return len(self.shares), *self._largest(tile, len(self.shares), 0, tile.want)

    def _roomiest(self, tile: _Tile, channels: int) -> int | None:
        """The core with room for so many channels that has most left of what they need; few slots to other chips are better."""
        if not len(self.used):
            return None
        synapses = tile.synapses(channels)
        at = np.arange(len(self.used)) // self.per_chip
        loads = np.stack([tile.load(channels, chip, synapses) for chip in range(int(at[-1]) + 1)])[at]
        left = self.caps - self.used
        fits = ((loads <= left) | (np.arange(len(self.caps)) == LONGEST)).all(axis=1) & (
            loads[:, LONGEST] <= self.caps[LONGEST]
        )
        if not fits.any():
            return None
        need, rest = (part[:, _WEIGHED] / np.maximum(1, self.caps[_WEIGHED]) for part in (loads, left))
        worth = (need * rest).sum(axis=1) - need[:, -1]
        return int(np.where(fits, worth, -np.inf).argmax())

    def _largest(self, tile: _Tile, core: int, low: int, high: int) -> tuple[int, Ints]:
        """The most channels, of `low` that fit to `high`, that a core has room for, by bisection, and what they spend."""
        load = tile.load(low, self.chip_of(core), tile.synapses(low)) if low else np.zeros_like(self.caps)
        tried = high
        while low < high:
            found = tile.load(tried, self.chip_of(core), tile.synapses(tried))
            if (self._with(core, found) <= self.caps).all():
                low, load = tried, found
            else:
                high = tried - 1
            tried = (low + high + 1) // 2
        return low, load


_WEIGHED = [NEURONS, WORDS, IN, OUT]


@dataclass(slots=True)
class _Tile:
    """The channels from `first` on of a tile, for which a core is sought."""

    floor: Floor
    plan: Plan
    rows: Strip
    cols: Strip
    first: int
    behind: Behind | None

    @property
    def want(self) -> int:
        """Channels to place: no more than the plan's tile has, nor than a core has neurons."""
        return min(self.plan.tile[2], self.plan.job.shape[0] - self.first)

    def synapses(self, channels: int) -> cost.Synapses:
        """What the synapses of the first `channels` of them take."""
        c = [(self.first, self.first + channels)]
        return cost.synapses(self.plan.job, self.plan.form, self.rows, self.cols, c)

    def load(self, channels: int, chip: int, found: cost.Synapses) -> Ints:
        """What the first `channels` of them spend on a core of `chip`."""
        tile = self.rows.span, self.cols.span, (self.first, self.first + channels)
        slots = self.behind.slots(tile, chip) if self.behind else 0
        each = int(found.words[0]), int(found.longest[0]), int(found.axons[0])
        return cost.load(self.plan.job, each, tile, slots)


def _halves(job: Job, rows: Strip, cols: Strip) -> list[tuple[Strip, Strip]]:
    """A tile's area cut in two, along its longer side; nothing where it is one neuron."""
    height, width = (strip.span[1] - strip.span[0] for strip in (rows, cols))
    if max(height, width) == 1:
        return []
    if height >= width:
        return [(half, cols) for half in job.cut(0, rows)]
    return [(rows, half) for half in job.cut(1, cols)]
