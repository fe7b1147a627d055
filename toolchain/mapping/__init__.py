"""Neurons to cores: each layer is cut into tiles, stored in its best format, and laid onto as few cores as its limits allow.

Layers are placed from the last to the first, because what a core spends on its output axons depends on the cores it feeds.
The cost of placing grows with neurons and with tiles times stored weights, never with unrolled connections.
docs/hardware.md explains each formula.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

from toolchain.errors import CapacityError
from toolchain.ir import WEIGHT_BITS_MAX
from toolchain.ir.parts import parts
from toolchain.mapping import balance, cost
from toolchain.mapping.fan import Behind
from toolchain.mapping.fill import Floor
from toolchain.mapping.job import Job
from toolchain.mapping.refuse import too_large
from toolchain.mapping.tiles import best
from toolchain.placement import Core, Mapping
from toolchain.profile import ListMemory

if TYPE_CHECKING:
    from collections.abc import Mapping as Table

    from toolchain.ir import Network
    from toolchain.mapping.fan import Fan
    from toolchain.mapping.fill import Plan, Share
    from toolchain.placement import Pools
    from toolchain.profile import HardwareProfile, Precision

    Formats = Table[str, str]

__all__ = ["place"]


def place(
    network: Network,
    profile: HardwareProfile,
    *,
    max_chips: int = 1,
    pools: Pools = "merged",
    formats: Formats | None = None,
) -> Mapping:
    """Return where each neuron sits, on few cores, no limit of the profile exceeded.

    pools: `expanded` places what netx would write, every pool spread into its kernel. formats: of layers whose synapses shall
    be stored so; every other layer takes its best.
    Raises: CapacityError where no core can hold a layer, or all layers together need more cores than max_chips have.
    """
    placed = network if pools == "merged" else network.without_pools()
    plans, floor = _laid(placed, profile, formats or {})
    if floor.n_cores > max_chips * profile.chip.cores.value:
        raise _too_many(placed, (plans, floor), profile, max_chips, formats or {})
    return Mapping(
        profile=profile.name,
        profile_sha256=profile.sha256,
        pools=pools,
        formats={plan.job.name: plan.form for plan in plans},
        tiles={plan.job.name: plan.tile for plan in plans},
        cores=_cores(floor, plans),
    )


def _laid(
    network: Network, profile: HardwareProfile, formats: Formats, bits: int = WEIGHT_BITS_MAX
) -> tuple[list[Plan], Floor]:
    """Every layer's plan and the filled cores, its weights at most `bits` wide. Raises CapacityError."""
    caps = cost.caps_of(profile)
    jobs = []
    for part in parts(network):
        stored = _stored_bits(profile.precision, min(bits, part.layer.weight_bits))
        driven = network.is_driven(part.layer)
        job = Job.of(part, stored, profile.memory, driven=driven)
        jobs.append((job, (formats[job.name],) if job.name in formats and not driven else cost.formats(job)))
    together = caps[cost.LAYERS] > 1 and not network.relays
    floor = _balanced(jobs, caps, profile.chip.cores.value) if together else None
    if floor:
        return floor
    alone = Floor(caps, profile.chip.cores.value)
    return _one_by_one(alone, jobs, profile), alone


_TRIES = tuple(product((0.9, 0.5), (2, 4)))
"""What no formula tells: the share of a core's output slots that a layer's mean tile may need, the fullest tiles needing more;
and into how many parts a tile may be broken. The fewest cores are kept."""
_SPARE = 1.04
"""Cores opened for each that the scarcest resource fills: packing leaves gaps."""


def _balanced(
    jobs: list[tuple[Job, tuple[str, ...]]], caps: cost.Caps, per_chip: int
) -> tuple[list[Plan], Floor] | None:
    """Layers laid side by side onto shared cores, or None where their tiles find no room."""
    if not isinstance(jobs[0][0].memory, ListMemory):
        return None
    chain = [(job, balance.options(job, forms, caps)) for job, forms in jobs]
    best: tuple[list[Plan], Floor] | None = None
    for margin, least_part in _TRIES:
        chosen = balance.choose(chain, caps, margin, remote=False)
        if chosen and chosen[1] * _SPARE > per_chip:
            chosen = balance.choose(chain, caps, margin, remote=True)
        if chosen is None:
            continue
        plans, filled = chosen
        floor = Floor(caps, per_chip, n_cores=math.ceil(filled * _SPARE), least_part=least_part)
        if _lay_all(floor, plans) and (best is None or floor.n_cores < best[1].n_cores):
            best = plans, floor
        if best and best[1].n_cores <= math.ceil(filled):
            break
    return best


def _lay_all(floor: Floor, plans: list[Plan]) -> bool:
    """Whether every tile of the plans found room."""
    behind: Behind | None = None
    for plan in reversed(plans):
        fan = floor.lay(plan, behind)
        if fan is None:
            return False
        behind = Behind([(fan, 0)])
    return True


def _one_by_one(floor: Floor, jobs: list[tuple[Job, tuple[str, ...]]], profile: HardwareProfile) -> list[Plan]:
    """Each layer's best plan, from the last to the first, all of them laid. Raises CapacityError."""
    plans: list[Plan] = []
    laid: list[tuple[Job, Fan]] = []
    for job, forms in reversed(jobs):
        behind = _behind(job, laid)
        fan = None
        for chip in (floor.chip, None):
            plan = best(job, forms, floor.caps, (behind, chip) if behind else None)
            fan = floor.lay(plan, behind) if plan else None
            if plan and fan:
                plans.insert(0, plan)
                break
        if fan is None:
            raise too_large(job, forms, floor.caps, behind, profile)
        laid.append((job, fan))
    return plans


def _behind(job: Job, laid: list[tuple[Job, Fan]]) -> Behind | None:
    """What of the layer behind listens to a part, None for the last layer."""
    first, last = job.part.channels
    listeners = [
        (fan, other.part.heard[0] - first)
        for other, fan in laid
        if other.part.index == job.part.index + 1 and other.part.heard[0] < last and first < other.part.heard[1]
    ]
    return Behind(listeners) if listeners else None


def _stored_bits(precision: Precision, bits: int) -> int:
    """The least width the profile can store a weight of `bits` in."""
    widths = precision.weight_widths.value if precision.weight_widths else (bits,)
    return min((width for width in widths if width >= bits), default=bits)


def _cores(floor: Floor, plans: list[Plan]) -> tuple[Core, ...]:
    """The shares in the order of layers and places; cores are numbered as they come, the first layer's chip first."""
    order = {plan.job.name: index for index, plan in enumerate(plans)}
    full = [core for core, shares in enumerate(floor.shares) if shares]
    chips = sorted({floor.chip_of(core) for core in full}, reverse=True)
    full.sort(key=lambda core: (-floor.chip_of(core), min(_place(order, share) for share in floor.shares[core])))
    shares = [
        (share, index, chips.index(floor.chip_of(core)))
        for index, core in enumerate(full)
        for share in floor.shares[core]
    ]
    return tuple(
        Core(
            index=index,
            chip=chip,
            layer=share.job.name,
            y=share.y,
            x=share.x,
            channels=share.c,
            axons_in=int(share.load[cost.IN]),
            axons_out=int(share.load[cost.OUT]),
            groups=int(share.load[cost.GROUPS]),
            synapse_words=int(share.load[cost.WORDS]),
            axon_map_words=int(share.load[cost.MAP]),
            axon_mem_words=int(share.load[cost.MEM]),
        )
        for share, index, chip in sorted(shares, key=lambda item: _place(order, item[0]))
    )


def _place(order: dict[str, int], share: Share) -> tuple[int, ...]:
    return order[share.job.name], share.y[0], share.x[0], share.c[0]


def _too_many(
    network: Network, laid: tuple[list[Plan], Floor], profile: HardwareProfile, max_chips: int, formats: Formats
) -> CapacityError:
    """The error for a network that needs more cores than its chips have, with the weight bits at which it would fit."""
    plans, floor = laid
    used, per_chip = floor.n_cores, profile.chip.cores.value
    ways = [f"--max-chips {-(-used // per_chip)}"]
    for bits in range(max(layer.weight_bits for layer in network.chain) - 1, 0, -1):
        if _laid(network, profile, formats, bits)[1].n_cores <= max_chips * per_chip:
            ways.append(f"--weight-bits {bits}")
            break
    n_cores = {plan.job.name: 0 for plan in plans}
    for shares in floor.shares:
        for name in {share.job.name for share in shares}:
            n_cores[name] += 1
    largest = max(n_cores, key=lambda name: n_cores[name])
    return CapacityError(
        layer="network",
        core=None,
        profile=profile.name,
        resource="cores",
        unit="cores",
        used=used,
        limit=max_chips * per_chip,
        remedy=f"Use {' or '.join(ways)}, or shrink {largest}, which takes {n_cores[largest]}.",
    )
