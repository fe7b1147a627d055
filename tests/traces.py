"""How the laws compare two runs of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from toolchain.trace import Trace


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
    for kind in ("active", "wraps", "saturations"):
        ours, theirs = getattr(expected, kind), getattr(actual, kind)
        if ours is not None and theirs is not None:
            pairs.append((kind, ours, theirs))
    for name, ours, theirs in pairs:
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            found.append(f"{name}: {theirs.dtype} {theirs.shape} for {ours.dtype} {ours.shape}")
        elif not np.array_equal(ours, theirs):
            found.append(f"{name}: {np.count_nonzero(ours != theirs)} of {ours.size} differ")
    return found
