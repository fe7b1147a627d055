"""One network in several situations: as it is, under attack, and with the weights that pruning took away."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import energy, mapping
from toolchain import profile as profiles
from toolchain.errors import CapacityError
from toolchain.memory import memory
from toolchain.profile import ArithmeticProfile, HardwareProfile
from toolchain.report.beside import ratio, ratios
from toolchain.report.detail import step_spikes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from toolchain import placement
    from toolchain.energy import Run
    from toolchain.ir import Network
    from toolchain.profile import AnyProfile, Operations
    from toolchain.trace import Trace

    Bools = npt.NDArray[np.bool_]

CHIPS_ENOUGH = 1024
"""A dense network may take as many chips as it needs: what it needs is the question."""
OVER_CLEAN = "attacked over clean, the same images"
OVER_PRUNED = "dense over pruned, the same spikes assumed"
DENSE = "the network with every weight, assumed to spike as the pruned one does: what its events would cost, not what it would do"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a report is about: a network, its trained masks, and where it sits, or None where its profile has no cores.

    facts: JSON-able facts about the model and its quantization.
    """

    network: Network
    masks: Mapping[str, Bools]
    profile: AnyProfile
    mapping: placement.Mapping | None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """The same images clean and as an attack changed them.

    attack: what made them, in plain types. Shapes: labels (S,).
    """

    attack: Mapping[str, Any]
    clean: Run
    adversarial: Run
    labels: npt.NDArray[np.int64]


def priced(subject: Subject, run: Run, t_step_ns: float | None = None) -> dict[str, Any]:
    """Return the energy of an image by every model; the chip's only where the network is placed on it."""
    network, profile = subject.network, subject.profile
    operations = _operations(profile)
    found = {
        "eq12": energy.eq12(network, subject.masks, run, operations),
        "lemaire": energy.lemaire(network, run, operations),
    }
    if subject.mapping is None or not isinstance(profile, HardwareProfile):
        return found
    return {**found, "hardware": energy.hardware(network, subject.mapping, profile, run, t_step_ns=t_step_ns)}


def _operations(profile: AnyProfile) -> Operations:
    """The arithmetic of papers: the profile's own where it has one, else that of 45 nm."""
    if isinstance(profile, ArithmeticProfile):
        return profile.operations
    generic = profiles.read("generic45")
    assert isinstance(generic, ArithmeticProfile)
    return generic.operations


def under_attack(subject: Subject, attacked: Attacked, t_step_ns: float | None = None) -> dict[str, Any]:
    """Return what the network does and costs on attacked images, and on the same images clean."""
    sides = {"clean": attacked.clean, "adversarial": attacked.adversarial}
    found = {
        name: {
            "activity": activity(subject.network, run.trace),
            "energy": priced(subject, run, t_step_ns),
            "accuracy": outcome(run.trace, attacked.labels),
        }
        for name, run in sides.items()
    }
    clean, adversarial = (found[name] for name in sides)
    spikes = [
        energy.figure(side["activity"]["spikes_per_image"], "spikes/image", "counted", "") for side in found.values()
    ]
    return {
        "attack": dict(attacked.attack),
        **found,
        "ratios": {
            "spikes": ratio(spikes[0], spikes[1], OVER_CLEAN),
            "energy": ratios(clean["energy"], adversarial["energy"], OVER_CLEAN),
        },
    }


def dense_twin(
    subject: Subject, run: Run, energies: Mapping[str, Any], t_step_ns: float | None = None
) -> dict[str, Any]:
    """Return what the network would cost with every weight, as `assumed`: its spikes are those of the pruned one.

    energies: of the pruned network.
    """
    network = _filled(subject.network)
    placed, reason = None, f"networks are not placed on {subject.profile.name}"
    if isinstance(subject.profile, HardwareProfile):
        try:
            placed, reason = mapping.place(network, subject.profile, max_chips=CHIPS_ENOUGH), ""
        except CapacityError as error:
            reason = str(error)
    twin = dataclasses.replace(
        subject,
        network=network,
        masks={layer.name: np.ones(layer.weight.shape, dtype=bool) for layer in network.chain},
        mapping=placed,
    )
    dense = _assumed(priced(twin, run, t_step_ns))
    return {
        "assumption": DENSE,
        "mapping": {
            "n_cores": None if placed is None else len({core.index for core in placed.cores}),
            "n_chips": None if placed is None else placed.n_chips,
            "reason": reason or None,
        },
        "memory": _assumed(memory(network, placed, subject.profile)),
        "energy": dense,
        "ratios": {"energy": ratios(energies, dense, OVER_PRUNED)},
    }


def only(report: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the report with one energy model, in every situation it tells of."""
    return _each_energy(report, lambda made, _assumes: {model: made[model]} if model in made else {})


def with_proxies(report: Mapping[str, Any], profile: HardwareProfile) -> dict[str, Any]:
    """Return the report with another chip's coefficients beside the chip's own, labelled, in every situation it tells of."""

    def priced_twice(made: Mapping[str, Any], assumes: bool) -> dict[str, Any]:
        if "hardware" not in made:
            return dict(made)
        hardware = made["hardware"]
        proxies = energy.priced_by(hardware, profile, proxy=True)
        sets = {**hardware["sets"], **(_assumed(proxies) if assumes else proxies)}
        return {**made, "hardware": {**hardware, "sets": sets}}

    return _each_energy(report, priced_twice)


def _each_energy(
    report: Mapping[str, Any], change: Callable[[Mapping[str, Any], bool], dict[str, Any]]
) -> dict[str, Any]:
    """The report with every section `energy` changed, and the ratios between them made anew. change: also told if it is assumed."""
    made = {**report, "energy": change(report["energy"], False)}
    if report.get("dense"):
        dense = {**report["dense"], "energy": change(report["dense"]["energy"], True)}
        dense["ratios"] = {"energy": ratios(made["energy"], dense["energy"], OVER_PRUNED)}
        made["dense"] = dense
    if report.get("attacked"):
        attacked = dict(report["attacked"])
        for side in ("clean", "adversarial"):
            attacked[side] = {**attacked[side], "energy": change(attacked[side]["energy"], False)}
        between = ratios(attacked["clean"]["energy"], attacked["adversarial"]["energy"], OVER_CLEAN)
        attacked["ratios"] = {**attacked["ratios"], "energy": between}
        made["attacked"] = attacked
    return made


def _filled(network: Network) -> Network:
    """The network with a weight wherever it has a zero."""

    def filled(layer: Any) -> Any:
        return dataclasses.replace(layer, weight=np.where(layer.weight == 0, 1, layer.weight))

    return dataclasses.replace(network, layers=tuple(map(filled, network.layers)), readout=filled(network.readout))


def _assumed(node: Any) -> Any:
    """The same figures, each marked as assumed."""
    match node:
        case {"how": _, "value": _}:
            return {**node, "how": "assumed"}
        case dict():
            return {key: _assumed(child) for key, child in node.items()}
        case list():
            return [_assumed(child) for child in node]
    return node


def outcome(trace: Trace, labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return how often a run was right."""
    right = int((trace.classes() == labels).sum())
    return {"accuracy": right / trace.n_samples, "n": trace.n_samples, "n_right": right, "backend": trace.backend}


def activity(network: Network, trace: Trace) -> dict[str, Any]:
    """Return the spikes of a run, by layer and step."""
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
                "silent_channels": np.flatnonzero(~spikes.any(axis=(0, 2, 3))).tolist(),
                "always_on_channels": np.flatnonzero((spikes == network.timesteps).all(axis=(0, 2, 3))).tolist(),
                "active_share": None if trace.active is None else int(trace.active[index].sum()) / (steps * n_neurons),
                "wraps": None if trace.wraps is None else int(trace.wraps[index].sum()),
                "saturations": None if trace.saturations is None else int(trace.saturations[index].sum()),
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
