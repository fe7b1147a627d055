"""What reaches each core: synaptic operations and deliveries of spikes, summed over taps, never unrolled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.counts import reach
from toolchain.ir import Conv
from toolchain.ir.parts import parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from toolchain import placement
    from toolchain.energy.figures import Floats
    from toolchain.ir import Network, Shape

    Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one layer's share of a core receives, an image: events x nonzero synapses, and deliveries, events that reach it at all."""

    core: placement.Core
    synops: float
    deliveries: float


def stores_zeros(form: str) -> bool:
    """Whether a format keeps a synapse for a weight of zero, so that an event reads it."""
    return form in {"shared", "dense"}


def loads(network: Network, mapping: placement.Mapping, events: list[Floats]) -> Iterator[Load]:
    """Yield the load of every share of a layer, in the mapping's order.

    Shapes: events (C, H, W) of each layer's source, over T steps.
    """
    wired = {
        part.name: (part.layer, part.source, _pooled(events[part.index][slice(*part.heard)], part.layer.pool))
        for part in parts(network)
    }
    windows: dict[tuple[str, placement.Range, placement.Range], _Window] = {}
    for core in mapping.cores:
        layer, source, cells = wired[core.layer]
        part = layer.weight[slice(*core.channels)] != 0
        everything = stores_zeros(mapping.formats[core.layer])
        if not isinstance(layer, Conv):
            fan = part.sum(axis=0)
            arriving = cells.ravel() if everything else cells.ravel()[fan > 0]
            yield Load(core=core, synops=float((fan * cells.ravel()).sum()), deliveries=float(arriving.sum()))
            continue
        key = (core.layer, core.y, core.x)
        if key not in windows:
            windows[key] = _window(layer, source, cells, core)
        window, fan = windows[key], _per_source(layer, part, core.channels)
        deliveries = _heard(layer, core.channels, window) if everything else _listed(fan, window, cells)
        yield Load(core=core, synops=float((fan * window.events).sum()), deliveries=deliveries)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """What a tile sees of its source, by tap and as a whole.

    Shapes: events (Cin, kh, kw); seen (Cin,), all events that any tap leads in; rows (kh, H) and cols (kw, W), 1 where a tap
    leads in.
    """

    events: Floats
    seen: Floats
    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]


def _window(layer: Conv, source: Shape, cells: Floats, core: placement.Core) -> _Window:
    rows, cols = reach(layer, source, 0, core.y), reach(layer, source, 1, core.x)
    events = np.einsum("ky,cyx,lx->ckl", rows, cells, cols, optimize=True)
    seen = cells[:, rows.any(axis=0)][:, :, cols.any(axis=0)].sum(axis=(1, 2))
    return _Window(events=events, seen=seen, rows=rows, cols=cols)


def _heard(layer: Conv, channels: placement.Range, window: _Window) -> float:
    """Events of all source channels of the groups that some output channels belong to."""
    inside, outside = layer.weight.shape[1], layer.weight.shape[0] // layer.groups
    first, last = channels[0] // outside, (channels[1] - 1) // outside + 1
    return float(window.seen[first * inside : last * inside].sum())


def _listed(fan: npt.NDArray[np.int64], window: _Window, cells: Floats) -> float:
    """Events of the source neurons that have a synapse here."""
    reached = np.einsum("ckl,ky,lx->cyx", fan, window.rows, window.cols, optimize=True) > 0
    return float((reached * cells).sum())


def _pooled(event: Floats, pool: int) -> Floats:
    channels, height, width = event.shape
    pooled: Floats = event.reshape(channels, height // pool, pool, width // pool, pool).sum(axis=(2, 4))
    return pooled


def _per_source(layer: Conv, part: Bools, channels: tuple[int, int]) -> npt.NDArray[np.int64]:
    """True entries for some output channels by source channel and tap. Shape: (Cin, kh, kw)."""
    if layer.groups == 1:
        return np.asarray(part.sum(axis=0, dtype=np.int64))
    _, inside, *kernel = layer.weight.shape
    counts = np.zeros((layer.groups, inside, *kernel), dtype=np.int64)
    np.add.at(counts, np.arange(*channels) // (layer.weight.shape[0] // layer.groups), part)
    return counts.reshape(-1, *kernel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """A core's work in a step, the shares of all its layers together. where: its number and layers."""

    where: str
    synops: float
    updates: int


def busy(found: Iterable[Load], timesteps: int) -> list[Busy]:
    """Return the work of every core in a step, mean over the steps of an image."""
    shares: dict[int, list[Load]] = {}
    for load in found:
        shares.setdefault(load.core.index, []).append(load)
    return [
        Busy(
            where=f"core {index} ({' + '.join(dict.fromkeys(load.core.layer for load in held))})",
            synops=sum(load.synops for load in held) / timesteps,
            updates=sum(load.core.n_neurons for load in held),
        )
        for index, held in shares.items()
    ]
