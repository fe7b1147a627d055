"""What a run costs: counted events times published coefficients, each figure with how it is known and its source.

Two models that must not be confused. `eq12` prices the additions of the trained network as the literature does; it is
arithmetic, not hardware. `hardware` prices the events of the deployed network by what its profile knows; a term whose
coefficient nobody published has the value None and is listed as omitted, so that the totals are those of the known terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.counts import fan_out, reach
from toolchain.ir import Conv

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from toolchain import placement
    from toolchain.ir import AnyLayer, Network, Shape
    from toolchain.profile import HardwareProfile, Quantity
    from toolchain.trace import Trace

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]
    Figure = dict[str, Any]

FP32_ADD_PJ = 0.9
INT32_ADD_PJ = 0.1
HOROWITZ = "Horowitz, Computing's energy problem, ISSCC 2014, 45 nm"
EQ12 = "sum over neurons of psi x spikes (eq. 12 of the robust sparse conversion literature), psi from the trained mask"


def figure(value: float | None, unit: str, how: str, source: str) -> Figure:
    """A number as reports carry it. how: counted, modelled or assumed; value None is n/a."""
    return {"value": value, "unit": unit, "how": how, "source": source}


def psi(layer: AnyLayer, source: Shape, mask: Bools) -> Floats:
    """Nonzero trained synapses that leave each neuron of the source, divided by the area of the layer's pool.

    Equation: psi_i = d sum(layer(x, mask)) / d x_i with an average pool, exact at the borders.
    Shapes: source (C, H, W) -> (C, H, W); mask like the layer's weight.
    """
    return fan_out(layer, source, mask) / layer.pool**2


def rates(trace: Trace) -> tuple[Floats, ...]:
    """Spikes of each neuron over the T steps, mean over the images. Shapes: (C, H, W) per hidden layer."""
    return tuple(counts.mean(axis=0, dtype=np.float64) for counts in trace.counts)


def eq12(network: Network, masks: Mapping[str, Bools], trace: Trace) -> dict[str, Any]:
    """Return additions and their energy, an image. The first layer's input is analog: its MACs stand apart.

    masks: per layer name, True for a trained synapse; some of these may have rounded to a weight of zero.
    """
    wired = list(network.wired())
    layers: list[dict[str, Any]] = []
    for name, (layer, source, _), spikes in zip(trace.layers, wired[1:], rates(trace), strict=True):
        outgoing = psi(layer, source, masks[layer.name])
        entry = {
            "name": name,
            "spikes": figure(float(spikes.sum()), "spikes/image", "counted", trace.backend),
            "psi_mean": figure(float(outgoing.mean()), "synapses/neuron", "counted", EQ12),
            "additions": figure(float((outgoing * spikes).sum()), "additions/image", "counted", EQ12),
        }
        layers.append(entry)
    additions = sum(entry["additions"]["value"] for entry in layers)
    first, source, _ = wired[0]
    macs = int(fan_out(first, source, masks[first.name]).sum()) * network.timesteps
    return {
        "additions": figure(additions, "additions/image", "counted", EQ12),
        "fp32": _picojoules(additions, FP32_ADD_PJ, "fp32"),
        "int32": _picojoules(additions, INT32_ADD_PJ, "int32"),
        "input_macs": figure(macs, "MAC/image", "counted", "first layer, analog input, every step; not part of eq. 12"),
        "layers": layers,
    }


def _picojoules(additions: float, each: float, kind: str) -> Figure:
    source = f"{EQ12}; {each} pJ an {kind} addition: {HOROWITZ}. Arithmetic only, not hardware energy"
    return figure(additions * each / 1000, "nJ/image", "modelled", source)


def hardware(
    network: Network,
    mapping: placement.Mapping,
    profile: HardwareProfile,
    trace: Trace,
    *,
    messages: Floats | None = None,
    t_step_ns: float | None = None,
) -> dict[str, Any]:
    """Return the energy of an image on the profile's chip, term by term, as far as coefficients are published.

    Equation: synops e_syn + active e_act + inactive e_inact + spikes (e_spike + hops e_hop) + P_static chips steps t_step,
    with active + inactive = neurons T. Synops are a range: over nonzero weights, and over all that the formats store.
    messages: mean count of nonzero input messages a pixel sends over T steps, (C, H, W); by default every one is nonzero.
    t_step_ns: the time of a step, where the user knows it; else its lower bound from the worst core.
    """
    spikes = _events(network, trace, messages)
    counts = _counts(network, mapping, trace, spikes, measured=messages is not None)
    steps = figure(
        network.timesteps + len(network.layers),
        "steps/image",
        "counted",
        "T plus a step of delay for each hidden layer",
    )
    t_step = _t_step(network, mapping, profile, spikes, t_step_ns)
    latency = None if t_step["value"] is None else steps["value"] * t_step["value"] / 1000
    terms = _terms(counts, profile, mapping.n_chips, latency)
    omitted = [name for name, term in terms.items() if term["value"] is None]
    return {
        "profile": profile.name,
        "counts": counts,
        "steps": steps,
        "t_step": t_step,
        "latency": figure(latency, "us/image", "modelled", f"steps x t_step; t_step: {t_step['source']}"),
        "terms": terms,
        "total_low": _total(terms, "synapses_stored"),
        "total_high": _total(terms, "synapses_nonzero"),
        "omitted": omitted,
    }


def _events(network: Network, trace: Trace, messages: Floats | None) -> list[Floats]:
    """Events of each source over T steps, mean over images: input messages first, then each hidden layer's spikes."""
    if network.input.bias:  # the host computes what drives the first layer; nothing is sent
        messages = np.zeros(network.input.shape)
    elif messages is None:
        messages = np.full(network.input.shape, float(network.timesteps))
    return [messages, *rates(trace)]


def _counts(
    network: Network, mapping: placement.Mapping, trace: Trace, events: list[Floats], *, measured: bool
) -> dict[str, Figure]:
    """Events an image."""
    nonzero = stored = 0.0
    for (layer, source, _), event in zip(network.wired(), events, strict=True):
        everything = np.ones(layer.weight.shape, dtype=bool)
        sparse = mapping.formats[layer.name] == "sparse"
        nonzero += float((fan_out(layer, source, layer.weight != 0) * event).sum())
        stored += float((fan_out(layer, source, layer.weight != 0 if sparse else everything) * event).sum())
    inputs = "input messages counted" if measured else "every input message assumed nonzero"
    how = "counted" if measured else "assumed"
    updates = sum(int(np.prod(shape)) for shape in network.shapes) * network.timesteps
    active = _active(network, trace)
    interpretation = "neuron-steps with nonzero drive taken as active, readout neurons as always active"
    counted = f"{interpretation}; {trace.backend}"
    if active is None:
        counted = f"{trace.backend} does not count driven neurons"
    return {
        "synops_nonzero": figure(nonzero, "synops/image", how, f"spikes x nonzero synapses, {trace.backend}; {inputs}"),
        "synops_stored": figure(stored, "synops/image", how, f"spikes x stored synapses, {trace.backend}; {inputs}"),
        "spikes": figure(float(sum(e.sum() for e in events[1:])), "spikes/image", "counted", trace.backend),
        "updates": figure(updates, "updates/image", "counted", "neurons x T"),
        "updates_active": figure(active, "updates/image", "assumed", counted),
        "updates_inactive": figure(
            None if active is None else updates - active, "updates/image", "assumed", f"the other updates; {counted}"
        ),
    }


def _active(network: Network, trace: Trace) -> float | None:
    if trace.active is None:
        return None
    readout = int(np.prod(network.shapes[-1])) * network.timesteps
    return float(trace.active.sum()) / trace.n_samples + readout


def _terms(
    counts: Mapping[str, Figure], profile: HardwareProfile, n_chips: int, latency_us: float | None
) -> dict[str, Figure]:
    """Each term in nJ, or None with the reason as its source."""
    energy = profile.energy.coefficients
    terms = {
        "synapses_nonzero": _term(counts["synops_nonzero"], energy.synapse_shared_pj),
        "synapses_stored": _term(counts["synops_stored"], energy.synapse_shared_pj),
        "updates_active": _term(counts["updates_active"], energy.update_active_pj),
        "updates_inactive": _term(counts["updates_inactive"], energy.update_inactive_pj),
        "spikes": _term(counts["spikes"], energy.spike_pj),
        "hops": figure(None, "nJ/image", "modelled", "omitted: cores have no positions on the mesh here"),
    }
    static = profile.energy.static_w
    value, reason = None, "omitted: the time of a step is unknown"
    if static.value is None:
        reason = f"omitted: {static.source}"
    elif latency_us is not None:
        value = static.value * n_chips * latency_us * 1000
        reason = f"static power of {n_chips} chip(s) x latency; {static.value} {static.unit} [{static.status}]: {static.source}"
    terms["static"] = figure(value, "nJ/image", "modelled", reason)
    return terms


def _term(count: Figure, each: Quantity[float | None] | None) -> Figure:
    if each is None:
        return figure(None, "nJ/image", "modelled", "omitted: no part of this set of coefficients")
    if each.value is None:
        return figure(None, "nJ/image", "modelled", f"omitted: {each.source}")
    if count["value"] is None:
        return figure(None, "nJ/image", "modelled", f"omitted: {count['source']}")
    source = f"{each.value} {each.unit} [{each.status}]: {each.source}; {count['source']}"
    return figure(count["value"] * each.value / 1000, "nJ/image", "modelled", source)


def _total(terms: Mapping[str, Figure], without: str) -> Figure:
    """The sum of the known terms, of which `synapses_nonzero` and `synapses_stored` are alternatives."""
    known = {name: term["value"] for name, term in terms.items() if name != without and term["value"] is not None}
    missing = [name for name, term in terms.items() if name != without and term["value"] is None]
    source = f"sum of {', '.join(known) or 'nothing'}" + (f"; without {', '.join(missing)}" if missing else "")
    return figure(sum(known.values()) if known else None, "nJ/image", "modelled", source)


def _t_step(
    network: Network,
    mapping: placement.Mapping,
    profile: HardwareProfile,
    events: list[Floats],
    given_ns: float | None,
) -> Figure:
    """The time of a step: as given, or max over cores of (synops t_syn + updates t_upd) + barrier."""
    if given_ns is not None:
        return figure(given_ns, "ns/step", "assumed", "given by the user")
    time = profile.time
    unknown = [q.source for q in (time.synapse_ns, time.update_inactive_ns, time.barrier_ns) if q.value is None]
    if unknown:
        return figure(None, "ns/step", "modelled", f"omitted: {unknown[0]}")
    t_syn, t_upd, barrier = ((q.value or 0.0) for q in (time.synapse_ns, time.update_inactive_ns, time.barrier_ns))
    worst, at = 0.0, ""
    for core, synops in core_synops(network, mapping, events):
        busy = synops / network.timesteps * t_syn + core.n_neurons * t_upd
        if busy > worst:
            worst, at = busy, f"core {core.index} ({core.layer})"
    source = f"lower bound: nonzero synops and inactive updates of the worst core, {at}, plus barrier; {time.barrier_ns.source}"
    return figure(worst + barrier, "ns/step", "modelled", source)


def core_synops(
    network: Network, mapping: placement.Mapping, events: list[Floats]
) -> Iterator[tuple[placement.Core, float]]:
    """Yield each core with the events x nonzero synapses that reach it, an image.

    Shapes: events (C, H, W) of each layer's source, over T steps.
    """
    wired = {
        layer.name: (layer, source, event) for (layer, source, _), event in zip(network.wired(), events, strict=True)
    }
    windows: dict[tuple[str, tuple[int, int], tuple[int, int]], Floats] = {}
    for core in mapping.cores:
        layer, source, event = wired[core.layer]
        part = layer.weight[slice(*core.channels)] != 0
        if not isinstance(layer, Conv):
            yield core, float((part.sum(axis=0) * _pooled(event, layer.pool).ravel()).sum())
            continue
        key = (core.layer, core.y, core.x)
        if key not in windows:
            rows, cols = reach(layer, source, 0, core.y), reach(layer, source, 1, core.x)
            cells = _pooled(event, layer.pool)
            windows[key] = np.einsum("ky,cyx,lx->ckl", rows, cells, cols, optimize=True)
        yield core, float((_per_source(layer, part, core.channels) * windows[key]).sum())


def _pooled(event: Floats, pool: int) -> Floats:
    channels, height, width = event.shape
    pooled: Floats = event.reshape(channels, height // pool, pool, width // pool, pool).sum(axis=(2, 4))
    return pooled


def _per_source(layer: Conv, part: Bools, channels: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Nonzero weights of some output channels by source channel and tap. Shape: (Cin, kh, kw)."""
    _, inside, *kernel = layer.weight.shape
    counts = np.zeros((layer.groups, inside, *kernel), dtype=np.int64)
    np.add.at(counts, np.arange(*channels) // (layer.weight.shape[0] // layer.groups), part)
    return counts.reshape(-1, *kernel)
