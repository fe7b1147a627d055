"""What each core really spends, from the network and where its neurons sit."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir import Conv, Readout
from toolchain.profile import BudgetMemory, ListMemory

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.ir import AnyLayer, Network, Shape
    from toolchain.placement import Core, Mapping, Range
    from toolchain.profile import Count, HardwareProfile

    Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Heard:
    """Source rows (or columns) that a range of outputs hears, and the sizes of the distinct sets of taps it hears them by."""

    cells: tuple[int, ...]
    set_sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """A layer, the shape of its pooled source, its own shape, and how its synapses are stored, if it has any.

    driven: the host sets its neurons' biases, so that nothing reaches it.

    heard: what `_heard` found for an axis and a range, kept because many cores share it.
    """

    layer: AnyLayer
    cells: Shape
    shape: Shape
    form: str
    driven: bool = False
    heard: dict[tuple[int, Range], _Heard] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A core and what it really spends."""

    core: Core
    wired: Wired
    axons_in: int
    axons_out: int
    groups: int
    synapse_words: int
    list_words: int
    axon_map_words: int

    @property
    def total_words(self) -> int:
        """Words of everything on the core, where all of it shares one memory."""
        return self.axons_in + self.groups + self.core.n_neurons + self.synapse_words + self.axon_map_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """seen: the cores that lie within a layer of known format; only those can be measured."""

    network: Network
    mapping: Mapping
    profile: HardwareProfile
    wired: dict[str, Wired]
    seen: tuple[Seen, ...]

    def cap(self, limit: Count, *, fill: bool = True) -> int:
        """A core's limit after its head-room."""
        return int(limit.value * self.profile.core.max_fill.value + 1e-9) if fill else limit.value


def measure(network: Network, mapping: Mapping, profile: HardwareProfile) -> Facts:
    """Return the network as wired and every core measured from its neurons' place."""
    wired = {}
    for layer, (channels, height, width), shape in network.wired():
        cells = channels, height // layer.pool, width // layer.pool
        form, driven = mapping.formats.get(layer.name, ""), network.is_driven(layer)
        wired[layer.name] = Wired(layer=layer, cells=cells, shape=shape, form=form, driven=driven)
    names = list(wired)
    listeners = {
        name: _Listeners.of(wired[after], [core for core in mapping.cores if core.layer == after])
        for name, after in pairwise(names)
    }
    several_chips = mapping.n_chips > 1
    seen = tuple(
        _measure(profile, wired[core.layer], core, listeners.get(core.layer), several_chips=several_chips)
        for core in mapping.cores
        if core.layer in wired and known(wired[core.layer]) and _inside(core, wired[core.layer].shape)
    )
    return Facts(network=network, mapping=mapping, profile=profile, wired=wired, seen=seen)


def known(wired: Wired) -> bool:
    """Whether the layer can be stored in the format the mapping gives it."""
    if wired.driven:
        return wired.form == "bias"
    return wired.form in ({"shared"} if isinstance(wired.layer, Conv) else {"dense", "sparse"})


def _inside(core: Core, shape: Shape) -> bool:
    spans = (core.channels, core.y, core.x)
    return all(0 <= first < last <= n for (first, last), n in zip(spans, shape, strict=True))


def misplaced(shape: Shape, cores: list[Core]) -> int:
    """Neurons that sit nowhere or more than once, and places that hold no neuron of the layer."""
    times = np.zeros(shape, dtype=np.int32)
    strays = 0
    for core in cores:
        if _inside(core, shape):
            times[slice(*core.channels), slice(*core.y), slice(*core.x)] += 1
        else:
            strays += max(1, core.n_neurons)
    return int((times != 1).sum()) + strays


@dataclass(frozen=True, slots=True)
class _Listeners:
    """The cores of the layer behind.

    Shapes: maps, for each range of this layer's channels that cores of a convolution hear, how many of them hear each map
    position, (H, W). shared is False, and maps empty, where every neuron addresses every core.
    """

    n_cores: int
    shared: bool
    maps: dict[Range, Counts]

    @classmethod
    def of(cls, wired: Wired, cores: list[Core]) -> _Listeners:
        layer = wired.layer
        cores = [core for core in cores if _inside(core, wired.shape)]
        if not isinstance(layer, Conv):
            return cls(len(cores), shared=False, maps={})
        maps: dict[Range, Counts] = {}
        outputs, inputs = layer.weight.shape[0] // layer.groups, layer.weight.shape[1]
        for core in cores:
            first, last = core.channels[0] // outputs, (core.channels[1] - 1) // outputs + 1
            heard = maps.setdefault((first * inputs, last * inputs), np.zeros(wired.cells[1:], dtype=np.int64))
            heard[np.ix_(_heard(wired, layer, 0, core.y).cells, _heard(wired, layer, 1, core.x).cells)] += 1
        pooled = {span: heard.repeat(layer.pool, axis=0).repeat(layer.pool, axis=1) for span, heard in maps.items()}
        return cls(len(cores), shared=True, maps=pooled)


def _measure(
    profile: HardwareProfile, wired: Wired, core: Core, behind: _Listeners | None, *, several_chips: bool
) -> Seen:
    """What the core really spends."""
    words, longest = synapses(profile, wired, core, wired.layer.weight_bits)
    axons = _axons(core, behind)
    slots = axon_map = 0
    match profile.memory:
        case ListMemory() as memory:
            each = memory.slots_shared if behind and behind.shared else memory.slots_discrete
            slots = axons * (each.value + (memory.slots_remote.value if several_chips else 0))
        case BudgetMemory() as memory:
            axon_map = axons
            if behind and behind.shared:
                axon_map = int(np.ceil(round(core.n_neurons * memory.axon_map_per_neuron.value, 6)))
    return Seen(
        core=core,
        wired=wired,
        axons_in=_axons_in(profile, wired, core),
        axons_out=slots,
        groups=_groups(wired.layer, core.channels),
        synapse_words=words,
        list_words=longest,
        axon_map_words=axon_map,
    )


def _groups(layer: AnyLayer, channels: Range) -> int:
    if isinstance(layer, Readout):
        return 1
    return len(set(layer.neuron.per_channel(layer.weight.shape[0])[channels[0] : channels[1]].tolist()))


def _axons(core: Core, behind: _Listeners | None) -> int:
    """Axons that leave the core: one a neuron and listening core, or one a map position and listening core."""
    if behind is None:
        return 0
    if not behind.shared:
        return core.n_neurons * behind.n_cores
    heard = (
        times[slice(*core.y), slice(*core.x)].sum()
        for (first, last), times in behind.maps.items()
        if first < core.channels[1] and core.channels[0] < last
    )
    return int(sum(heard))


def _axons_in(profile: HardwareProfile, wired: Wired, core: Core) -> int:
    layer, memory = wired.layer, profile.memory
    if wired.driven:
        return 0
    if isinstance(layer, Conv):
        if isinstance(memory, BudgetMemory):
            return memory.shared_axon_words.value
        return len(_heard(wired, layer, 0, core.y).cells) * len(_heard(wired, layer, 1, core.x).cells)
    heard = int((_synapses_per_source(wired, core) > 0).sum())
    return heard * (memory.list_axon_words.value if isinstance(memory, BudgetMemory) else 1)


def _heard(wired: Wired, layer: Conv, axis: int, span: Range) -> _Heard:
    """What the outputs of `span` hear along an axis (0: rows, 1: columns)."""
    if (axis, span) not in wired.heard:
        n_cells, n_taps = wired.cells[1 + axis], layer.weight.shape[2 + axis]
        outputs = np.arange(*span)[:, None] * layer.stride[axis] - layer.padding[axis]
        cells = outputs + np.arange(n_taps) * layer.dilation[axis]
        _, taps = np.indices(cells.shape)
        valid = (cells >= 0) & (cells < n_cells)
        by_tap = np.zeros((n_cells, n_taps), dtype=bool)
        by_tap[cells[valid], taps[valid]] = True
        heard = np.flatnonzero(by_tap.any(axis=1))
        sets = np.unique(by_tap[heard], axis=0)
        wired.heard[axis, span] = _Heard(tuple(heard.tolist()), tuple(sets.sum(axis=1).tolist()))
    return wired.heard[axis, span]


def _synapses_per_source(wired: Wired, core: Core) -> Counts:
    """Synapses a dense layer's core stores for each source. Shape: (sources,)."""
    part = wired.layer.weight[core.channels[0] : core.channels[1]]
    stored: Counts = (part != 0).sum(axis=0, dtype=np.int64)
    return stored if wired.form == "sparse" else np.full(part.shape[1], len(part), dtype=np.int64)


def synapses(profile: HardwareProfile, wired: Wired, core: Core, weight_bits: int) -> tuple[int, int]:
    """Words of all synapses of the core, and of its longest list."""
    if wired.driven:
        return 0, 0
    layer, memory = wired.layer, profile.memory
    widths = profile.precision.weight_widths
    bits = min([w for w in widths.value if w >= weight_bits], default=weight_bits) if widths else weight_bits
    if not isinstance(layer, Conv):
        extra = memory.synapse_bits.value if isinstance(memory, BudgetMemory) else 0
        if isinstance(memory, ListMemory) and wired.form == "sparse":
            extra = max(memory.index_bits_min.value, int(np.ceil(np.log2(core.n_neurons))))
        lists = [_list_words(memory, int(n), bits + extra) for n in _synapses_per_source(wired, core)]
        return sum(lists), max(lists)
    outputs = np.arange(*core.channels) // (layer.weight.shape[0] // layer.groups)
    per_group = [int(n) for n in np.bincount(outputs) if n]
    if isinstance(memory, BudgetMemory):
        per_tap = sum(_up(n * bits + memory.shared_header_bits.value, memory.word_bits.value) for n in per_group)
        return per_tap * int(np.prod(layer.weight.shape[1:])), 0
    rows, cols = _heard(wired, layer, 0, core.y).set_sizes, _heard(wired, layer, 1, core.x).set_sizes
    sizes = [row * col * n for row in rows for col in cols for n in per_group]
    lists = [_list_words(memory, size, bits) for size in sizes]
    return layer.weight.shape[1] * sum(lists), max(lists, default=0)


def _list_words(memory: ListMemory | BudgetMemory, n: int, synapse_bits: int) -> int:
    """Words of one list: entries of up to `entry_synapses`, each with a header."""
    if n == 0:
        return 0
    full, rest = divmod(n, memory.entry_synapses.value)
    bits = n * synapse_bits + memory.entry_bits.value * (full + (rest > 0))
    words, over = _up(bits, memory.word_bits.value), bits % memory.word_bits.value
    spills = isinstance(memory, ListMemory) and (over == 0 or over >= memory.spill_bits.value)
    return words + spills


def _up(n: int, unit: int) -> int:
    return (n + unit - 1) // unit
