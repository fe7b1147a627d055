"""What each core really spends, from the network and where its neurons sit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.check.lists import Stored, Wired, allowed, by_position, heard, stored, width, wire
from toolchain.ir import Readout
from toolchain.ir.parts import parts
from toolchain.profile import BudgetMemory

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.ir import AnyLayer, Network, Shape
    from toolchain.placement import Core, Mapping, Range
    from toolchain.profile import Count, HardwareProfile

    Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A share and what it really spends on its core."""

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
        """Words of everything of the share, where all of it shares one memory."""
        return self.axons_in + self.groups + self.core.n_neurons + self.synapse_words + self.axon_map_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """seen: the shares that lie within a layer of known format; only those can be measured. cores: they, by their core."""

    network: Network
    mapping: Mapping
    profile: HardwareProfile
    wired: dict[str, Wired]
    seen: tuple[Seen, ...]
    cores: dict[int, tuple[Seen, ...]]

    def cap(self, limit: Count, *, fill: bool = True) -> int:
        """A core's limit after its head-room."""
        return int(limit.value * self.profile.core.max_fill.value + 1e-9) if fill else limit.value


def measure(network: Network, mapping: Mapping, profile: HardwareProfile) -> Facts:
    """Return the network as wired and every share measured from its neurons' place."""
    if mapping.pools == "expanded":
        network = network.without_pools()
    placed = {part.name: part for part in parts(network)}
    wired = {
        name: wire(
            (part.layer, part.source, part.shape),
            mapping.formats.get(name, ""),
            driven=network.is_driven(part.layer),
        )
        for name, part in placed.items()
    }
    shares: dict[str, list[tuple[Core, Stored]]] = {name: [] for name in wired}
    for core in mapping.cores:
        layer = wired.get(core.layer)
        if layer and known(layer, profile) and _inside(core, layer.shape):
            shares[core.layer].append((core, stored(profile, layer, core, weight_bits=layer.layer.weight_bits)))
    listeners = {name: _Listeners.of(wired[name], shares[name], profile) for name in wired}
    behind = {
        one: [
            (listeners[other], part.heard[0] - own.channels[0])
            for other, part in placed.items()
            if part.index == own.index + 1
        ]
        for one, own in placed.items()
    }
    seen = tuple(
        _measure(profile, wired[name], core, found, behind[name])
        for name, held in shares.items()
        for core, found in held
    )
    cores: dict[int, list[Seen]] = {}
    for share in seen:
        cores.setdefault(share.core.index, []).append(share)
    together = {index: tuple(cores[index]) for index in sorted(cores)}
    return Facts(network=network, mapping=mapping, profile=profile, wired=wired, seen=seen, cores=together)


def known(wired: Wired, profile: HardwareProfile) -> bool:
    """Whether the layer can be stored in the format the mapping gives it."""
    return wired.form in allowed(wired, profile.memory, width(profile, wired.layer.weight_bits))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listeners:
    """The shares of the layer behind, by chip.

    Shapes: cells, by chip, how many hear each cell (C, h, w), where each neuron has its own axon; positions, by chip and range
    of source channels, how many hear each map position (h, w).
    """

    pool: int
    single: bool
    source: Shape
    cells: dict[int, Counts]
    positions: dict[tuple[int, Range], Counts]

    @classmethod
    def of(cls, wired: Wired, shares: list[tuple[Core, Stored]], profile: HardwareProfile) -> _Listeners:
        single = not by_position(wired.form, profile.memory)
        flat = wired.layer.weight.ndim == 2
        source = (wired.cells[0] // (wired.plane[0] * wired.plane[1]) if flat else wired.cells[0], *wired.plane)
        made = cls(pool=wired.layer.pool, single=single, source=source, cells={}, positions={})
        for core, found in shares:
            rows, cols = heard(wired, 0, core.y), heard(wired, 1, core.x)
            low, high = wired.sources(core.channels)
            if found.hears is not None:
                at = made.cells.setdefault(core.chip, np.zeros(wired.cells, dtype=np.int64))
                at[low:high, rows.cells[:, None], cols.cells] += found.hears[:, rows.of[:, None], cols.of]
            else:
                span = (0, high) if flat else (low, high)
                at = made.positions.setdefault((core.chip, span), np.zeros(wired.plane, dtype=np.int64))
                at[(...,) if flat else (rows.cells[:, None], cols.cells)] += 1
        return made

    def heard(self, core: Core, begins: int) -> Core | None:
        """The channels of a share that are heard, counted from `begins`, where the source of these listeners begins."""
        first, last = (edge - begins for edge in core.channels)
        channels = max(first, 0), min(last, self.source[0])
        return replace(core, channels=channels) if channels[0] < channels[1] else None

    def axons(self, core: Core) -> tuple[int, int]:
        """Axons that leave a share, to listeners on its chip and on others."""
        q = self.pool
        rows, cols = (np.arange(*span) // q for span in (core.y, core.x))
        near = far = 0
        for chip, cells in self.cells.items():
            found = cells.reshape(self.source)
            n = int(found[core.channels[0] : core.channels[1], rows[:, None], cols].sum())
            near, far = (near + n, far) if chip == core.chip else (near, far + n)
        for (chip, (low, high)), positions in self.positions.items():
            if not (low < core.channels[1] and core.channels[0] < high):
                continue
            n = int(positions[rows[:, None], cols].sum())
            near, far = (near + n, far) if chip == core.chip else (near, far + n)
        return near, far


def _measure(
    profile: HardwareProfile, wired: Wired, core: Core, found: Stored, behind: list[tuple[_Listeners, int]]
) -> Seen:
    """What the share really spends."""
    slots = axon_map = 0
    for listeners, begins in behind:
        part = listeners.heard(core, begins)
        if part is None:
            continue
        near, far = listeners.axons(part)
        if not isinstance(memory := profile.memory, BudgetMemory):
            each = memory.slots_discrete if listeners.single else memory.slots_shared
            slots += (near + far) * each.value + far * memory.slots_remote.value
        elif listeners.single:
            axon_map += near + far
        else:
            axon_map += int(np.ceil(round(part.n_neurons * memory.axon_map_per_neuron.value, 6)))
    return Seen(
        core=core,
        wired=wired,
        axons_in=found.axons,
        axons_out=slots,
        groups=_groups(wired.layer, core.channels),
        synapse_words=found.words,
        list_words=found.longest,
        axon_map_words=axon_map,
    )


def _groups(layer: AnyLayer, channels: Range) -> int:
    if isinstance(layer, Readout):
        return 1
    return len(set(layer.neuron.per_channel(layer.weight.shape[0])[channels[0] : channels[1]].tolist()))
