"""NeuroBench's figures of a network, by its definitions, so that they can stand beside those of other work.

Of the network as trained, pools not spread: footprint and connection sparsity count every weight, zeros included. Effective
operations skip zero weights and zero activations; an image is one execution with all its steps; biases do not count. Each
neuron of a pool's cell is an activation of its own, as in network.net, where the pool is spread into the kernel: NeuroBench
sees an unspread average pool's output as no spikes and counts multiply-accumulates there.
Source: Yik et al., The NeuroBench framework, Nature Communications 16, 1545, 2025; neurobench 2.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolchain.counts import fan_out
from toolchain.energy import events, figure
from toolchain.ir import Readout

if TYPE_CHECKING:
    from toolchain.energy import Figure, Run
    from toolchain.ir import Network

SOURCE = "NeuroBench 2.3's definition"


def neurobench(network: Network, run: Run) -> dict[str, Figure]:
    """Return footprint, connection sparsity, activation sparsity and synaptic operations of a run."""
    n_weights = sum(layer.weight.size for layer in network.chain)
    n_zeros = n_weights - sum(int(np.count_nonzero(layer.weight)) for layer in network.chain)
    n_biases = sum(layer.bias.size if isinstance(layer, Readout) else layer.neuron.bias.size for layer in network.chain)
    trace = run.trace
    n_activations = trace.n_samples * network.timesteps * sum(int(np.prod(shape)) for shape in network.shapes[:-1])
    n_spikes = sum(int(counts.sum(dtype=np.int64)) for counts in trace.counts)
    dense, effective = 0, []
    for (layer, source, _), event in zip(network.wired(), events(network, run), strict=True):
        everything = np.ones(layer.weight.shape, dtype=bool)
        dense += int(fan_out(layer, source, everything).sum()) * network.timesteps
        effective.append(float((fan_out(layer, source, layer.weight != 0) * event).sum()))
    messages = "" if run.messages is not None else "; every input message assumed nonzero"
    return {
        "footprint": figure(
            4 * (n_weights + n_biases), "bytes", "counted", f"{SOURCE}; weights and biases as 32 bit floats"
        ),
        "connection_sparsity": figure(n_zeros / n_weights, "1", "counted", f"{SOURCE}; zeros of the integer weights"),
        "activation_sparsity": figure(1 - n_spikes / n_activations, "1", "counted", f"{SOURCE}; {trace.backend}"),
        "effective_macs": figure(
            effective[0],
            "MAC/image",
            "assumed" if messages else "counted",
            f"{SOURCE}; first layer, whose input is no spikes{messages}",
        ),
        "effective_acs": figure(sum(effective[1:]), "AC/image", "counted", f"{SOURCE}; {trace.backend}"),
        "dense": figure(dense, "operations/image", "counted", f"{SOURCE}; every weight and activation"),
    }
