"""What a residual network pays for being a chain: neurons that only pass spikes on, and kernels that stand in several layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.energy import figure
from toolchain.ir import Conv
from toolchain.ir.parts import relay_name

if TYPE_CHECKING:
    from toolchain.ir import Network
    from toolchain.report.scenarios import Subject
    from toolchain.trace import Trace

COMPOSED = "nonzero weights of the layers beyond those of the trained model: kernels composed into several layers"


def relays(subject: Subject, trace: Trace) -> dict[str, Any] | None:
    """Return what relays take: neurons, spikes, cores, memory and repeated weights; None for a network without any."""
    network = subject.network
    if not network.relays:
        return None
    layers = list(_layers(network, trace))
    neurons, spikes = (sum(entry[key] for entry in layers) for key in ("n_neurons", "spikes"))
    trained = subject.facts.get("model", {}).get("n_nonzero_weights")
    kept = sum(int(np.count_nonzero(mask)) for mask in subject.masks.values())
    n_neurons = sum(int(np.prod(shape)) for shape in network.shapes[:-1])
    n_spikes = sum(int(counts.sum(dtype=np.int64)) for counts in trace.counts) / trace.n_samples
    return {
        "neurons": figure(neurons, "neurons", "counted", "channels that send a spike of their source on"),
        "neurons_share": figure(neurons / n_neurons, "1", "counted", "of all hidden neurons"),
        "spikes": figure(spikes, "spikes/image", "counted", trace.backend),
        "spikes_share": figure(
            spikes / n_spikes if n_spikes else None, "1", "counted", f"of all spikes, {trace.backend}"
        ),
        "repeated_weights": figure(None if trained is None else kept - trained, "weights", "counted", COMPOSED),
        **_placed(subject),
        "layers": layers,
    }


def _layers(network: Network, trace: Trace) -> list[dict[str, Any]]:
    found = []
    for layer, shape, counts in zip(network.layers, network.shapes, trace.counts, strict=False):
        if isinstance(layer, Conv) and layer.n_relays:
            spikes = int(counts[:, len(layer.weight) :].sum(dtype=np.int64)) / trace.n_samples
            n_neurons = layer.n_relays * shape[1] * shape[2]
            found.append({"name": layer.name, "n_neurons": n_neurons, "spikes": spikes})
    return found


def _placed(subject: Subject) -> dict[str, Any]:
    """The cores that hold relays and the words of their synapses; None where the network is not placed."""
    if subject.mapping is None:
        nothing = f"omitted: not placed on {subject.profile.name}"
        return {
            "cores": figure(None, "cores", "modelled", nothing),
            "synapse_words": figure(None, "words", "modelled", nothing),
        }
    names = {relay_name(layer.name) for layer in subject.network.layers}
    held = [core for core in subject.mapping.cores if core.layer in names]
    return {
        "cores": figure(
            len({core.index for core in held}), "cores", "modelled", "cores that hold relays, alone or with others"
        ),
        "synapse_words": figure(
            sum(core.synapse_words for core in held),
            "words",
            "modelled",
            f"synapse words by the memory formula of {subject.profile.name}",
        ),
    }
