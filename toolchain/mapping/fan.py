"""How many axons leave a part of a layer: the cores of the layer behind that listen to each of its neurons, by chip."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from toolchain.mapping import cost
from toolchain.profile import BudgetMemory

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.mapping.job import Job, Strip
    from toolchain.placement import Range

    Counts = npt.NDArray[np.int32]
    Ints = npt.NDArray[np.int64]


class Behind:
    """All that listens to a part of a layer: the parts of the layer behind, each to some of its channels."""

    def __init__(self, listeners: list[tuple[Fan, int]]) -> None:
        """listeners: each with the channel of this part that its source begins at, negative where it begins before."""
        self._listeners = listeners

    @property
    def n_tiles(self) -> int:
        """Tiles that listen."""
        return sum(fan.n_tiles for fan, _ in self._listeners)

    @property
    def last_chip(self) -> int:
        """Where the last of them sits."""
        return self._listeners[0][0].last_chip

    def slots(self, tile: tuple[Range, Range, Range], chip: int) -> int:
        """Output slots, or axon map words, of a tile on `chip`."""
        y, x, c = tile
        heard = [(fan, fan.heard(c, begins)) for fan, begins in self._listeners]
        return sum(fan.slots((y, x, part), chip) for fan, part in heard if part[0] < part[1])

    def sums(self, cuts: tuple[list[Range], list[Range], list[Range]], chip: int | None) -> Ints:
        """The slots of every tile of an equal cut of the part, all on `chip`, or (None) far from all it feeds.

        Shape: (channels, rows, columns).
        """
        y, x, c = cuts
        found = np.zeros((len(c), len(y), len(x)), dtype=np.int64)
        for fan, begins in self._listeners:
            heard = [fan.heard(span, begins) for span in c]
            some = [index for index, (first, last) in enumerate(heard) if first < last]
            if some:
                found[some] += fan.sums((y, x, [heard[index] for index in some]), chip)
        return found


class Fan:
    """The tiles of a placed layer, as its source layer addresses them. It grows with `add` and then only answers.

    Shapes: by chip, how many tiles hear each cell (C, h, w), where each neuron has its own axon; else, for each range of source
    channels that tiles hear, how many hear each map position (h, w).
    """

    def __init__(self, job: Job, form: str) -> None:
        self.job, self.form, self.memory = job, form, job.memory
        self.pool = job.layer.pool
        channels, height, width = job.source
        self.shape = channels, height // self.pool, width // self.pool
        self.discrete = cost.discrete(form, job.memory)
        self.n_tiles = 0
        self.last_chip = 0
        self.cells: dict[int, Counts] = {}
        self.maps: dict[Range, dict[int, Counts]] = {}
        self._total: Counts | None = None

    def add(self, rows: Strip, cols: Strip, c: Range, chip: int) -> None:
        """The tile rows x cols x c sits on a core of `chip`."""
        self.n_tiles, self.last_chip = self.n_tiles + 1, chip
        if self.discrete:
            (low, high), hears = cost.heard(self.job, self.form, rows, cols, c)
            on_chip = self.cells.setdefault(chip, np.zeros(self.job.cells, dtype=np.int32))
            on_chip[np.ix_(range(low, high), rows.heard, cols.heard)] += hears
            return
        on_chip = self.maps.setdefault(self._channels(c), {}).setdefault(chip, np.zeros(self.shape[1:], dtype=np.int32))
        if self.job.cells[1:] == self.shape[1:]:
            on_chip[np.ix_(rows.heard, cols.heard)] += 1
        else:
            on_chip += 1

    def _channels(self, c: Range) -> Range:
        return self.job.hears(c) if self.job.cells[1:] == self.shape[1:] else (0, self.shape[0])

    def heard(self, channels: Range, begins: int) -> Range:
        """Which of its source's channels are these, where its source begins at `begins`; none if the range is empty."""
        return max(channels[0] - begins, 0), min(channels[1] - begins, self.shape[0])

    def slots(self, tile: tuple[Range, Range, Range], chip: int) -> int:
        """Output slots, or axon map words, of a tile of the source layer on `chip`."""
        neurons = math.prod(last - first for first, last in tile)
        if isinstance(self.memory, BudgetMemory):
            return self._axons(tile, None) if self.discrete else self._mapped(neurons)
        each = (self.memory.slots_discrete if self.discrete else self.memory.slots_shared).value
        axons = self._axons(tile, None)
        return each * axons + self.memory.slots_remote.value * (axons - self._axons(tile, chip))

    def _mapped(self, neurons: int) -> int:
        assert isinstance(self.memory, BudgetMemory)
        return math.ceil(neurons * Fraction(str(self.memory.axon_map_per_neuron.value)))

    def _axons(self, tile: tuple[Range, Range, Range], chip: int | None) -> int:
        """Axons that leave a tile, to all chips or to one."""
        y, x, (first, last) = tile
        rows, cols = _weights(y, self.pool), _weights(x, self.pool)
        box = (
            slice(y[0] // self.pool, len(rows) + y[0] // self.pool),
            slice(x[0] // self.pool, len(cols) + x[0] // self.pool),
        )
        if self.discrete:
            cells = self._all_cells() if chip is None else self.cells.get(chip)
            if cells is None:
                return 0
            found = cells.reshape(self.shape)[first:last, box[0], box[1]].sum(axis=0, dtype=np.int64)
            return int(rows @ found @ cols)
        return sum(
            int(rows @ on_chip[box] @ cols)
            for (low, high), chips in self.maps.items()
            if low < last and first < high
            for where, on_chip in chips.items()
            if chip in {None, where}
        )

    def _all_cells(self) -> Counts:
        if self._total is None:
            self._total = np.add.reduce([*self.cells.values(), np.zeros(self.job.cells, dtype=np.int32)])
        return self._total

    def sums(self, cuts: tuple[list[Range], list[Range], list[Range]], chip: int | None) -> Ints:
        """The slots of every tile of an equal cut of the source layer, all on `chip`, or (None) far from all it feeds.

        Shape: (channels, rows, columns).
        """
        y, x, c = cuts
        if isinstance(self.memory, BudgetMemory) and not self.discrete:
            neurons = np.multiply.outer(np.multiply.outer(_lengths(c), _lengths(y)), _lengths(x))
            words = {int(n): self._mapped(int(n)) for n in np.unique(neurons)}
            mapped: Ints = np.vectorize(words.__getitem__, otypes=[np.int64])(neurons)
            return mapped
        axons = self._tile_axons(cuts, None)
        if isinstance(self.memory, BudgetMemory):
            return axons
        each = (self.memory.slots_discrete if self.discrete else self.memory.slots_shared).value
        near = 0 if chip is None else self._tile_axons(cuts, chip)
        return each * axons + self.memory.slots_remote.value * (axons - near)

    def _tile_axons(self, cuts: tuple[list[Range], list[Range], list[Range]], chip: int | None) -> Ints:
        """Axons that leave each tile, to all chips or to one."""
        y, x, c = cuts
        if self.discrete:
            cells = self._all_cells() if chip is None else self.cells.get(chip)
            if cells is None:
                return np.zeros((len(c), len(y), len(x)), dtype=np.int64)
            starts = [first for first, _ in c]
            heard = cells.reshape(self.shape)[: c[-1][1]]  # the source's own channels may end before all that is heard
            return _tiles(np.add.reduceat(heard, starts, axis=0, dtype=np.int64), y, x, self.pool)
        found = np.zeros((len(c), len(y), len(x)), dtype=np.int64)
        for (low, high), chips in self.maps.items():
            on = [on_chip for where, on_chip in chips.items() if chip in {None, where}]
            if on:
                listening = np.array([low < last and first < high for first, last in c])
                found[listening] += _tiles(np.add.reduce(on)[None], y, x, self.pool)
        return found


def _weights(span: Range, pool: int) -> Ints:
    """How many of the neurons of `span` lie in each cell it touches."""
    weights: Ints = np.bincount(np.arange(*span) // pool - span[0] // pool)
    return weights


def _lengths(cuts: list[Range]) -> Ints:
    return np.array([last - first for first, last in cuts], dtype=np.int64)


def _tiles(cells: npt.NDArray[np.int64] | Counts, y: list[Range], x: list[Range], pool: int) -> Ints:
    """Sums over every tile of neurons of what their cells hold. Shapes: (C, h, w) -> (C, rows, columns)."""
    left = np.zeros((len(y), cells.shape[1]), dtype=np.int64)
    right = np.zeros((len(x), cells.shape[2]), dtype=np.int64)
    for member, cuts in ((left, y), (right, x)):
        for index, span in enumerate(cuts):
            weights = _weights(span, pool)
            member[index, span[0] // pool : span[0] // pool + len(weights)] = weights
    # Floats multiply by BLAS, and are exact: no sum reaches 2^53.
    sums: Ints = np.rint(left.astype(float) @ cells.astype(float) @ right.T.astype(float)).astype(np.int64)
    return sums
