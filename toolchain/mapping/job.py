"""A layer as placement sees it: which synapses it has, which rows and columns a tile hears, never unrolled.

A tile's rows hear a source row through a set of kernel rows. Source rows with equal sets behave alike, so everything a tile
costs is a sum over its few distinct sets, each times the rows that have it; columns likewise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from toolchain.ir import Conv, Readout

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.ir import AnyLayer, Shape
    from toolchain.ir.parts import Part
    from toolchain.placement import Range
    from toolchain.profile import BudgetMemory, ListMemory

    Ints = npt.NDArray[np.int64]
    Memory: TypeAlias = ListMemory | BudgetMemory


@dataclass(frozen=True, slots=True)
class Strip:
    """A range of output rows (or columns) and how it hears the pooled source.

    sets: the distinct sets of taps by which source rows are heard; times: source rows of each set; heard: those rows;
    which: the set of each.
    """

    span: Range
    sets: tuple[tuple[int, ...], ...]
    times: tuple[int, ...]
    heard: tuple[int, ...]
    which: tuple[int, ...]

    @property
    def kind(self) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...], int]:
        """What its cost depends on."""
        return self.sets, self.times, self.span[1] - self.span[0]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A part of a layer to be placed, its weights stored `bits` wide. A dense layer is a 1x1 convolution of a 1x1 map.

    driven: the host drives its neurons by biases, so that the layer listens to nothing and stores no synapse.

    Shapes: cells, its source as the layer hears it.
    """

    part: Part
    cells: Shape
    bits: int
    memory: Memory
    driven: bool
    _strips: dict[tuple[int, int], list[Strip]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, part: Part, bits: int, memory: Memory, *, driven: bool) -> Job:
        """The job of a part of a network."""
        channels, height, width = part.source
        cells = channels, height // part.layer.pool, width // part.layer.pool
        if not isinstance(part.layer, Conv):
            cells = cells[0] * cells[1] * cells[2], 1, 1
        return cls(part=part, cells=cells, bits=bits, memory=memory, driven=driven)

    @property
    def layer(self) -> AnyLayer:
        """The part as a layer."""
        return self.part.layer

    @property
    def source(self) -> Shape:
        """Its source, before the pool."""
        return self.part.source

    @property
    def shape(self) -> Shape:
        """Its neurons."""
        return self.part.shape

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    @property
    def plane(self) -> tuple[int, int]:
        """Height and width of the pooled source."""
        return self.source[1] // self.layer.pool, self.source[2] // self.layer.pool

    @property
    def groups(self) -> int:
        """Channel groups of the layer."""
        return self.layer.groups if isinstance(self.layer, Conv) else 1

    @cached_property
    def nonzero(self) -> npt.NDArray[np.bool_]:
        """Whether a weight is a synapse. Shape: (Cout, Cin / groups, kh, kw)."""
        weight = self.layer.weight
        nonzero: npt.NDArray[np.bool_] = weight != 0
        return nonzero if nonzero.ndim == 4 else nonzero[:, :, None, None]

    @cached_property
    def counts(self) -> npt.NDArray[np.int32]:
        """Synapses of the first c output channels. Shape: (Cout + 1, Cin / groups, kh, kw)."""
        total = np.zeros((self.nonzero.shape[0] + 1, *self.nonzero.shape[1:]), dtype=np.int32)
        np.cumsum(self.nonzero, axis=0, out=total[1:])
        return total

    @cached_property
    def n_synapses(self) -> int:
        """Unrolled connections: a sum over taps of their nonzero weights times the outputs they reach."""
        rows, cols = (self._reached(axis) for axis in (0, 1))
        return int((self.nonzero.sum(axis=(0, 1)) * np.outer(rows, cols)).sum())

    def _reached(self, axis: int) -> Ints:
        (strip,) = self.strips(axis, self.shape[1 + axis])
        outputs = np.zeros(self.nonzero.shape[2 + axis], dtype=np.int64)
        for taps, times in zip(strip.sets, strip.times, strict=True):
            outputs[list(taps)] += times
        return outputs

    def thresholds(self, c: Range) -> int:
        """Distinct thresholds among channels `c`, at least 1."""
        if isinstance(self.layer, Readout) or self.layer.neuron.theta.ndim == 0:
            return 1
        return len(np.unique(self.layer.neuron.theta[slice(*c)]))

    def hears(self, c: Range) -> Range:
        """The source channels that output channels `c` hear: those of every group they touch."""
        inside, outside = self.nonzero.shape[1], self.nonzero.shape[0] // self.groups
        return c[0] // outside * inside, ((c[1] - 1) // outside + 1) * inside

    def pieces(self, c: Range) -> list[tuple[int, Range]]:
        """The groups that channels `c` touch, each with its part of them."""
        outside = self.nonzero.shape[0] // self.groups
        touched = range(c[0] // outside, (c[1] - 1) // outside + 1)
        return [(g, (max(c[0], g * outside), min(c[1], (g + 1) * outside))) for g in touched]

    def strips(self, axis: int, size: int) -> list[Strip]:
        """The map cut along an axis (0: rows, 1: columns) into ranges of `size`, the last one shorter."""
        if (axis, size) not in self._strips:
            n = self.shape[1 + axis]
            self._strips[axis, size] = [self._strip(axis, span) for span in spans(n, size)]
        return self._strips[axis, size]

    def cut(self, axis: int, strip: Strip) -> list[Strip]:
        """Both halves of a strip of at least two rows (or columns)."""
        first, last = strip.span
        middle = (first + last) // 2
        return [self._strip(axis, span) for span in ((first, middle), (middle, last))]

    def _strip(self, axis: int, span: Range) -> Strip:
        layer, n_cells = self.layer, self.cells[1 + axis]
        if not isinstance(layer, Conv):
            return Strip(span, ((0,),), (1,), (0,), (0,))
        kernel, stride = layer.weight.shape[2 + axis], layer.stride[axis]
        padding, dilation = layer.padding[axis], layer.dilation[axis]
        heard: dict[int, tuple[int, ...]] = {}
        low, high = span[0] * stride - padding, (span[1] - 1) * stride - padding + dilation * (kernel - 1) + 1
        for cell in range(max(0, low), min(n_cells, high)):
            reached = ((tap, cell + padding - dilation * tap) for tap in range(kernel))
            taps = tuple(tap for tap, at in reached if at % stride == 0 and span[0] <= at // stride < span[1])
            if taps:
                heard[cell] = taps
        sets = sorted(set(heard.values()))
        which = tuple(sets.index(taps) for taps in heard.values())
        times = tuple(which.count(index) for index in range(len(sets)))
        return Strip(span, tuple(sets), times, tuple(heard), which)


def spans(n: int, size: int) -> list[Range]:
    """The ranges of `size`, the last one shorter, that n items are cut into."""
    return [(start, min(start + size, n)) for start in range(0, n, size)]
