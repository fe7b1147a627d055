"""The report as plain types: what was deployed, where it sits, what it did and what that costs.

Figures of `energy` and `memory` are {value, unit, how, source}; a value nobody knows is None, never 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import check, counts, energy
from toolchain.energy import figure
from toolchain.ir import Conv, Dense, Readout
from toolchain.profile import BudgetMemory
from toolchain.profile import quantities as profile_quantities
from toolchain.report.detail import per_core, raster, step_spikes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from toolchain import placement
    from toolchain.export import Deployment
    from toolchain.ir import AnyLayer, Network
    from toolchain.profile import HardwareProfile
    from toolchain.trace import Trace

    Bools = npt.NDArray[np.bool_]

SCHEMA = 1


def build(
    *,
    deployment: Deployment,
    profile: HardwareProfile,
    trace: Trace,
    labels: npt.NDArray[np.int64] | None = None,
    stored_bytes: int | None = None,
    metrics: Mapping[str, Any] | None = None,
    messages: npt.NDArray[np.float64] | None = None,
    t_step_ns: float | None = None,
    recorded: Trace | None = None,
) -> dict[str, Any]:
    """Return the report of a deployment as a trace showed it, JSON-able.

    labels: of the traced images, for the accuracy of the deployed network; stored_bytes: of the exported file; metrics: what
    the training stages measured; messages and t_step_ns as in `energy.hardware`; recorded: the same first images again, with every spike, for the
    raster; by default the trace itself, where it has them.
    """
    network, mapping, masks = deployment.network, deployment.mapping, deployment.masks
    verdict = check.check(network, mapping, profile)
    activity = _activity(network, trace)
    activity["raster"] = raster(recorded or trace, labels)
    hardware = energy.hardware(network, mapping, profile, trace, messages=messages, t_step_ns=t_step_ns)
    activity["synops_per_image"] = {
        which: hardware["counts"][f"synops_{which}"]["value"] for which in ("nonzero", "stored")
    }
    return {
        "schema": SCHEMA,
        "model": _model(deployment.facts.get("model", {}), network, masks),
        "profile": {"name": profile.name, "sha256": profile.sha256, "description": profile.description},
        "input": _input(network, deployment.facts),
        "network": _network(network, masks, deployment.facts.get("quantization", {})),
        "mapping": {**_mapping(mapping, verdict), "cores": per_core(mapping, verdict, profile)},
        "check": verdict.to_dict(),
        "memory": _memory(network, mapping, profile, stored_bytes),
        "activity": activity,
        "energy": {"eq12": energy.eq12(network, masks, trace), "hardware": hardware},
        "accuracy": _accuracy(trace, labels, metrics or {}),
        "assumptions": _assumptions(profile),
    }


def _model(facts: Mapping[str, Any], network: Network, masks: Mapping[str, Bools]) -> dict[str, Any]:
    """What the trained network is; counts are of its masks, whatever rounding did to the weights."""
    n_weights = sum(mask.size for mask in masks.values())
    kept = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    counted = {
        "sparsity": 1 - kept / n_weights,
        "n_weights": n_weights,
        "n_nonzero_weights": kept,
        "T": network.timesteps,
    }
    return {"sha256": None, **facts, **counted}


def _input(network: Network, facts: Mapping[str, Any]) -> dict[str, Any]:
    """How an image reaches the first layer, and what biases changed against messages."""
    coding = network.input.bias
    if coding is None:
        return {"coding": "messages"}
    compared = {"against_messages": facts["against_messages"]} if "against_messages" in facts else {}
    return {"coding": "biases", "limit": coding.limit, "divisor": coding.divisor.tolist(), **compared}


def _network(network: Network, masks: Mapping[str, Bools], quantization: Mapping[str, Any]) -> dict[str, Any]:
    layers: list[dict[str, Any]] = [
        {
            "name": layer.name,
            "kind": _kind(layer),
            "shape": list(shape),
            "pool": layer.pool,
            "n_neurons": int(np.prod(shape)),
            "n_weights": int(layer.weight.size),
            "n_nonzero_weights": int(np.count_nonzero(masks[layer.name])),
            "n_synapses": counts.n_synapses(layer, source, layer.weight != 0),
            "n_synapses_netx": counts.n_synapses_netx(layer, source, layer.weight != 0),
            "weight_bits": layer.weight_bits,
            "theta": _theta(layer),
            "range": _range(quantization.get(layer.name)),
        }
        for layer, source, shape in network.wired()
    ]
    totals = {key: sum(entry[key] for entry in layers) for key in ("n_neurons", "n_synapses", "n_synapses_netx")}
    return {**totals, "layers": layers}


def _kind(layer: AnyLayer) -> str:
    match layer:
        case Conv():
            return "conv"
        case Dense():
            return "dense"
        case Readout():
            return "readout"


def _theta(layer: AnyLayer) -> list[int] | None:
    """Least and greatest threshold; None for a readout, which has none."""
    if isinstance(layer, Readout):
        return None
    return [int(layer.neuron.theta.min()), int(layer.neuron.theta.max())]


def _range(facts: Mapping[str, Any] | None) -> dict[str, list[int]] | None:
    """Least and greatest synaptic sum and state, in weight units, as proven by quantization; None where it did not run."""
    if not facts:
        return None
    return {name: [int(value) for value in bounds] for name, bounds in facts["bounds"].items()}


def _mapping(mapping: placement.Mapping, verdict: check.Verdict) -> dict[str, Any]:
    layers = []
    for name, form in mapping.formats.items():
        n_cores = sum(core.layer == name for core in mapping.cores)
        layers.append(
            {
                "name": name,
                "format": form,
                "n_cores": n_cores,
                "tile": list(mapping.tiles[name]),
                "worst_core": _worst(name, verdict),
            }
        )
    return {"n_cores": len(mapping.cores), "n_chips": mapping.n_chips, "layers": layers}


def _worst(layer: str, verdict: check.Verdict) -> dict[str, Any] | None:
    """The fullest core of a layer and the resource it has least of."""
    full = [entry for entry in verdict.usage if entry.layer == layer and entry.core is not None and entry.limit]
    if not full:
        return None
    entry = max(full, key=lambda use: use.used / use.limit)
    return {
        "core": entry.core,
        "resource": entry.resource,
        "used": entry.used,
        "limit": entry.limit,
        "unit": entry.unit,
        "fill": entry.used / entry.limit,
    }


def _memory(
    network: Network, mapping: placement.Mapping, profile: HardwareProfile, stored_bytes: int | None
) -> dict[str, Any]:
    n_weights = sum(layer.weight.size for layer in network.chain)
    bits = sum(layer.weight.size * layer.weight_bits for layer in network.chain)
    synapses = sum(core.synapse_words for core in mapping.cores)
    words, what = synapses, "synapse words of all cores"
    if isinstance(profile.memory, BudgetMemory):
        words += sum(
            core.axons_in + core.groups + core.n_neurons + core.axon_map_words + core.axon_mem_words
            for core in mapping.cores
        )
        what = "axon, group, neuron, synapse and axon map words of all cores"
    word_bits = profile.memory.word_bits
    formula = f"{what}, by the memory formula of {profile.name}; a shared kernel stores its zeros"
    stored = "size of network.net" if stored_bytes is not None else "not exported"
    return {
        "dense_fp32_bytes": figure(4 * n_weights, "bytes", "counted", "weights x 4 bytes, zeros included"),
        "dense_integer_bytes": figure(-(-bits // 8), "bytes", "counted", "weights x weight bits, zeros included"),
        "stored_bytes": figure(stored_bytes, "bytes", "counted", stored),
        "on_chip_words": figure(words, "words", "modelled", formula),
        "on_chip_synapse_words": figure(
            synapses, "words", "modelled", formula.replace(what, "synapse words of all cores")
        ),
        "on_chip_bytes": figure(
            words * word_bits.value / 8,
            "bytes",
            "modelled",
            f"on_chip_words x {word_bits.value} bits [{word_bits.status}]: {word_bits.source}",
        ),
    }


def _activity(network: Network, trace: Trace) -> dict[str, Any]:
    steps = trace.n_samples * network.timesteps
    per_step = step_spikes(trace)
    layers: list[dict[str, Any]] = []
    for index, (name, spikes) in enumerate(zip(trace.layers, trace.counts, strict=True)):
        n_neurons = int(np.prod(network.shapes[index]))
        total = int(spikes.sum(dtype=np.int64))
        layers.append(
            {
                "name": name,
                "spikes_per_image": total / trace.n_samples,
                "spikes_per_step": None if per_step is None else (per_step[index] / trace.n_samples).tolist(),
                "rate": total / (steps * n_neurons),
                "silent_neurons": int((spikes.sum(axis=0, dtype=np.int64) == 0).sum()),
                "active_share": None if trace.active is None else int(trace.active[index]) / (steps * n_neurons),
                "wraps": None if trace.wraps is None else int(trace.wraps[index]),
                "saturations": None if trace.saturations is None else int(trace.saturations[index]),
            }
        )
    return {
        "backend": trace.backend,
        "samples": trace.n_samples,
        "spikes_per_image": sum(entry["spikes_per_image"] for entry in layers),
        "layers": layers,
        "silent": [entry["name"] for entry in layers if entry["rate"] == 0],
        "always_on": [entry["name"] for entry in layers if entry["rate"] == 1],
    }


def _accuracy(trace: Trace, labels: npt.NDArray[np.int64] | None, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured; empty where nothing was."""
    accuracy: dict[str, Any] = {}
    if labels is not None:
        right = int((trace.classes() == labels).sum())
        accuracy["deployed"] = {
            "accuracy": right / trace.n_samples,
            "n": trace.n_samples,
            "n_right": right,
            "backend": trace.backend,
        }
    if metrics:
        accuracy["stages"] = dict(metrics)
    return accuracy


def _assumptions(profile: HardwareProfile) -> list[dict[str, Any]]:
    """What the figures rest on: statements of this project, then the profile's numbers that nobody published as such.

    The numbers of one status and source stand together.
    """
    project = [
        "No figure was measured on a chip by this project; spikes come from the backend named in activity.",
        "eq. 12 counts additions of the trained network; it is not hardware energy.",
        "A pool's neurons address one input axon of their cell.",
        "A neuron-step counts as active where its drive is not zero; readout neurons always.",
    ]
    numbers: dict[tuple[str, str], dict[str, Any]] = {}
    for path, quantity, _ in profile_quantities(profile):
        if quantity.status in {"assumed", "fitted"}:
            numbers.setdefault((quantity.status, quantity.source), {})[path] = quantity.value
    return [
        *({"statement": line, "status": "assumed", "source": "this project"} for line in project),
        *({"numbers": found, "status": status, "source": source} for (status, source), found in numbers.items()),
    ]
