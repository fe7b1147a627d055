"""Lemaire 2022: operations, addressing and memory accesses of an ideal event-driven processor in 45 nm.

Per layer, an image, with theta spikes coming in, S = sum of spikes x nonzero synapses, N neurons, T steps, theta_out spikes
going out::

    operations   S + N T (if it has a bias) + theta_out additions; of analog input the S are multiply-accumulates
    addressing   S additions, and for a convolution 2 theta multiply-accumulates
    inputs       theta reads                     of a queue of 1000 messages; analog input is read from the image
    weights      S reads, and N T of biases      of a memory of the nonzero weights and the biases
    potentials   S + N T reads and as many writes    of a memory of N potentials
    outputs      theta_out writes                of a queue of 1000 messages

Everything is a 32 bit word, and an access costs piecewise linearly in the size of its memory. The paper counts the whole
kernel of each spike; here a tap is counted where it leads to a neuron and its weight is not zero, and what it takes to find
the nonzero weights is not priced.
Source: Lemaire et al., An Analytical Estimation of Spiking Neural Networks Energy Efficiency, arXiv 2210.13107, eq. 5-20.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.counts import fan_out
from toolchain.energy.figures import NANOJOULES, cited, events, figure, rates, summed
from toolchain.ir import Conv, Readout

if TYPE_CHECKING:
    from toolchain.energy.figures import Figure, Run
    from toolchain.ir import AnyLayer, Network
    from toolchain.profile import Operations

WORD_BYTES = 4
QUEUE_MESSAGES = 1000
TERMS = ("operations", "addressing", "inputs", "weights", "potentials", "outputs")
SOURCE = "Lemaire et al., arXiv 2210.13107; 45 nm, 32 bit"


def lemaire(network: Network, run: Run, operations: Operations) -> dict[str, Any]:
    """Return the energy of an image by layer and term. Their sums are the terms, and the sum of these the total."""
    trace = run.trace
    layers: list[dict[str, Any]] = []
    sent = [*rates(trace), np.zeros(1)]
    for (layer, source, shape), event, spikes in zip(network.wired(), events(network, run), sent, strict=True):
        work = _Work(
            theta=float(event.sum()),
            synops=float((fan_out(layer, source, layer.weight != 0) * event).sum()),
            neurons=int(np.prod(shape)),
            timesteps=network.timesteps,
            out=float(spikes.sum()),
            pixels=int(np.prod(source)) if layer is network.chain[0] else None,
        )
        found = _terms(layer, work, operations)
        layers.append({"name": layer.name, **found, "total": summed(found.values())})
    terms = {name: summed(entry[name] for entry in layers) for name in TERMS}
    total = summed(terms.values())
    if total["value"] is not None:
        what = f"sum of {', '.join(TERMS)}; {SOURCE}; {trace.backend}. Not the energy of any chip"
        total = {**total, "source": what}
    return {"total": total, "terms": terms, "layers": layers}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What a layer does an image. pixels: of the image, where the layer reads analog input."""

    theta: float
    synops: float
    neurons: int
    timesteps: int
    out: float
    pixels: int | None


def _terms(layer: AnyLayer, work: _Work, operations: Operations) -> dict[str, Figure]:
    """The terms of one layer."""
    updates = work.neurons * work.timesteps
    bias = layer.bias if isinstance(layer, Readout) else layer.neuron.bias
    biased, n_biases = (updates, bias.size) if bias.any() else (0, 0)
    leaking = updates if not isinstance(layer, Readout) and layer.neuron.leaks else 0
    added, multiplied = (work.synops, 0.0) if work.pixels is None else (0.0, work.synops)
    located = 2 * work.theta if isinstance(layer, Conv) else 0.0
    n_relays = layer.n_relays if isinstance(layer, Conv) else 0
    n_weights = int(np.count_nonzero(layer.weight)) + n_relays + n_biases
    into = QUEUE_MESSAGES if work.pixels is None else work.pixels
    return {
        "operations": _arithmetic(added + biased + work.out, multiplied + leaking, operations),
        "addressing": _arithmetic(work.synops, located, operations),
        "inputs": _accesses(work.theta, into, operations),
        "weights": _accesses(work.synops + biased, n_weights, operations),
        "potentials": _accesses(2 * (work.synops + updates), work.neurons, operations),
        "outputs": _accesses(work.out, QUEUE_MESSAGES, operations),
    }


def _arithmetic(additions: float, macs: float, operations: Operations) -> Figure:
    """Additions and multiply-accumulates of 32 bit integers."""
    add, multiply = operations.int32_add_pj, operations.int32_mul_pj
    unknown = next((each for each in (add, multiply) if each.value is None), None)
    if unknown:
        return figure(None, NANOJOULES, "modelled", f"omitted: {unknown.source}")
    each_add, each_multiply = add.value or 0.0, multiply.value or 0.0
    value = (additions + macs) * each_add + macs * each_multiply
    return figure(value / 1000, NANOJOULES, "modelled", f"{SOURCE}; {cited(add)}; {cited(multiply)}")


def _accesses(count: float, words: int, operations: Operations) -> Figure:
    """Accesses to a memory of some words."""
    points, status = operations.sram_access_pj, operations.sram_access_pj.status
    value = count * access_pj(words * WORD_BYTES, operations) / 1000
    source = f"{SOURCE}; an access by the size of its memory [{status}]: {points.source}"
    return figure(value, NANOJOULES, "modelled", source)


def access_pj(n_bytes: int, operations: Operations) -> float:
    """An access to a memory of this size: linear from (0, 0) through the published points, and on beyond the last."""
    sizes = (0, *operations.sram_bytes.value)
    prices = (0.0, *operations.sram_access_pj.value)
    if n_bytes <= sizes[-1]:
        return float(np.interp(n_bytes, sizes, prices))
    slope = (prices[-1] - prices[-2]) / (sizes[-1] - sizes[-2])
    return float(prices[-1] + slope * (n_bytes - sizes[-1]))
