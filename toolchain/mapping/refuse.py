"""Why a layer fits no core, and what would help."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import CapacityError
from toolchain.ir import Conv
from toolchain.mapping import cost

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.mapping.fan import Behind
    from toolchain.mapping.job import Job
    from toolchain.profile import HardwareProfile


_FAR = -1
"""A chip that holds nothing of the layer behind"""


def too_large(
    job: Job, forms: tuple[str, ...], caps: cost.Caps, fan: Behind | None, profile: HardwareProfile
) -> CapacityError:
    """The error for a layer of which no core can hold even one neuron, in the format that comes nearest."""

    def excess(load: npt.NDArray[np.int64]) -> tuple[Fraction, int]:
        return max(
            (Fraction(int(used), max(1, int(cap))), -at) for at, (used, cap) in enumerate(zip(load, caps, strict=True))
        )

    for chip in (fan.last_chip, _FAR) if fan else (_FAR,):
        nearest = []
        for form in forms:
            worst = max((_neuron(job, form, fan, place, chip) for place in _places(job, fan, chip)), key=excess)
            nearest.append((excess(worst), form, worst))
        (share, at), form, load = min(nearest, key=lambda found: found[0][0])
        if share > 1:
            break  # even beside what it feeds; else it is the neurons for which that chip has no cores left
    name, resource, unit = cost.RESOURCES[-at]
    used, limit = int(load[-at]), int(caps[-at])
    return CapacityError(
        layer=job.name,
        core=None,
        profile=profile.name,
        resource=f"{resource} for one neuron",
        unit=unit or profile.core.axons_in.unit,
        used=used,
        limit=limit,
        remedy=_remedy(job, form, fan, (name, used, limit)),
    )


def _places(job: Job, fan: Behind | None, chip: int) -> list[tuple[int, int, int]]:
    """Of the neurons of each kind, by channel and by the rows and columns they hear, the one that most axons leave."""
    strips = job.strips(0, 1), job.strips(1, 1)
    alike: list[dict[object, list[int]]] = [{}, {}]
    for kinds, axis in zip(alike, strips, strict=True):
        for at, strip in enumerate(axis):
            kinds.setdefault(strip.kind, []).append(at)
    singly = [[(at, at + 1) for at in range(n)] for n in job.shape]
    slots = fan.sums((singly[1], singly[2], singly[0]), chip) if fan else np.zeros(job.shape, dtype=np.int64)
    places = []
    for rows, cols in product(alike[0].values(), alike[1].values()):
        for c, found in enumerate(slots[:, rows][:, :, cols]):
            y, x = divmod(int(found.argmax()), len(cols))
            places.append((c, rows[y], cols[x]))
    return places


def _neuron(job: Job, form: str, fan: Behind | None, place: tuple[int, int, int], chip: int) -> npt.NDArray[np.int64]:
    c, y, x = place
    rows, cols = job.strips(0, 1)[y], job.strips(1, 1)[x]
    found = cost.synapses(job, form, rows, cols, [(c, c + 1)])
    tile = rows.span, cols.span, (c, c + 1)
    slots = fan.slots(tile, chip) if fan else 0
    return cost.load(job, (int(found.words[0]), int(found.longest[0]), int(found.axons[0])), tile, slots)


def _remedy(job: Job, form: str, fan: Behind | None, beyond: tuple[str, int, int]) -> str:
    """What would help, computed where it can be. beyond: the limit, what is used, and how much there is."""
    layer, (name, used, limit) = job.layer, beyond
    if name == "neurons":
        return "Raise core.max_fill of the profile."
    if name in {"axons_out", "axon_map_words"} and fan:
        return f"The next layer is spread over {fan.n_tiles} cores; prune or narrow it, or use a profile with larger cores."
    if form == "shared" and isinstance(layer, Conv) and name in {"synapse_words", "total_words"}:
        sources = layer.weight.shape[1]
        if keep := sources * limit // used:
            return f"Give {layer.name} {keep} of its {sources} source channels, or use a profile with larger cores."
    if form == "shared" and isinstance(layer, Conv):
        return f"Use a kernel smaller than {layer.weight.shape[2]}x{layer.weight.shape[3]}, or a profile with larger cores."
    more = math.ceil(100 * (1 - Fraction(limit, used)))
    return f"Prune the densest rows of {layer.name} by a further {more} %, or use a profile with larger cores."
