"""How many words the synapses of a share take, format by format."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir import Conv
from toolchain.profile import BudgetMemory, ListMemory

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.ir import AnyLayer, Shape
    from toolchain.placement import Core, Range
    from toolchain.profile import HardwareProfile

    Counts = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]
    Memory = ListMemory | BudgetMemory


@dataclass(frozen=True, slots=True)
class Heard:
    """The source rows (or columns) that a range of outputs hears, the set of taps each is heard by, and the distinct sets.

    Shapes: cells (heard,); of (heard,), a row of sets; sets (distinct, taps).
    """

    cells: Counts
    of: Counts
    sets: Bools

    @property
    def times(self) -> Counts:
        """Rows of each set."""
        return np.bincount(self.of, minlength=len(self.sets)).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """A layer, the shape of its pooled source as it hears it, its own shape, and how its synapses are stored.

    A dense layer hears a 1x1 map. Shapes: plane, height and width of the pooled source; nonzero (Cout, Cin / groups, kh, kw). driven: the host sets its
    neurons' biases, so that nothing reaches it. known: what was found before, because many
    shares ask the same.
    """

    layer: AnyLayer
    cells: Shape
    plane: tuple[int, int]
    shape: Shape
    form: str
    nonzero: Bools
    driven: bool
    known: dict[tuple[object, ...], object] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        """Channel groups."""
        return self.layer.groups if isinstance(self.layer, Conv) else 1

    def per_group(self, channels: Range) -> list[Range]:
        """The output channels of a share, by the group they belong to."""
        size = len(self.nonzero) // self.groups
        edges = sorted({channels[0], channels[1], *range(0, len(self.nonzero), size)})
        inside = [edge for edge in edges if channels[0] <= edge <= channels[1]]
        return list(pairwise(inside))

    def sources(self, channels: Range) -> Range:
        """The source channels that they hear."""
        size, inputs = len(self.nonzero) // self.groups, self.nonzero.shape[1]
        return channels[0] // size * inputs, ((channels[1] - 1) // size + 1) * inputs


@dataclass(frozen=True, slots=True)
class Stored:
    """What a share's synapses take: words, words of the longest list, input axons; and which cells it hears by lists.

    Shapes: hears (sources, row sets, column sets), None where a map position is heard as a whole.
    """

    words: int
    longest: int
    axons: int
    hears: Bools | None


def wire(wired: tuple[AnyLayer, Shape, Shape], form: str, *, driven: bool) -> Wired:
    """Return a layer as it is wired."""
    layer, source, shape = wired
    channels, height, width = source
    cells = channels, height // layer.pool, width // layer.pool
    if isinstance(layer, Conv):
        return Wired(
            layer=layer, cells=cells, plane=cells[1:], shape=shape, form=form, nonzero=layer.weight != 0, driven=driven
        )
    weight = layer.weight[:, :, None, None] != 0
    return Wired(
        layer=layer,
        cells=(weight.shape[1], 1, 1),
        plane=cells[1:],
        shape=shape,
        form=form,
        nonzero=weight,
        driven=driven,
    )


def allowed(wired: Wired, memory: Memory, bits: int) -> set[str]:
    """The formats a layer's synapses can be stored in, its weights so many bits wide."""
    if wired.driven:
        return {"bias"}
    lists = {"dense", "sparse", "run-length"} if isinstance(memory, ListMemory) else {"dense", "sparse"}
    if bits == 1 and not wired.nonzero.all():  # one bit is a sign and holds no 0
        return lists - {"dense"}
    if not isinstance(wired.layer, Conv):
        return lists
    return lists | {"shared"} if isinstance(memory, ListMemory) else {"shared", "sparse"}


def heard(wired: Wired, axis: int, span: Range) -> Heard:
    """What the outputs of `span` hear along an axis (0: rows, 1: columns)."""
    found = wired.known.get((axis, span))
    if isinstance(found, Heard):
        return found
    layer, n_cells, n_taps = wired.layer, wired.cells[1 + axis], wired.nonzero.shape[2 + axis]
    by_tap = np.ones((1, 1), dtype=bool)
    if isinstance(layer, Conv):
        first = np.arange(*span)[:, None] * layer.stride[axis] - layer.padding[axis]
        cells = first + np.arange(n_taps) * layer.dilation[axis]
        _, taps = np.indices(cells.shape)
        valid = (cells >= 0) & (cells < n_cells)
        by_tap = np.zeros((n_cells, n_taps), dtype=bool)
        by_tap[cells[valid], taps[valid]] = True
    cells_heard = np.flatnonzero(by_tap.any(axis=1))
    sets, of = np.unique(by_tap[cells_heard], axis=0, return_inverse=True)
    wired.known[axis, span] = found = Heard(cells_heard, of.ravel().astype(np.int64), sets)
    return found


def by_position(form: str, memory: Memory) -> bool:
    """Whether all channels of a map position share an input axon."""
    return form == "shared" or (isinstance(memory, ListMemory) and memory.list_axons == "population")


def width(profile: HardwareProfile, weight_bits: int) -> int:
    """Bits a weight is stored in."""
    widths = profile.precision.weight_widths
    return min([w for w in widths.value if w >= weight_bits], default=weight_bits) if widths else weight_bits


def stored(profile: HardwareProfile, wired: Wired, core: Core, *, weight_bits: int, keep: float = 1.0) -> Stored:
    """What a share's synapses take at a width of weights, were only a share `keep` of its listed synapses left."""
    if wired.driven:
        return Stored(0, 0, 0, None)
    rows, cols = heard(wired, 0, core.y), heard(wired, 1, core.x)
    area = (core.y[1] - core.y[0]) * (core.x[1] - core.x[0])
    kind = (rows.sets.tobytes(), cols.sets.tobytes(), rows.times.tobytes(), cols.times.tobytes(), area)
    key = ("stored", core.channels, kind, weight_bits, keep)
    found = wired.known.get(key)
    if not isinstance(found, Stored):
        bits = width(profile, weight_bits)
        if wired.form == "shared":
            found = _kernel(profile.memory, wired, core, (rows, cols), bits)
        else:
            found = _unrolled(profile.memory, wired, core, bits, keep)
        wired.known[key] = found
    return found


def _kernel(memory: Memory, wired: Wired, core: Core, area: tuple[Heard, Heard], bits: int) -> Stored:
    """A shared kernel, zeros stored."""
    rows, cols = area
    sources, kh, kw = wired.nonzero.shape[1:]
    widths = [last - first for first, last in wired.per_group(core.channels)]
    if isinstance(memory, BudgetMemory):
        each = sum(_up(n * bits + memory.shared_header_bits.value, memory.word_bits.value) for n in widths)
        return Stored(each * sources * kh * kw, 0, memory.shared_axon_words.value, None)
    taps = [int(r.sum() * c.sum()) for r in rows.sets for c in cols.sets]
    words = [_words(memory, np.array(_entries(memory, n * t) + n * t * bits)) for n in widths for t in taps]
    return Stored(sources * int(sum(words)), int(max(words, default=0)), len(rows.cells) * len(cols.cells), None)


def _unrolled(memory: Memory, wired: Wired, core: Core, bits: int, keep: float) -> Stored:
    """Lists: of every source its own."""
    rows, cols = heard(wired, 0, core.y), heard(wired, 1, core.x)
    times = rows.times[:, None] * cols.times
    words = longest = axons = 0
    hears = []
    for part in wired.per_group(core.channels):
        n, size = _lists(memory, wired, core, part, (bits, keep))
        each = np.where(n > 0, _words(memory, size), 0)
        words += int((each.sum(axis=0) * times).sum())
        longest = max(longest, int(each.max(initial=0)))
        axons += int(((n > 0).sum(axis=0) * times).sum())
        hears.append(n > 0)
    if isinstance(memory, BudgetMemory):
        axons *= memory.list_axon_words.value
    if by_position(wired.form, memory):
        whole = wired.plane[0] * wired.plane[1] if wired.layer.weight.ndim == 2 else len(rows.cells) * len(cols.cells)
        return Stored(words, longest, whole, None)
    return Stored(words, longest, axons, np.concatenate(hears))


def _lists(memory: Memory, wired: Wired, core: Core, part: Range, kept_as: tuple[int, float]) -> tuple[Counts, Counts]:
    """Synapses and bits of the list of each source and pair of tap sets. Shapes: (sources, row sets, column sets).

    kept_as: bits of a weight, and the share of synapses left.
    """
    (bits, keep), area = kept_as, (heard(wired, 0, core.y), heard(wired, 1, core.x))
    n_channels, dense = part[1] - part[0], wired.form == "dense"
    kept = wired.nonzero[part[0] : part[1]].sum(axis=0, dtype=np.int64)
    per_tap = np.full_like(kept, n_channels) if dense else np.ceil(kept * keep).astype(np.int64)
    n = _summed(per_tap, area)
    if isinstance(memory, BudgetMemory):
        return n, n * (bits + memory.synapse_bits.value) + _entries(memory, n)
    if dense:
        return n, _summed(per_tap * bits + _entries(memory, per_tap), area)
    if wired.form == "run-length":
        each, starts = _runs(memory, wired, bits)
        begun, mask = starts[part[0] : part[1]], wired.nonzero[part[0] : part[1]]
        first = np.take_along_axis(begun, mask.argmax(axis=0)[None], axis=0)[0]
        entries = np.ceil((begun.sum(axis=0) + (mask.any(axis=0) & ~first)) * keep).astype(np.int64)
        return n, _summed(per_tap * each + entries * memory.entry_bits.value, area)
    index = max(memory.index_bits_min.value, int(np.ceil(np.log2(core.n_neurons))))
    return n, n * (bits + index) + _entries(memory, n)


def _summed(per_tap: Counts, area: tuple[Heard, Heard]) -> Counts:
    """Sums over the taps of every pair of sets."""
    rows, cols = (side.sets.astype(np.int64) for side in area)
    summed: Counts = np.einsum("skl,rk,cl->src", per_tap, rows, cols, optimize=True)
    return summed


def _runs(memory: ListMemory, wired: Wired, bits: int) -> tuple[int, Bools]:
    """Bits a synapse takes, and where entries of the layer's run-length lists begin. Shape: like nonzero."""
    found = wired.known.get(("runs", bits))
    if not found:
        options = []
        for skip in sorted(memory.skip_bits.value):
            each = max(bits, memory.entry_bits.value - skip) + skip
            starts = _starts(wired.nonzero, 2**skip, memory.entry_synapses.value)
            options.append(
                (int(wired.nonzero.sum()) * each + int(starts.sum()) * memory.entry_bits.value, each, starts)
            )
        wired.known["runs", bits] = found = min(options, key=lambda option: option[0])[1:]
    each, starts = found  # type: ignore[misc]
    return each, starts


def _starts(nonzero: Bools, reach: int, most: int) -> Bools:
    """Where entries begin: at a tap's first synapse, behind a gap of `reach` or more, and after `most` synapses of a run."""
    taps, channels = np.nonzero(nonzero.reshape(len(nonzero), -1).T)
    starts = np.zeros(nonzero.shape, dtype=bool)
    if len(taps):
        fresh = np.r_[True, (np.diff(taps) > 0) | (np.diff(channels) > reach)]
        order = np.arange(len(taps))
        since = order - np.maximum.accumulate(np.where(fresh, order, 0))
        begin = since % most == 0
        starts.reshape(len(nonzero), -1)[channels[begin], taps[begin]] = True
    return starts


def _entries(memory: Memory, n: Counts | int) -> Counts | int:
    """Bits of the headers of lists of n synapses."""
    return -(-n // memory.entry_synapses.value) * memory.entry_bits.value


def _words(memory: Memory, bits: Counts) -> Counts:
    words: Counts = -(-bits // memory.word_bits.value)
    if isinstance(memory, ListMemory):
        rest = bits % memory.word_bits.value
        words = words + ((rest == 0) | (rest >= memory.spill_bits.value))
    return words


def _up(n: int, unit: int) -> int:
    return (n + unit - 1) // unit
