"""Eq. 12 of the papers: the additions of the trained network and what they cost as arithmetic, not as hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.counts import fan_out
from toolchain.energy.figures import cited, figure, priced, rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from toolchain.energy.figures import Figure, Floats, Run
    from toolchain.ir import AnyLayer, Network, Shape
    from toolchain.profile import Operations, Quantity

    Bools = npt.NDArray[np.bool_]

EQ12 = "sum over neurons of psi x spikes (eq. 12 of the robust sparse conversion literature), psi from the trained mask"


def psi(layer: AnyLayer, source: Shape, mask: Bools) -> Floats:
    """Nonzero trained synapses that leave each neuron of the source, divided by the area of the layer's pool.

    Equation: psi_i = d sum(layer(x, mask)) / d x_i with an average pool, exact at the borders.
    Shapes: source (C, H, W) -> (C, H, W); mask like the layer's weight.
    """
    return fan_out(layer, source, mask) / layer.pool**2


def eq12(network: Network, masks: Mapping[str, Bools], run: Run, operations: Operations) -> dict[str, Any]:
    """Return additions and their energy, an image. The first layer's input is analog: its MACs stand apart.

    masks: per layer name, True for a trained synapse; some of these may have rounded to a weight of zero.
    """
    wired = list(network.wired())
    trace = run.trace
    layers: list[dict[str, Any]] = []
    for name, (layer, source, _), spikes in zip(trace.layers, wired[1:], rates(trace), strict=True):
        outgoing = psi(layer, source, masks[layer.name])
        additions = figure(float((outgoing * spikes).sum()), "additions/image", "counted", EQ12)
        entry = {
            "name": name,
            "spikes": figure(float(spikes.sum()), "spikes/image", "counted", trace.backend),
            "psi_mean": figure(float(outgoing.mean()), "synapses/neuron", "counted", EQ12),
            "additions": additions,
            "fp32": priced(additions, operations.fp32_add_pj),
            "int32": priced(additions, operations.int32_add_pj),
        }
        layers.append(entry)
    additions = figure(sum(entry["additions"]["value"] for entry in layers), "additions/image", "counted", EQ12)
    first, source, _ = wired[0]
    macs = int(fan_out(first, source, masks[first.name]).sum()) * network.timesteps
    return {
        "additions": additions,
        "fp32": _arithmetic(additions, operations.fp32_add_pj),
        "int32": _arithmetic(additions, operations.int32_add_pj),
        "input_macs": figure(macs, "MAC/image", "counted", "first layer, analog input, every step; not part of eq. 12"),
        "layers": layers,
    }


def _arithmetic(additions: Figure, each: Quantity[float | None]) -> Figure:
    found = priced(additions, each)
    if found["value"] is None:
        return found
    return {**found, "source": f"{EQ12}; {cited(each)}. Arithmetic only, not hardware energy"}
