"""The first layer where a chip takes no messages: the host sends it biases, at a scale and a threshold of their own.

A layer found as if for messages becomes one whose drive is divided by a whole number, so that its threshold is a bias too.
What is lost is the remainder of that division, and nothing is clipped that a spike depends on (see `ir.BiasCoding`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir import BIAS_MAX, THETA_MAX, WEIGHT_BITS_MAX, BiasCoding
from toolchain.quantize.ranges import bounds
from toolchain.quantize.scale import Widths

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from toolchain.ir import Input, Layer
    from toolchain.quantize.scale import LayerFacts, Probe

    Ints = npt.NDArray[np.int32]

HOST = Widths(weight_bits=WEIGHT_BITS_MAX, bias_max=BIAS_MAX, theta_max=THETA_MAX)
"""What the layer's integers may be on the host, whatever the chip stores."""
_DIVISORS = 4
"""Divisors tried, from the least that brings the threshold within the limit."""


def driven_layer(layer: Layer, facts: LayerFacts, limit: int, probe: Probe) -> tuple[Layer, Input, LayerFacts]:
    """Return the layer at the threshold, and the input at the divisor, that cost the fewest spikes on the probe's images.

    limit: of a bias, and so of the threshold.
    """
    found: tuple[Layer, Input, LayerFacts] | None = None
    for divisor, theta in _scales(layer.neuron.theta, limit):
        candidate = replace(layer, neuron=replace(layer.neuron, theta=theta))
        source = replace(probe.source, bias=BiasCoding(divisor=divisor, limit=limit))
        network = replace(probe, source=source).network(candidate)
        trace = probe.run(network, probe.images, record=True)
        assert trace.spikes is not None
        differing = float(np.mean(trace.spikes[-1] != probe.expected))
        if found is None or differing < (found[2].spikes_differing or 0):
            new = replace(facts, bounds=bounds(network, 0), spikes_differing=differing)
            found = candidate, source, new
    assert found
    return found


def _scales(theta: Ints, limit: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield divisors with the thresholds next to the quotients, the finest first. Shapes: theta () or (C,), as both."""
    least = -(-theta // limit)
    for divisor in (least + more for more in range(_DIVISORS)):
        low = np.maximum(theta // divisor, 1)
        for quotient in (low, np.minimum(low + 1, limit)):
            yield np.asarray(divisor), np.asarray(quotient)
