"""Why a layer fits no core, and what would help."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from toolchain.errors import CapacityError
from toolchain.ir import Conv
from toolchain.mapping.cost import RESOURCES, conv_parts, excess, list_parts, strips

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.mapping.cost import Caps, Job, Part
    from toolchain.profile import HardwareProfile


def too_large(job: Job, caps: Caps, profile: HardwareProfile) -> CapacityError:
    """The error for a layer of which no core can hold even one neuron."""
    part, name = _smallest(job, caps)
    used, limit = getattr(part.load, name), caps[name]
    resource, unit = RESOURCES[name]
    return CapacityError(
        layer=job.layer.name,
        core=None,
        profile=profile.name,
        resource=f"{resource} for one neuron",
        unit=unit or profile.core.axons_in.unit,
        used=used,
        limit=limit,
        remedy=_remedy(job, name, used, limit),
    )


def _smallest(job: Job, caps: Caps) -> tuple[Part, str]:
    """Of the tiles of one neuron, the one furthest beyond a limit, and that limit."""
    parts = _single(job)
    beyond = [(part, name) for part in parts if (name := excess(part.load, caps))]
    return max(beyond, key=lambda item: Fraction(getattr(item[0].load, item[1]), max(1, caps[item[1]])))


def _single(job: Job) -> Iterator[Part]:
    """The layer cut into single neurons."""
    if not isinstance(job.layer, Conv):
        return list_parts(job, "sparse", 1)
    (_, height, width), (_, n_rows, n_cols) = job.shape, job.cells
    rows, cols = strips(job.layer, 0, height, n_rows, 1), strips(job.layer, 1, width, n_cols, 1)
    return conv_parts(job, job.layer, rows, cols, 1)


def _remedy(job: Job, name: str, used: int, limit: int) -> str:
    """What would help, computed where it can be."""
    layer = job.layer
    if name == "neurons":
        return "Raise core.max_fill of the profile."
    if name in {"axons_out", "axon_map_words"} and job.fan:
        return f"The next layer is spread over {job.fan.n_cores} cores; prune or narrow it, or use a profile with larger cores."
    if isinstance(layer, Conv) and name in {"synapse_words", "total_words"}:
        sources = layer.weight.shape[1]
        if keep := sources * limit // used:
            return f"Give {layer.name} {keep} of its {sources} source channels, or use a profile with larger cores."
    if isinstance(layer, Conv):
        return f"Use a kernel smaller than {layer.weight.shape[2]}x{layer.weight.shape[3]}, or a profile with larger cores."
    more = math.ceil(100 * (1 - Fraction(limit, used)))
    return f"Prune the densest rows of {layer.name} by a further {more} %, or use a profile with larger cores."
