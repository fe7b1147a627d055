"""Neurons to cores: each layer is cut into equal tiles, as few as the limits of a core allow.

A convolution keeps one shared kernel a core; a dense layer is stored as dense or as sparse synapse lists, whichever
takes fewer cores (then fewer words, then dense). Layers are planned from the last to the first, because what a core spends
on its output axons depends on the cores it feeds. The cost of planning grows with tiles and stored weights, never with
unrolled connections. docs/hardware.md explains each formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import CapacityError
from toolchain.ir import WEIGHT_BITS_MAX, Conv
from toolchain.mapping.cost import Fan, Job, caps_of, conv_parts, excess, list_parts, spans, strips
from toolchain.mapping.refuse import too_large
from toolchain.placement import Core, Mapping
from toolchain.profile import ListMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.ir import Network
    from toolchain.mapping.cost import Caps, Counts, Part, Strip
    from toolchain.profile import HardwareProfile, Precision

    Tile = tuple[int, int, int]

__all__ = ["place"]


def place(network: Network, profile: HardwareProfile, *, max_chips: int = 1) -> Mapping:
    """Return where each neuron sits: the fewest equal tiles a layer that exceed no limit of the profile.

    Raises: CapacityError where no tile can hold a layer, or all layers together need more cores than max_chips have.
    """
    per_chip = profile.chip.cores.value
    plans = _plans(network, profile)
    if max_chips > 1 and _n_cores(plans) > per_chip:
        plans = _plans(network, profile, several_chips=True)
    if _n_cores(plans) > max_chips * per_chip:
        raise _too_many(network, plans, profile, max_chips)
    return Mapping(
        profile=profile.name,
        profile_sha256=profile.sha256,
        formats={plan.job.layer.name: plan.form for plan in plans},
        tiles={plan.job.layer.name: plan.tile for plan in plans},
        cores=_cores(plans, profile),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A layer cut into tiles of one size, stored in one format."""

    job: Job
    form: str
    tile: Tile
    parts: tuple[Part, ...]


def _plans(
    network: Network, profile: HardwareProfile, *, several_chips: bool = False, bits: int = WEIGHT_BITS_MAX
) -> list[_Plan]:
    """The best plan of each layer, its weights at most `bits` wide.

    On several chips every axon is charged as one that leaves its chip.
    """
    caps = caps_of(profile)
    plans: list[_Plan] = []
    fan: Fan | None = None
    for layer, source, shape in reversed(list(network.wired())):
        stored = _stored_bits(profile.precision, min(bits, layer.weight_bits))
        driven = network.is_driven(layer)
        job = Job(layer=layer, source=source, shape=shape, bits=stored, memory=profile.memory, fan=fan, driven=driven)
        plans.insert(0, _best(job, caps, profile))
        fan = _fan(plans[0], several_chips=several_chips)
    return plans


def _stored_bits(precision: Precision, bits: int) -> int:
    """The least width the profile can store a weight of `bits` in."""
    widths = precision.weight_widths.value if precision.weight_widths else (bits,)
    return min((width for width in widths if width >= bits), default=bits)


def _best(job: Job, caps: Caps, profile: HardwareProfile) -> _Plan:
    """The plan with the fewest cores. Raises CapacityError."""
    if isinstance(job.layer, Conv):
        plans = [_best_conv(job, job.layer, caps)]
    else:
        plans = [_best_lists(job, form, caps) for form in (("bias",) if job.driven else ("dense", "sparse"))]
    found = [plan for plan in plans if plan]
    if not found:
        raise too_large(job, caps, profile)
    return min(found, key=lambda plan: (len(plan.parts), _words(plan)))


def _words(plan: _Plan) -> int:
    return sum(part.load.synapse_words for part in plan.parts)


def _sizes(n: int) -> list[int]:
    """Tile sizes worth trying: the least for each number of tiles, falling."""
    return sorted({-(-n // tiles) for tiles in range(1, n + 1)}, reverse=True)


def _best_conv(job: Job, layer: Conv, caps: Caps) -> _Plan | None:
    """The fewest tiles that fit; among as many, the fewest spatial ones, which store the kernel fewer times."""
    channels, height, width = job.shape

    def order(tile: Tile) -> tuple[int, int, int]:
        ny, nx, nc = -(-height // tile[0]), -(-width // tile[1]), -(-channels // tile[2])
        return ny * nx * nc, ny * nx, ny

    rows = {size: strips(layer, 0, height, job.cells[1], size) for size in _sizes(height)}
    cols = {size: strips(layer, 1, width, job.cells[2], size) for size in _sizes(width)}
    tiles = (tile for tile in product(rows, cols, _sizes(channels)) if math.prod(tile) <= caps["neurons"])
    for tile in sorted(tiles, key=order):
        parts = _fitting(conv_parts(job, layer, rows[tile[0]], cols[tile[1]], tile[2]), caps)
        if parts:
            return _Plan(job=job, form="bias" if job.driven else "shared", tile=tile, parts=parts)
    return None


def _best_lists(job: Job, form: str, caps: Caps) -> _Plan | None:
    for size in _sizes(job.shape[0]):
        if size <= caps["neurons"] and (parts := _fitting(list_parts(job, form, size), caps)):
            return _Plan(job=job, form=form, tile=(1, 1, size), parts=parts)
    return None


def _fitting(parts: Iterator[Part], caps: Caps) -> tuple[Part, ...]:
    """All parts, or none as soon as one exceeds a limit."""
    kept = []
    for part in parts:
        if excess(part.load, caps):
            return ()
        kept.append(part)
    return tuple(kept)


def _fan(plan: _Plan, *, several_chips: bool) -> Fan:
    """How this layer listens to the one before it."""
    layer, (_, height, width) = plan.job.layer, plan.job.source
    near = remote = 0
    if isinstance(memory := plan.job.memory, ListMemory):
        near = (memory.slots_shared if plan.form == "shared" else memory.slots_discrete).value
        remote = memory.slots_remote.value if several_chips else 0
    if not isinstance(layer, Conv):
        ones = np.ones(0, dtype=np.int64)
        return Fan(rows=ones, cols=ones, channels=(), n_cores=len(plan.parts), slots=near + remote, near=near)
    _, n_rows, n_cols = plan.job.cells
    rows = _heard(strips(layer, 0, plan.job.shape[1], n_rows, plan.tile[0]), n_rows, layer.pool, height)
    cols = _heard(strips(layer, 1, plan.job.shape[2], n_cols, plan.tile[1]), n_cols, layer.pool, width)
    inside, outside = layer.weight.shape[1], layer.weight.shape[0] // layer.groups
    channels = tuple(
        (first // outside * inside, ((last - 1) // outside + 1) * inside)
        for first, last in spans(plan.job.shape[0], plan.tile[2])
    )
    return Fan(rows=rows, cols=cols, channels=channels, n_cores=len(plan.parts), slots=near + remote, near=near)


def _heard(strips: list[Strip], n_cells: int, pool: int, n: int) -> Counts:
    """In how many strips each unpooled source row is heard. Shape: (n,)."""
    counts = np.zeros(n_cells, dtype=np.int64)
    for strip in strips:
        counts[list(strip.heard)] += 1
    return counts.repeat(pool)[:n]


def _cores(plans: list[_Plan], profile: HardwareProfile) -> tuple[Core, ...]:
    """The cores in layer order, chip after chip."""
    placed: list[Core] = []
    one_chip = _n_cores(plans) <= profile.chip.cores.value
    for plan in plans:
        for part in plan.parts:
            load, fan = part.load, plan.job.fan
            axons_out = load.axons_out // fan.slots * fan.near if fan and fan.slots and one_chip else load.axons_out
            core = Core(
                index=len(placed),
                chip=len(placed) // profile.chip.cores.value,
                layer=plan.job.layer.name,
                y=part.y,
                x=part.x,
                channels=part.c,
                axons_in=load.axons_in,
                axons_out=axons_out,
                groups=load.groups,
                synapse_words=load.synapse_words,
                axon_map_words=load.axon_map_words,
                axon_mem_words=load.axon_mem_words,
            )
            placed.append(core)
    return tuple(placed)


def _n_cores(plans: list[_Plan]) -> int:
    return sum(len(plan.parts) for plan in plans)


def _too_many(network: Network, plans: list[_Plan], profile: HardwareProfile, max_chips: int) -> CapacityError:
    """The error for a network that needs more cores than its chips have, with the weight bits at which it would fit."""
    used, per_chip = _n_cores(plans), profile.chip.cores.value
    largest = max(plans, key=lambda plan: len(plan.parts))
    ways = [f"--max-chips {-(-used // per_chip)}"]
    several = max_chips > 1
    for bits in range(max(layer.weight_bits for layer in network.chain) - 1, 0, -1):
        if _n_cores(_plans(network, profile, several_chips=several, bits=bits)) <= max_chips * per_chip:
            ways.append(f"--weight-bits {bits}")
            break
    return CapacityError(
        layer="network",
        core=None,
        profile=profile.name,
        resource="cores",
        unit="cores",
        used=used,
        limit=max_chips * per_chip,
        remedy=f"Use {' or '.join(ways)}, or shrink {largest.job.layer.name}, which takes {len(largest.parts)}.",
    )
