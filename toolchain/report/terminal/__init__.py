"""The report as tables on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.text import Text

from toolchain.report.losses import idle_channels, lost_weights
from toolchain.report.terminal.costs import attacked, energy
from toolchain.report.terminal.tables import figures_table, table
from toolchain.report.words import NOT_KNOWN, number, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType

    from toolchain.report.terminal.tables import Notes


def render(report: Mapping[str, Any], console: Console | None = None) -> None:
    """The report is on the console, stdout by default; what is unknown reads n/a. A section it lacks is left out."""
    console = console or Console()
    notes: Notes = {}
    parts = (_head, _input, _layers, _cores, _memory, _relays, _activity, energy, attacked, _neurobench, _accuracy)
    console.print(Group(*(item for part in parts for item in part(report, notes))))
    console.print(Group(*_sources(notes), *_assumptions(report)))


def _head(report: Mapping[str, Any], _notes: Notes) -> Iterator[RenderableType]:
    model, network, mapping = report["model"], report["network"], report["mapping"]
    name = model.get("name", "model")
    cores, chips = (number(mapping[key]) for key in ("n_cores", "n_chips"))
    where = mapping["reason"] if mapping["n_cores"] is None else f"{cores} cores on {chips} chip(s)"
    yield Text(f"{name} on {report['profile']['name']}", style="bold")
    yield Text(
        f"{model['sparsity']:.2%} sparse: {model['n_nonzero_weights']:,} of {model['n_weights']:,} weights; T = {model['T']}; "
        f"{network['n_neurons']:,} neurons, {network['n_synapses']:,} synapses ({network['n_synapses_netx']:,} in the netx "
        f"file); {where}"
    )
    for violation in report["check"]["violations"]:
        yield Text(f"{violation['layer']}: {violation['resource']} exceeded. {violation['remedy']}", style="red")


def _input(report: Mapping[str, Any], _notes: Notes) -> Iterator[RenderableType]:
    coding = report.get("input", {"coding": "messages"})
    if coding["coding"] == "messages":
        return
    line = f"The host sets what drives the first layer as its biases, within {coding['limit']:,}."
    if compared := coding.get("against_messages"):
        layers = ", ".join(f"{layer['name']} {layer['differing_share']:.3%}" for layer in compared["layers"])
        line += (
            f" Against the network that would take messages, on {compared['samples']:,} images: "
            f"neuron-steps that differ: {layers}; classes that differ: {compared['classes_differing']:,}."
        )
    yield Text(line)


def _layers(report: Mapping[str, Any], _notes: Notes) -> Iterator[RenderableType]:
    made = table("Layers", "layer", "kind", "shape", "neurons", "nonzero / weights", "synapses", "bits", "theta")
    for layer in report["network"]["layers"]:
        low, high = layer["theta"] or (None, None)
        made.add_row(
            layer["name"],
            layer["kind"] + (f", pool {layer['pool']}" if layer["pool"] > 1 else ""),
            "x".join(map(str, layer["shape"])),
            number(layer["n_neurons"]),
            f"{layer['n_nonzero_weights']:,} / {layer['n_weights']:,}",
            number(layer["n_synapses"]),
            str(layer["weight_bits"]),
            "-" if low is None else number(low) if low == high else f"{low:,} to {high:,}",
        )
    yield made
    if lost := lost_weights(report):
        yield Text(lost)


def _cores(report: Mapping[str, Any], _notes: Notes) -> Iterator[RenderableType]:
    if not report["mapping"]["layers"]:
        return
    made = table("Cores", "layer", "format", "cores", "tile y x c", "fullest core", "its scarcest resource", "fill")
    for layer in report["mapping"]["layers"]:
        worst = layer["worst_core"]
        made.add_row(
            layer["name"],
            layer["format"],
            number(layer["n_cores"]),
            " ".join(map(str, layer["tile"])),
            NOT_KNOWN if worst is None else str(worst["core"]),
            NOT_KNOWN
            if worst is None
            else f"{worst['resource']} {worst['used']:,} of {worst['limit']:,} {worst['unit']}",
            NOT_KNOWN if worst is None else share(worst["fill"]),
        )
    yield made


def _memory(report: Mapping[str, Any], notes: Notes) -> Iterator[RenderableType]:
    figures = {name: entry for name, entry in report["memory"].items() if name != "layers"}
    yield figures_table("Memory", figures, notes)


def _relays(report: Mapping[str, Any], notes: Notes) -> Iterator[RenderableType]:
    if report.get("relays"):
        figures = {name: entry for name, entry in report["relays"].items() if name != "layers"}
        yield figures_table("Relays: spikes passed on for skip connections", figures, notes)


def _neurobench(report: Mapping[str, Any], notes: Notes) -> Iterator[RenderableType]:
    if "neurobench" in report:
        yield figures_table("By NeuroBench's definitions", report["neurobench"], notes)


def _activity(report: Mapping[str, Any], _notes: Notes) -> Iterator[RenderableType]:
    activity = report["activity"]
    title = f"Activity: {activity['samples']:,} images on {activity['backend']}"
    made = table(
        title, "layer", "spikes/image", "rate", "neurons never seen to spike", "driven", "wraps", "saturations"
    )
    for layer in activity["layers"]:
        made.add_row(
            layer["name"],
            number(layer["spikes_per_image"]),
            share(layer["rate"]),
            number(layer["silent_neurons"]),
            share(layer["active_share"]),
            number(layer["wraps"]),
            number(layer["saturations"]),
        )
    yield made
    for key, what in (("silent", "never spikes"), ("always_on", "always spikes")):
        for name in activity[key]:
            yield Text(f"{name} {what}: it carries no information", style="yellow")
    for sentence in idle_channels(report):
        yield Text(sentence)


def _accuracy(report: Mapping[str, Any], _notes: Notes) -> Iterator[RenderableType]:
    accuracy = report["accuracy"]
    if not accuracy:
        yield Text("Accuracy: not measured")
        return
    made = table("Accuracy", "network", "images", "clean", "under PGD")
    for stage, metrics in accuracy.get("stages", {}).items():
        outcomes = metrics.get("validation", {})
        clean, robust = (share(outcomes.get(name, {}).get("accuracy")) for name in ("none", "pgd-ens"))
        made.add_row(f"after {stage}", "validation", clean, robust)
    if "deployed" in accuracy:
        found, attacked = accuracy["deployed"], accuracy.get("deployed_attacked", {})
        pgd: Mapping[str, Any] = next((one for one in attacked.values() if one["attack"] == "pgd-ens"), {})
        robust = share(pgd.get("accuracy"))
        made.add_row(f"integers, {found['backend']}", f"{found['n']:,} test", share(found["accuracy"]), robust)
    yield made
    if attacked := accuracy.get("deployed_attacked"):
        made = table("The integers under attack", "attack", "eps", "images", "right", "less the float network's")
        for one in attacked.values():
            radius, paired = f"{one['eps'] * 255:g}/255", one.get("against_float")
            less = f"{100 * paired['difference']:+.1f} points" if paired else ""
            made.add_row(one["attack"], radius, f"{one['n']:,} test", share(one["accuracy"]), less)
        yield made


def _sources(notes: Notes) -> Iterator[RenderableType]:
    yield Text("Sources", style="bold")
    for source, note in notes.items():
        yield Text(f"({note}) {source}")


def _assumptions(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text("What the figures rest on", style="bold")
    for entry in report["assumptions"]:
        if "statement" in entry:
            yield Text(f"- {entry['statement']}")
        else:
            yield Text(f"- {entry['status']}: {', '.join(entry['numbers'])} ({entry['source']})")
