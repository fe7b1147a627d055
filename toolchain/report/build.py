"""The report as plain types: what was deployed, where it sits, what it did and what that costs.

Figures of `energy` and `memory` are {value, unit, how, source}; a value nobody knows is None, never 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import check, counts
from toolchain.ir import Conv, Dense, Readout
from toolchain.memory import memory
from toolchain.neurobench import neurobench
from toolchain.profile import HardwareProfile
from toolchain.profile import quantities as profile_quantities
from toolchain.report.detail import per_core, raster
from toolchain.report.relays import relays
from toolchain.report.scenarios import Attacked, Subject, activity, dense_twin, outcome, priced, under_attack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from toolchain import placement
    from toolchain.energy import Run
    from toolchain.ir import AnyLayer, Network
    from toolchain.profile import AnyProfile
    from toolchain.trace import Trace

    Bools = npt.NDArray[np.bool_]

SCHEMA = 2


def build(
    subject: Subject,
    run: Run,
    *,
    labels: npt.NDArray[np.int64] | None = None,
    stored_bytes: int | None = None,
    metrics: Mapping[str, Any] | None = None,
    t_step_ns: float | None = None,
    recorded: Trace | None = None,
    attacked: Attacked | None = None,
) -> dict[str, Any]:
    """Return the report of a network as a run showed it, JSON-able.

    labels: of the images run, for the accuracy of the deployed network; stored_bytes: of the exported file; metrics: what
    the training stages measured; t_step_ns as in `energy.hardware`; recorded: the same first images again, with every
    spike, for the raster, by default the run itself, where it has them; attacked: the network on images made against it.
    """
    network, masks, profile, trace = subject.network, subject.masks, subject.profile, run.trace
    found = activity(network, trace)
    found["raster"] = raster(recorded or trace, labels)
    energies = priced(subject, run, t_step_ns)
    return {
        "schema": SCHEMA,
        "model": _model(subject.facts.get("model", {}), network, masks),
        "profile": {"name": profile.name, "sha256": profile.sha256, "description": profile.description},
        "input": _input(network, subject.facts),
        "network": _network(network, masks, subject.facts.get("quantization", {})),
        **_placed(subject),
        "relays": relays(subject, trace),
        "memory": memory(network, subject.mapping, profile, stored_bytes=stored_bytes),
        "activity": found,
        "energy": energies,
        "neurobench": neurobench(network, run),
        "attacked": None if attacked is None else under_attack(subject, attacked, t_step_ns),
        "dense": dense_twin(subject, run, energies, t_step_ns),
        "accuracy": _accuracy(trace, labels, metrics or {}),
        "context": _context(profile),
        "assumptions": _assumptions(profile, subject.facts.get("notes", ())),
    }


def _placed(subject: Subject) -> dict[str, Any]:
    """Where the network sits and whether that keeps the limits; unknown, with the reason, where it is not placed."""
    placed, profile = subject.mapping, subject.profile
    if placed is None or not isinstance(profile, HardwareProfile):
        reason = f"networks are not placed on {profile.name}"
        return {
            "mapping": {"n_cores": None, "n_chips": None, "layers": [], "reason": reason},
            "check": {"profile": profile.name, "ok": None, "violations": [], "usage": []},
        }
    verdict = check.check(subject.network, placed, profile)
    return {
        "mapping": {**_mapping(placed, verdict), "cores": per_core(placed, verdict, profile)},
        "check": verdict.to_dict(),
    }


def _model(facts: Mapping[str, Any], network: Network, masks: Mapping[str, Bools]) -> dict[str, Any]:
    """What the trained network is: as its facts tell, else by its masks, whatever rounding did to the weights."""
    n_weights = sum(mask.size for mask in masks.values())
    kept = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    counted = {
        "sparsity": 1 - kept / n_weights,
        "n_weights": n_weights,
        "n_nonzero_weights": kept,
        "T": network.timesteps,
    }
    return {"sha256": None, **counted, **facts}


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
            "rounded_away": quantization.get(layer.name, {}).get("rounded_away"),
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
        n_cores = len({core.index for core in mapping.cores if core.layer == name})
        layers.append(
            {
                "name": name,
                "format": form,
                "n_cores": n_cores,
                "tile": list(mapping.tiles[name]),
                "worst_core": _worst(name, verdict),
            }
        )
    return {"n_cores": mapping.n_cores, "n_chips": mapping.n_chips, "layers": layers}


def _worst(layer: str, verdict: check.Verdict) -> dict[str, Any] | None:
    """The fullest core of a layer and the resource it has least of."""
    full = [
        entry for entry in verdict.usage if layer in entry.layer.split(" + ") and entry.core is not None and entry.limit
    ]
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


def _accuracy(trace: Trace, labels: npt.NDArray[np.int64] | None, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured; empty where nothing was."""
    accuracy: dict[str, Any] = {}
    if labels is not None:
        accuracy["deployed"] = outcome(trace, labels)
    if metrics:
        accuracy["stages"] = dict(metrics)
    return accuracy


def _context(profile: AnyProfile) -> list[dict[str, Any]]:
    """What others measured on the chip, of another network: to know the scale by, not an estimate of this one."""
    if not isinstance(profile, HardwareProfile) or profile.anchor is None:
        return []
    return [
        {"what": what, "value": found.value, "unit": found.unit, "status": found.status, "source": found.source}
        for path, found, what in profile_quantities(profile)
        if path.startswith("anchor.")
    ]


def _assumptions(profile: AnyProfile, notes: Sequence[str]) -> list[dict[str, Any]]:
    """What the figures rest on: statements of this project, what was taken for the network's, then the profile's numbers that nobody published as such.

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
        *({"statement": line, "status": "assumed", "source": "this project"} for line in (*project, *notes)),
        *({"numbers": found, "status": status, "source": source} for (status, source), found in numbers.items()),
    ]
