"""What the page draws and the tables have no room for: each core, each step, the spikes of one image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain import check, placement
    from toolchain.profile import HardwareProfile
    from toolchain.trace import Trace

RASTER_NEURONS = 200
"""Neurons of a layer, at most, that a raster shows."""


def per_core(mapping: placement.Mapping, verdict: check.Verdict, profile: HardwareProfile) -> dict[str, Any]:
    """Return what each core uses of each limited resource: one entry a core in every list, in the order of `core`.

    A limit is what may be planned for, head-room taken off. Resources this chip does not limit are absent; a core that the
    check could not measure has None.
    """
    layers: dict[int, list[str]] = {}
    chips: dict[int, int] = {}
    for core in mapping.cores:
        chips[core.index] = core.chip
        layers.setdefault(core.index, []).append(core.layer)
    order = sorted(chips, key=lambda index: (chips[index], index))
    place = {index: at for at, index in enumerate(order)}
    resources: dict[str, dict[str, Any]] = {}
    for finding in verdict.cores:
        if finding.core is None:
            continue
        empty = {
            "rule": finding.rule,
            "resource": finding.resource,
            "unit": finding.unit,
            "limit": finding.limit,
            "used": [None] * len(order),
        }
        used = resources.setdefault(finding.rule, empty)["used"]
        at = place[finding.core]
        used[at] = finding.used + (used[at] or 0)
    return {
        "per_chip": profile.chip.cores.value,
        "core": order,
        "chip": [chips[index] for index in order],
        "layer": [" + ".join(dict.fromkeys(layers[index])) for index in order],
        "resources": list(resources.values()),
    }


def step_spikes(trace: Trace) -> npt.NDArray[np.int64] | None:
    """Return the spikes of each layer in each step, summed over images; None where the trace does not tell. Shape: (layers, T)."""
    if trace.step_spikes is not None:
        return trace.step_spikes
    if trace.spikes is None:
        return None
    return np.array([spikes.sum(axis=(0, 2, 3, 4), dtype=np.int64) for spikes in trace.spikes])


def raster(trace: Trace, labels: npt.NDArray[np.int64] | None) -> dict[str, Any] | None:
    """Return every spike of the first image in some neurons of each layer, evenly spread in (C, H, W) order.

    None where spikes were not recorded.
    """
    if trace.spikes is None or not trace.n_samples:
        return None
    layers: list[dict[str, Any]] = []
    for name, spikes in zip(trace.layers, trace.spikes, strict=True):
        flat = spikes[0].reshape(len(spikes[0]), -1)
        n_neurons = flat.shape[1]
        shown = min(n_neurons, RASTER_NEURONS)
        chosen = (2 * np.arange(shown) + 1) * n_neurons // (2 * shown)
        trains = flat[:, chosen].T
        layers.append(
            {
                "name": name,
                "n_neurons": n_neurons,
                "n_shown": shown,
                "n_spikes": int(trains.sum()),
                "neurons": chosen.tolist(),
                "spikes": ["".join("01"[int(spike)] for spike in train) for train in trains],
            }
        )
    return {
        "sample": 0,
        "label": None if labels is None else int(labels[0]),
        "class": int(trace.classes()[0]),
        "backend": trace.backend,
        "layers": layers,
    }
