"""Energy on a terminal: every model's total side by side, then where it goes, by term and by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from toolchain.report.beside import at, totals
from toolchain.report.terminal.tables import figures_table, table
from toolchain.report.words import NOT_KNOWN, number, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType
    from rich.table import Table

    from toolchain.report.terminal.tables import Notes


def energy(report: Mapping[str, Any], notes: Notes) -> Iterator[RenderableType]:
    """The totals, the terms of the models that have some, the layers, and the time."""
    yield from _totals(report, notes)
    yield from _by_layer(report)
    yield from _lemaire(report, notes)
    yield from _hardware(report, notes)


def _totals(report: Mapping[str, Any], notes: Notes) -> Iterator[RenderableType]:
    """The network as it is, and its dense twin."""
    made = report["energy"]
    dense = (report.get("dense") or {}).get("energy", {})
    shown = _compared("Energy, nJ an image: modelled, not measured", "this network", "dense, assumed", "source")
    for name, place in totals(made):
        found, twin = at(made, place), at(dense, place)
        note = notes.setdefault(found["source"], len(notes) + 1)
        shown.add_row(name, number(found["value"]), number(twin["value"]) if twin else NOT_KNOWN, f"({note})")
    yield shown
    if "eq12" in made:
        yield Text("Eq. 12 is arithmetic only, not hardware energy; Lemaire's processor is no chip.")
    if "hardware" in made:
        yield Text(
            f"{made['hardware']['profile']} by each set of coefficients: over nonzero synapses, or over all that are stored."
        )
    if dense:
        yield Text(f"Dense: {report['dense']['assumption']}.")


def _lemaire(report: Mapping[str, Any], notes: Notes) -> Iterator[RenderableType]:
    made = report["energy"].get("lemaire")
    if not made:
        return
    yield figures_table("Lemaire, 45 nm: where it goes", made["terms"], notes)


def _hardware(report: Mapping[str, Any], notes: Notes) -> Iterator[RenderableType]:
    made = report["energy"].get("hardware")
    if not made:
        return
    chip = made["profile"]
    yield figures_table(f"Events of {chip}", {**made["counts"], "steps": made["steps"]}, notes)
    for chosen in made["sets"].values():
        if all(term["value"] is None for term in chosen["terms"].values()):
            missing = ", ".join(chosen["omitted"]).replace("_", " ")
            yield Text(f"Energy of {chip}: {NOT_KNOWN}. Not published, so left out: {missing}", style="yellow")
            continue
        sums = {
            f"{total}, {which} synapses": chosen[f"{total}_{end}"]
            for total in ("dynamic", "total")
            for end, which in (("low", "nonzero"), ("high", "stored"))
        }
        yield figures_table(
            f"Energy, modelled for {chip}, {chosen['statement']}, not measured", {**chosen["terms"], **sums}, notes
        )
        if chosen["omitted"]:
            missing = ", ".join(chosen["omitted"]).replace("_", " ")
            yield Text(f"Left out, for want of a coefficient: {missing}", style="yellow")
    worst = made["worst_core"]
    yield Text(
        f"Worst core: {worst['where']}, {number(worst['synops']['value'])} synops and {number(worst['updates']['value'])} "
        "updates a step"
    )
    yield figures_table("Time", {"t step": made["t_step"], "latency": made["latency"]}, notes)
    measured: dict[str, list[str]] = {}
    for entry in report.get("context", []):
        what, value, unit = entry["what"], number(entry["value"]), entry["unit"]
        said = f"{value} {what}" if what.startswith(unit) else f"{what} {value} {unit}"
        measured.setdefault(f"{entry['status']}: {entry['source']}", []).append(said)
    for source, figures in measured.items():
        yield Text(f"For scale, another network on {chip} [{source}]: {', '.join(figures)}")


def _by_layer(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Each layer's share of each total; the terms of each layer are in the JSON and on the page."""
    made = report["energy"]
    columns: dict[str, list[Mapping[str, Any]]] = {}
    if "lemaire" in made:
        columns["Lemaire"] = [layer["total"] for layer in made["lemaire"]["layers"]]
    if "hardware" in made:
        columns["synops"] = [layer["synops_nonzero"] for layer in made["hardware"]["layers"]]
        for chosen in made["hardware"]["sets"].values():
            columns[chosen["label"]] = [layer["total"] for layer in chosen["layers"]]
    if not columns:
        return
    shown = table("Energy by layer, nJ an image, and synaptic operations", "layer", *columns)
    for index, layer in enumerate(report["network"]["layers"]):
        shown.add_row(layer["name"], *(number(column[index]["value"]) for column in columns.values()))
    yield shown


def attacked(report: Mapping[str, Any], _notes: Notes) -> Iterator[RenderableType]:
    """Spikes of each layer, energy and accuracy on the same images, clean and attacked."""
    found = report.get("attacked")
    if not found:
        return
    sides = (found["clean"], found["adversarial"])
    samples = found["clean"]["activity"]["samples"]
    shown = _compared(f"Under attack: {found['attack']['name']}, {samples} images", "clean", "attacked", "ratio")
    for layers in zip(*(side["activity"]["layers"] for side in sides), strict=True):
        shown.add_row(f"spikes of {layers[0]['name']}", *(number(layer["spikes_per_image"]) for layer in layers), "")
    spikes = [number(side["activity"]["spikes_per_image"]) for side in sides]
    shown.add_row("spikes an image", *spikes, number(found["ratios"]["spikes"]["value"]))
    for name, place in totals(found["clean"]["energy"]):
        both = [number(at(side["energy"], place)["value"]) for side in sides]
        shown.add_row(f"{name}, nJ", *both, number(at(found["ratios"]["energy"], place)["value"]))
    shown.add_row("classified right", *(share(side["accuracy"]["accuracy"]) for side in sides), "")
    yield shown
    yield Text(found["attack"]["statement"])


def _compared(title: str, *columns: str) -> Table:
    shown = table(title, "", *columns)
    for column in shown.columns:
        column.no_wrap = True
    return shown
