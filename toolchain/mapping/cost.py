"""What a part of a layer spends on a core, by the memory formula of a profile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir import Conv, Readout
from toolchain.profile import BudgetMemory, ListMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from toolchain.ir import AnyLayer, Shape
    from toolchain.placement import Range
    from toolchain.profile import HardwareProfile

    Counts = npt.NDArray[np.int64]
    Caps = dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a core spends, by the names of a profile's limits."""

    neurons: int
    synapse_words: int
    axons_in: int
    axons_out: int
    axon_map_words: int
    axon_mem_words: int
    total_words: int
    list_words: int
    groups: int


RESOURCES = {
    "neurons": ("neurons", "neurons"),
    "synapse_words": ("synaptic memory", "words"),
    "axons_in": ("input axons", ""),
    "axons_out": ("output axons", "slots"),
    "axon_map_words": ("axon map", "words"),
    "axon_mem_words": ("axon memory", "words"),
    "total_words": ("total memory", "words"),
    "list_words": ("synapse list", "words"),
    "groups": ("distinct thresholds", "groups"),
}


def caps_of(profile: HardwareProfile) -> Caps:
    """The limits as planned for: `max_fill` of the neurons and of all memory but a list's own length."""
    caps = {}
    fill = Fraction(str(profile.core.max_fill.value))
    for name in RESOURCES:
        limit = getattr(profile.core, name)
        if limit is not None:
            filled = limit.unit in {"neurons", "words"} and name != "list_words"
            caps[name] = math.floor(limit.value * fill) if filled else limit.value
    return caps


def excess(load: Load, caps: Caps) -> str | None:
    """The first limit that `load` exceeds."""
    return next((name for name, cap in caps.items() if getattr(load, name) > cap), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fan:
    """How the next layer listens. Shapes: rows (H,), cols (W,), tiles of it that hear a row or column of this layer.

    channels: for each channel tile of a convolution, the source channels it hears; empty for listed synapses, where every
    neuron addresses all n_cores. slots: output slots an axon takes; near: those it takes if it stays on its chip.
    """

    rows: Counts
    cols: Counts
    channels: tuple[Range, ...]
    n_cores: int
    slots: int
    near: int

    def axons(self, y: Range, x: Range, c: Range) -> int:
        """Axons that leave a core holding this part of the layer."""
        if not self.channels:
            return (y[1] - y[0]) * (x[1] - x[0]) * (c[1] - c[0]) * self.n_cores
        hears = sum(low < c[1] and c[0] < high for low, high in self.channels)
        return int(self.rows[slice(*y)].sum() * self.cols[slice(*x)].sum()) * hears


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A layer to be placed, its weights `bits` wide, and what it feeds.

    driven: the host drives its neurons by biases, so that the layer listens to nothing and stores no synapse.
    """

    layer: AnyLayer
    source: Shape
    shape: Shape
    bits: int
    memory: ListMemory | BudgetMemory
    fan: Fan | None
    driven: bool = False

    @property
    def cells(self) -> Shape:
        """Shape of the pooled source."""
        channels, height, width = self.source
        return channels, height // self.layer.pool, width // self.layer.pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A core's share of a layer and what it spends."""

    y: Range
    x: Range
    c: Range
    load: Load


@dataclass(frozen=True, slots=True)
class Strip:
    """A range of output rows (or columns), the pooled source rows it hears, and the sizes of their distinct tap sets."""

    span: Range
    heard: tuple[int, ...]
    taps: tuple[int, ...]


def spans(n: int, size: int) -> list[Range]:
    """The ranges of `size`, the last one shorter, that n items are cut into."""
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def strips(layer: Conv, axis: int, n_out: int, n_in: int, size: int) -> list[Strip]:
    """The tiles of one axis (0: rows, 1: columns)."""
    kernel, stride = layer.weight.shape[2 + axis], layer.stride[axis]
    padding, dilation = layer.padding[axis], layer.dilation[axis]
    strips = []
    for first, last in spans(n_out, size):
        heard: dict[int, frozenset[int]] = {}
        low = max(0, first * stride - padding)
        for cell in range(low, min(n_in, (last - 1) * stride - padding + dilation * (kernel - 1) + 1)):
            reached = ((tap, cell + padding - dilation * tap) for tap in range(kernel))
            taps = frozenset(tap for tap, at in reached if at % stride == 0 and first <= at // stride < last)
            if taps:
                heard[cell] = taps
        strips.append(Strip((first, last), tuple(heard), tuple(sorted(len(taps) for taps in set(heard.values())))))
    return strips


def conv_parts(job: Job, layer: Conv, rows: list[Strip], cols: list[Strip], size: int) -> Iterator[Part]:
    """The tiles of a convolution, y first, channels fastest, `size` channels each. Equal kernels are computed once."""
    groups = {c: _thresholds(layer, c) for c in spans(job.shape[0], size)}
    words: dict[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], tuple[int, int]] = {}
    for y, x, (c, thresholds) in product(rows, cols, groups.items()):
        per_group = _group_widths(layer, c)
        key = (y.taps, x.taps, per_group)
        if key not in words:
            words[key] = _kernel_words(job, layer, *key)
        axons = (
            len(y.heard) * len(x.heard) if isinstance(job.memory, ListMemory) else job.memory.shared_axon_words.value
        )
        yield _part(job, (y.span, x.span, c), axons, thresholds, words[key])


def _group_widths(layer: Conv, c: Range) -> tuple[int, ...]:
    """How many of the output channels `c` each channel group that they touch has."""
    per_group = layer.weight.shape[0] // layer.groups
    touched = range(c[0] // per_group, (c[1] - 1) // per_group + 1)
    return tuple(min(c[1], (g + 1) * per_group) - max(c[0], g * per_group) for g in touched)


def _kernel_words(
    job: Job, layer: Conv, y_taps: tuple[int, ...], x_taps: tuple[int, ...], widths: tuple[int, ...]
) -> tuple[int, int]:
    """Words of a tile's shared kernel, zeros stored, and of its longest list."""
    sources, kh, kw = layer.weight.shape[1:]
    match job.memory:
        case ListMemory() as memory:
            lists = [
                _listed(memory, np.array(rows * cols * width), job.bits)
                for rows, cols, width in product(y_taps, x_taps, widths)
            ]
            return sources * sum(int(words) for words in lists), max((int(words) for words in lists), default=0)
        case BudgetMemory() as memory:
            header, word = memory.shared_header_bits.value, memory.word_bits.value
            return sources * kh * kw * sum(-(-(width * job.bits + header) // word) for width in widths), 0


def _listed(memory: ListMemory | BudgetMemory, n: Counts, synapse_bits: int) -> Counts:
    """Words of lists of n synapses of `synapse_bits` each; none for an empty list."""
    bits = n * synapse_bits + memory.entry_bits.value * -(-n // memory.entry_synapses.value)
    words: Counts = -(-bits // memory.word_bits.value)
    if isinstance(memory, ListMemory):
        left = bits % memory.word_bits.value
        words = words + ((bits > 0) & ((left == 0) | (left >= memory.spill_bits.value)))
    return words


def list_parts(job: Job, form: str, size: int) -> Iterator[Part]:
    """The tiles of a dense layer: `size` neurons each."""
    weight, cuts = job.layer.weight, spans(job.shape[0], size)
    if form == "sparse":
        counts = np.add.reduceat(weight != 0, [first for first, _ in cuts], axis=0, dtype=np.int64)
    else:
        counts = np.array([[last - first] * weight.shape[1] for first, last in cuts], dtype=np.int64)
    for span, n in zip(cuts, counts, strict=True):
        words = _listed(job.memory, n, _synapse_bits(job, form, span[1] - span[0]))
        axons = int(np.count_nonzero(n))
        if isinstance(job.memory, BudgetMemory):
            axons *= job.memory.list_axon_words.value
        cost = (int(words.sum()), int(words.max()))
        yield _part(job, ((0, 1), (0, 1), span), axons, _thresholds(job.layer, span), cost)


def _synapse_bits(job: Job, form: str, neurons: int) -> int:
    match job.memory:
        case ListMemory() as memory:
            index = max(memory.index_bits_min.value, (neurons - 1).bit_length())
            return job.bits + (index if form == "sparse" else 0)
        case BudgetMemory() as memory:
            return job.bits + memory.synapse_bits.value


def _thresholds(layer: AnyLayer, c: Range) -> int:
    """Distinct thresholds among channels `c`, at least 1."""
    if isinstance(layer, Readout) or layer.neuron.theta.ndim == 0:
        return 1
    return len(np.unique(layer.neuron.theta[slice(*c)]))


def _part(job: Job, place_: tuple[Range, Range, Range], axons_in: int, groups: int, synapses: tuple[int, int]) -> Part:
    """A core's share with what it spends. synapses: words of all lists, and of the longest."""
    neurons = math.prod(last - first for first, last in place_)
    axons_out = axon_map = 0
    if job.driven:
        axons_in, synapses = 0, (0, 0)
    total = synapses[0]
    if job.fan and isinstance(job.memory, ListMemory):
        axons_out = job.fan.slots * job.fan.axons(*place_)
    elif job.fan and isinstance(job.memory, BudgetMemory):
        per_neuron = Fraction(str(job.memory.axon_map_per_neuron.value))
        axon_map = math.ceil(neurons * per_neuron) if job.fan.channels else job.fan.axons(*place_)
    if isinstance(job.memory, BudgetMemory):
        total += axons_in + groups + neurons + axon_map
    load = Load(
        neurons=neurons,
        synapse_words=synapses[0],
        axons_in=axons_in,
        axons_out=axons_out,
        axon_map_words=axon_map,
        axon_mem_words=0,
        total_words=total,
        list_words=synapses[1],
        groups=groups,
    )
    y, x, c = place_
    return Part(y=y, x=x, c=c, load=load)
