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

    from toolchain.report.terminal.tables import Notes


def energy(report: Mapping[str, Any], notes: Notes) -> Iterator[RenderableType]:
    """The totals, the terms of the models that have some, the layers, and the time."""
    yield from _totals(report, notes)
    yield from _lemaire(report, notes)
    yield from _hardware(report, notes)


def _totals(report: Mapping[str, Any], notes: Notes) -> Iterator[RenderableType]:
    """Clean, under attack where that was run, and the dense twin."""
    made = report["energy"]
    dense = (report.get("dense") or {}).get("energy", {})
    attacked = report.get("attacked")
    columns = ["model", "this network", "dense, assumed"]
    if attacked:
        columns += [f"clean, {attacked['clean']['activity']['samples']} images", "the same attacked"]
    shown = table("Energy, nJ an image: modelled, not measured", *columns, "source")
    for name, place in totals(made):
        found = at(made, place)
        note = notes.setdefault(found["source"], len(notes) + 1)
        cells = [found, at(dense, place)]
        if attacked:
            cells += [at(attacked[side]["energy"], place) for side in ("clean", "adversarial")]
        shown.add_row(name, *(number(cell["value"]) if cell else NOT_KNOWN for cell in cells), f"({note})")
    yield shown
    if "eq12" in made:
        yield Text("Eq. 12 is arithmetic only, not hardware energy; Lemaire's processor is no chip.")
    if dense:
        yield Text(f"Dense: {report['dense']['assumption']}.")


def _lemaire(report: Mapping[str, Any], notes: Notes) -> Iterator[RenderableType]:
    made = report["energy"].get("lemaire")
    if not made:
        return
    yield figures_table("Lemaire, 45 nm: where it goes", made["terms"], notes)
    yield _by_layer("Lemaire, 45 nm, nJ an image by layer", made["layers"], [*made["terms"], "total"])


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
        both = {"total, nonzero synapses": chosen["total_low"], "total, stored synapses": chosen["total_high"]}
        title = f"Energy, modelled for {chip}, {chosen['label']}, not measured"
        yield figures_table(title, {**chosen["terms"], **both}, notes)
        terms = [name for name in chosen["layers"][0] if name != "name"]
        yield _by_layer(f"{chip}, {chosen['label']}, nJ an image by layer", chosen["layers"], terms)
        if chosen["omitted"]:
            missing = ", ".join(chosen["omitted"]).replace("_", " ")
            yield Text(f"Left out, for want of a coefficient: {missing}", style="yellow")
    worst = made["worst_core"]
    yield Text(
        f"Worst core: {worst['where']}, {number(worst['synops']['value'])} synops and {number(worst['updates']['value'])} "
        "updates a step"
    )
    yield figures_table("Time", {"t step": made["t_step"], "latency": made["latency"]}, notes)
    for entry in report.get("context", []):
        yield Text(
            f"For scale, {entry['what']}: {number(entry['value'])} {entry['unit']} [{entry['status']}: {entry['source']}]"
        )


def _by_layer(title: str, layers: list[Mapping[str, Any]], terms: list[str]) -> RenderableType:
    made = table(title, "layer", *(term.replace("_", " ") for term in terms))
    for layer in layers:
        made.add_row(layer["name"], *(number(layer[term]["value"]) for term in terms))
    return made


def attacked(report: Mapping[str, Any], _notes: Notes) -> Iterator[RenderableType]:
    """Spikes of each layer and accuracy on the same images, clean and attacked."""
    found = report.get("attacked")
    if not found:
        return
    attack, sides = found["attack"], (found["clean"], found["adversarial"])
    samples = found["clean"]["activity"]["samples"]
    made = table(f"Under attack: {attack['name']}, {samples} images", "layer", "spikes clean", "attacked")
    for layers in zip(*(side["activity"]["layers"] for side in sides), strict=True):
        made.add_row(layers[0]["name"], *(number(layer["spikes_per_image"]) for layer in layers))
    made.add_row("all", *(number(side["activity"]["spikes_per_image"]) for side in sides))
    made.add_row("right", *(share(side["accuracy"]["accuracy"]) for side in sides))
    yield made
    yield Text(attack["statement"])
