"""How the laws compare two runs of a network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.emulate import reference

if TYPE_CHECKING:
    from networks import Case

    from toolchain.trace import Trace


def expected(case: Case) -> Trace:
    """Return what the reference makes of a case, every spike and every count included."""
    network, trace = case.network, reference.run(case.network, case.images, record=True)
    messages = network.input.encode(case.images)[:, None].repeat(network.timesteps, axis=1)
    synops = []
    for (layer, source, _), signal in zip(network.wired(), (messages, *trace.spikes), strict=True):
        connected = replace(layer, weight=(layer.weight != 0).astype(int))
        events = (signal != 0).reshape(-1, *source).astype(np.int64)
        reached = reference.synapses(connected, events).reshape(*signal.shape[:2], -1)
        synops.append(reached.sum(axis=(0, 2)))
    if network.input.bias:  # the host computes what the first layer's synapses would
        synops[0] = np.zeros_like(synops[0])
    step_spikes = np.array([spikes.sum(axis=(0, 2, 3, 4)) for spikes in trace.spikes])
    return replace(trace, step_spikes=step_spikes, synops=np.array(synops))


def differences(expected: Trace, actual: Trace) -> list[str]:
    """Return what differs, every spike included: nothing where the runs are the same. Tallies count where both have them."""
    found = [] if expected.layers == actual.layers else [f"layers {actual.layers}"]
    pairs = [("logits", expected.logits, actual.logits)]
    for kind in ("counts", "spikes"):
        ours, theirs = getattr(expected, kind), getattr(actual, kind)
        if ours is None or theirs is None or len(ours) != len(theirs):
            found.append(f"{kind} not comparable")
            continue
        pairs += [(f"{kind} of layer {index}", *pair) for index, pair in enumerate(zip(ours, theirs, strict=True))]
    for kind in ("step_spikes", "active", "wraps", "saturations", "synops"):
        ours, theirs = getattr(expected, kind), getattr(actual, kind)
        if ours is not None and theirs is not None:
            pairs.append((kind, ours, theirs))
    for name, ours, theirs in pairs:
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            found.append(f"{name}: {theirs.dtype} {theirs.shape} for {ours.dtype} {ours.shape}")
        elif not np.array_equal(ours, theirs):
            found.append(f"{name}: {np.count_nonzero(ours != theirs)} of {ours.size} differ")
    return found
