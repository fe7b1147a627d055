"""The energy of the deployed network: counted events times the coefficients of its profile, one published set at a time.

Sets are never mixed. A term whose coefficient nobody published has the value None and is listed as omitted, so that the
totals are those of the known terms. A proxy, another chip's coefficients, is priced only where it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.counts import fan_out
from toolchain.energy.figures import NANOJOULES, cited, events, figure, priced, rates, summed
from toolchain.energy.load import Busy, Load, busy, loads, stores_zeros
from toolchain.ir.parts import parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from toolchain import placement
    from toolchain.energy.figures import Figure, Floats, Run
    from toolchain.ir import AnyLayer, Network, Shape
    from toolchain.profile import Coefficients, HardwareProfile

    Bools = npt.NDArray[np.bool_]

PROXY = "_proxy"
"""Ends the name of a set that is another chip's."""
_UNITS = {
    "synops_nonzero": "synops/image",
    "synops_stored": "synops/image",
    "updates": "updates/image",
    "updates_active": "updates/image",
    "updates_inactive": "updates/image",
    "spikes": "spikes/image",
    "deliveries": "deliveries/image",
}


def hardware(
    network: Network,
    mapping: placement.Mapping,
    profile: HardwareProfile,
    run: Run,
    *,
    t_step_ns: float | None = None,
) -> dict[str, Any]:
    """Return the energy of an image on the profile's chip, layer by layer and term by term, as far as it is published.

    Equation: synops e_syn + active e_act + inactive e_inact + spikes e_spike + deliveries e_message + hops
    + P_static chips steps t_step, with active + inactive = neurons T. Synops are a range: over nonzero weights, and over all
    that the formats store. A delivery is a spike's way to one core that hears it.
    t_step_ns: the time of a step, where the user knows it; else its lower bound from the worst core.
    """
    found = list(loads(network, mapping, events(network, run)))
    layers = _layers(network, mapping, run, found)
    steps = figure(
        network.timesteps + len(network.layers),
        "steps/image",
        "counted",
        "T plus a step of delay for each hidden layer",
    )
    worst, busy_ns = _worst(busy(found, network.timesteps), profile)
    t_step = _t_step(profile, worst.where, busy_ns, t_step_ns)
    latency = None if t_step["value"] is None else steps["value"] * t_step["value"] / 1000
    made = {
        "profile": profile.name,
        "counts": {name: summed(entry[name] for entry in layers) for name in _UNITS},
        "layers": layers,
        "steps": steps,
        "worst_core": {
            "where": worst.where,
            "synops": figure(worst.synops, "synops/step", "modelled", "mean over steps, nonzero synapses of this core"),
            "updates": figure(worst.updates, "updates/step", "counted", "neurons on this core"),
        },
        "t_step": t_step,
        "latency": figure(latency, "us/image", "modelled", f"steps x t_step; t_step: {t_step['source']}"),
        "static": _static(profile, mapping.n_chips, latency),
        "default": profile.energy.default,
    }
    return {**made, "sets": priced_by(made, profile, proxy=False)}


def priced_by(made: Mapping[str, Any], profile: HardwareProfile, *, proxy: bool) -> dict[str, Any]:
    """Return what the events of `hardware` cost by each set of the profile: its own and the default, or its other proxies."""

    def is_proxy(name: str) -> bool:
        return name.endswith(PROXY) and name != profile.energy.default

    chosen = {name: each for name, each in profile.energy.sets.items() if is_proxy(name) == proxy}
    return {name: _set(name, each, made, profile.name) for name, each in chosen.items()}


def _set(name: str, coefficients: Coefficients, made: Mapping[str, Any], chip: str) -> dict[str, Any]:
    """The terms, one set's coefficients times the counts of each layer."""
    parts = [_terms(entry, coefficients) for entry in made["layers"]]
    terms = {term: summed(part[term] for part in parts) for term in parts[0]}
    terms["hops"] = figure(None, NANOJOULES, "modelled", "omitted: cores have no positions on the mesh here")
    terms["static"] = made["static"]
    label, statement = name, f"coefficients of {name}"
    if name.endswith(PROXY):
        owner = name.removesuffix(PROXY)
        label, statement = f"PROXY of {owner}", f"PROXY: coefficients of {owner}, not of {chip}"
    elif all(terms[term]["value"] is None for term in parts[0]):
        label, statement = f"{chip}, unpublished", "coefficients that nobody published"
    dynamic = {term: entry for term, entry in terms.items() if term != "static"}
    return {
        "label": label,
        "statement": statement,
        "terms": terms,
        "dynamic_low": _total(dynamic, "synapses_stored"),
        "dynamic_high": _total(dynamic, "synapses_nonzero"),
        "total_low": _total(terms, "synapses_stored"),
        "total_high": _total(terms, "synapses_nonzero"),
        "omitted": [term for term, entry in terms.items() if entry["value"] is None],
        "layers": [
            {"name": entry["name"], **part, "total": _total(part, "synapses_stored")}
            for entry, part in zip(made["layers"], parts, strict=True)
        ],
    }


_COUNTED = {
    "synapses_nonzero": "synops_nonzero",
    "synapses_stored": "synops_stored",
    "updates_active": "updates_active",
    "updates_inactive": "updates_inactive",
    "spikes": "spikes",
    "deliveries": "deliveries",
}
"""What a term prices."""


def _terms(counts: Mapping[str, Any], each: Coefficients) -> dict[str, Figure]:
    """The terms of one layer in nJ, those that this set has; None, with the reason as its source, where it is not known."""
    synapse = {"shared": each.synapse_shared_pj, "dense": each.synapse_dense_pj}.get(
        counts["format"], each.synapse_sparse_pj
    )
    coefficients = {
        "synapses_nonzero": synapse,
        "synapses_stored": synapse,
        "updates_active": each.update_active_pj,
        "updates_inactive": each.update_inactive_pj,
        "spikes": each.spike_pj,
        "deliveries": each.message_pj,
    }
    return {
        term: priced(counts[_COUNTED[term]], coefficient)
        for term, coefficient in coefficients.items()
        if coefficient is not None
    }


def _layers(network: Network, mapping: placement.Mapping, run: Run, found: list[Load]) -> list[dict[str, Any]]:
    """The events of each layer, an image: those that reach its synapses, its neurons' updates, what its neurons send.

    A layer's relays count with it, and as if stored in its own format.
    """
    trace, chain = run.trace, network.chain
    received = events(network, run)
    sent = [*rates(trace), None]
    layer_of = {part.name: part.index for part in parts(network)}
    arriving = [0.0] * len(chain)
    for load in found:
        arriving[layer_of[load.core.layer]] += load.deliveries
    on_their_way = arriving[1:]
    inputs = "" if run.messages is not None else "; every input message assumed nonzero"
    entries: list[dict[str, Any]] = []
    for index, (layer, source, shape) in enumerate(network.wired()):
        form, last = mapping.formats[layer.name], index == len(chain) - 1
        nonzero = layer.weight != 0
        stored = np.ones_like(nonzero) if stores_zeros(form) else nonzero
        updates = int(np.prod(shape)) * network.timesteps
        active = updates if last else None if trace.active is None else int(trace.active[index].sum()) / trace.n_samples
        spikes = sent[index]
        how = "assumed" if index == 0 and inputs else "counted"
        why = inputs if index == 0 else ""
        known = (
            "neuron-steps with nonzero drive taken as active, readout neurons as always active"
            if active is not None
            else f"{trace.backend} does not count driven neurons"
        )
        values = {
            "synops_nonzero": (
                _synops(layer, source, nonzero, received[index]),
                how,
                f"spikes x nonzero synapses, {trace.backend}{why}",
            ),
            "synops_stored": (
                _synops(layer, source, stored, received[index]),
                how,
                f"spikes x stored synapses, {trace.backend}{why}",
            ),
            "updates": (updates, "counted", "neurons x T"),
            "updates_active": (active, "assumed", known),
            "updates_inactive": (None if active is None else updates - active, "assumed", f"the rest; {known}"),
            "spikes": (0.0 if spikes is None else float(spikes.sum()), "counted", trace.backend),
            "deliveries": (
                0.0 if last else on_their_way[index],
                "counted",
                "spikes x cores that hear them, each part of a layer there apart",
            ),
        }
        figures = {name: figure(value, _UNITS[name], *known_by) for name, (value, *known_by) in values.items()}
        entries.append({"name": layer.name, "format": form, **figures})
    return entries


def _synops(layer: AnyLayer, source: Shape, nonzero: Bools, event: Floats) -> float:
    return float((fan_out(layer, source, nonzero) * event).sum())


def _worst(cores: list[Busy], profile: HardwareProfile) -> tuple[Busy, float | None]:
    """The core whose step takes longest, and how long; where times are unknown, the one with most synops, and None."""
    time = profile.time
    if time.synapse_ns.value is None or time.update_inactive_ns.value is None:
        return max(cores, key=lambda core: (core.synops, core.updates)), None
    t_syn, t_upd = time.synapse_ns.value, time.update_inactive_ns.value
    worst = max(cores, key=lambda core: core.synops * t_syn + core.updates * t_upd)
    return worst, worst.synops * t_syn + worst.updates * t_upd


def _t_step(profile: HardwareProfile, where: str, busy_ns: float | None, given_ns: float | None) -> Figure:
    """The time of a step: as given, or max over cores of (synops t_syn + updates t_upd) + barrier."""
    if given_ns is not None:
        return figure(given_ns, "ns/step", "assumed", "given by the user")
    time = profile.time
    unknown = [q.source for q in (time.synapse_ns, time.update_inactive_ns, time.barrier_ns) if q.value is None]
    if busy_ns is None or time.barrier_ns.value is None:
        return figure(None, "ns/step", "modelled", f"omitted: {unknown[0]}")
    source = f"lower bound: nonzero synops and inactive updates of the worst core, {where}, plus barrier; {time.barrier_ns.source}"
    return figure(busy_ns + time.barrier_ns.value, "ns/step", "modelled", source)


def _static(profile: HardwareProfile, n_chips: int, latency_us: float | None) -> Figure:
    static = profile.energy.static_w
    if static.value is None:
        return figure(None, NANOJOULES, "modelled", f"omitted: {static.source}")
    if latency_us is None:
        return figure(None, NANOJOULES, "modelled", "omitted: the time of a step is unknown")
    reason = f"static power of {n_chips} chip(s) x latency; {cited(static)}"
    return figure(static.value * n_chips * latency_us * 1000, NANOJOULES, "modelled", reason)


def _total(terms: Mapping[str, Figure], without: str) -> Figure:
    """The sum of the known terms, of which `synapses_nonzero` and `synapses_stored` are alternatives."""
    known = {name: term["value"] for name, term in terms.items() if name != without and term["value"] is not None}
    missing = [name for name, term in terms.items() if name != without and term["value"] is None]
    source = f"sum of {', '.join(known) or 'nothing'}" + (f"; without {', '.join(missing)}" if missing else "")
    return figure(sum(known.values()) if known else None, NANOJOULES, "modelled", source)
