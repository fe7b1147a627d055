"""What would make a core's synapses fit, computed: how much more to prune, how narrow the weights, how few sources."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from toolchain.check.lists import stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolchain.check.measure import Seen
    from toolchain.profile import HardwareProfile


def smaller(profile: HardwareProfile, on: Sequence[Seen], cap: int) -> str:
    """The least further pruning of listed synapses, and the widest narrower weights, with which the core's synapses fit."""
    ways = []
    listed = list(dict.fromkeys(seen.core.layer for seen in on if seen.wired.form in {"sparse", "run-length"}))
    percent = _percent(profile, on, cap) if listed else None
    if percent:
        ways.append(f"Prune {' and '.join(listed)} by a further {percent} %")
    widest = max(seen.wired.layer.weight_bits for seen in on)
    for bits in range(widest - 1, 0, -1):
        if _words(profile, on, bits, 1.0) <= cap:
            ways.append(f"{'use' if ways else 'Use'} --weight-bits {bits}")
            break
    return ", ".join([*ways, "or a profile with larger cores."]) if ways else ""


def _percent(profile: HardwareProfile, on: Sequence[Seen], cap: int) -> int | None:
    """By bisection: fewer synapses never take more words."""
    low, high = 0, 100
    if _words(profile, on, 8, 0.01) > cap:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _words(profile, on, 8, 1 - middle / 100) <= cap else (middle, high)
    return high


def _words(profile: HardwareProfile, on: Sequence[Seen], bits: int, keep: float) -> int:
    """Words of the core's synapses with weights no wider than `bits`, of whose listed synapses a share `keep` is left."""
    found = 0
    for seen in on:
        width = min(bits, seen.wired.layer.weight_bits)
        found += stored(profile, seen.wired, seen.core, weight_bits=width, keep=keep).words
    return found


def fewer_sources(on: Sequence[Seen], cap: int) -> str:
    """By how much the sources that a core hears would have to be pruned away; empty where a shared kernel hears them."""
    if any(seen.wired.form == "shared" for seen in on):
        return ""
    used = sum(seen.axons_in for seen in on)
    percent = math.ceil(100 * (1 - Fraction(cap, used)))
    names = " and ".join(dict.fromkeys(seen.core.layer for seen in on))
    return f"Prune {percent} % of the sources of {names} altogether, or use a profile with more input axons."
