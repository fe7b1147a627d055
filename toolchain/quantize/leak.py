"""Leaks in 4096ths of a membrane, and where those are faithful to the float SNN's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.errors import UnsupportedError

if TYPE_CHECKING:
    from toolchain.ir import Layer
    from toolchain.quantize.folded import Folded

WHOLE = 4096


def v_decay(layer: Folded) -> int:
    """Return the leak of a layer's membranes in 4096ths. Raises UnsupportedError where nothing of them would be left."""
    nearest = round(WHOLE * layer.leak)
    if nearest >= WHOLE:
        reason = f"its membranes lose {layer.leak:.6g} of themselves each step, where {WHOLE - 1}/{WHOLE} is the most"
        raise UnsupportedError(where=layer.name, reason=reason)
    return nearest


def check_leak(layer: Folded, found: Layer, greatest: int) -> None:
    """Raise UnsupportedError where a leak of integers costs a membrane more, each step, than the rounding of one weight may.

    Equation: with keeps k of the float neuron and k' of the integer one, errors e follow e' = k' e + (k' - k) v + r, where |r| < 1/64 is
    what a step cuts off. While |v| <= theta, a step adds less than theta |k' - k| + 1/64 to them; a weight off by half a unit adds
    half of the greatest value that its source sends.
    """
    if not layer.leak:
        return
    theta = int(found.neuron.theta.max())
    off, allowed = theta * abs(layer.leak - found.neuron.v_decay / WHOLE) + 1 / 64, greatest / 2
    if off > allowed:
        reason = (
            f"its leak of {layer.leak:.6g} a step becomes {found.neuron.v_decay}/{WHOLE}, which at a theta of {theta:,} costs up to "
            f"{off:.2g} weight units a step, where rounding a weight costs {allowed:g}"
        )
        raise UnsupportedError(
            where=layer.name, reason=reason, remedy="Take a leak nearer to a 4096th or fewer weight bits"
        )
