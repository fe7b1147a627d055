"""Measurements of the integer network on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from toolchain.deployed.explain import CAUSES
from toolchain.evaluate import terminal

if TYPE_CHECKING:
    from collections.abc import Mapping


def evaluation(result: Mapping[str, Any]) -> None:
    """The result of `evaluate`: a line an attack, beside the float network under the same attack, then the verdict."""
    console = Console()
    model, source, deployed = result["model"], result["data"], result["deployed"]
    images = f"{source['n']} test images of {source['source']}"
    if source["n"] < source["of"]:
        images = f"{source['subset']} test images of {source['source']}"
    title = f"{model['path']} as integers of {deployed['profile']} ({_bits(deployed['weight_bits'])}) on {images}"
    console.print(f"{title}, percent (95 % interval)", highlight=False)
    table = Table("attack", "eps", "integers", "unrounded", "float", "difference", box=SIMPLE_HEAD)
    rows = [*result["outcomes"], *({"attack": "all of these", **outcome} for outcome in result["together"])]
    for outcome in rows:
        low, high = (100 * end for end in outcome["interval95"])
        table.add_row(
            outcome["attack"],
            f"{outcome['eps'] * 255:g}/255" if "eps" in outcome else "-",
            f"{100 * outcome['accuracy']:.1f} ({low:.1f} to {high:.1f})",
            _percent(outcome.get("before_rounding")),
            _percent(outcome.get("float")),
            _difference(outcome.get("against_float")),
        )
    console.print(table)
    console.print(
        "unrounded: had no sensor rounded the adversarial images to 8 bits. difference: integers less float, in points, each "
        "under its own gradients, on the same images, with the paired bootstrap's interval.",
        highlight=False,
    )
    if result["float"]["sha256"] != model["sha256"]:
        console.print(f"float: {result['float']['path']}", highlight=False)
    terminal.verdict(console, result)


def divergence(result: Mapping[str, Any]) -> None:
    """The table of `inspect`: a line a step, then which step changes most."""
    console = Console()
    rows, attack = result["rows"], result["attack"]
    console.print(
        f"{result['model']} to the integers of {result['profile']}, on {result['samples']} test images, percent",
        highlight=False,
    )
    names = [layer["name"] for layer in rows[0]["layers"]]
    columns = ("step", "right", *(("same", "own") if attack else ()), "others", *(f"{name} alike" for name in names))
    table = Table(*columns, box=SIMPLE_HEAD)
    for row in rows:
        robust = [_percent(row["attacked"][name]) for name in ("same", "own")] if attack else []
        alike = [f"{100 * layer['agreement']:.2f}" for layer in row["layers"]]
        table.add_row(row["step"], _percent(row), *robust, str(row["classes_differing"]), *alike)
    console.print(table)
    lines = [
        "right: classified right. others: images in another class than the float network has them in. alike: spikes."
    ]
    if attack:
        lines.append(
            f"same, own: right on {attack['samples']} images after PGD (eps {attack['eps'] * 255:g}/255, {attack['steps']} steps, "
            f"{attack['gradient']}) against the float network, and against the step itself; one gradient flatters."
        )
    most = max(rows[1:], key=lambda row: (row["classes_differing_here"], _differing_here(row)))
    lines.append(
        f"Most change at: {most['step']}, {most['classes_differing_here']} classes and {_differing_here(most):,} spikes."
        if _differing_here(most) or most["classes_differing_here"]
        else "No step changes anything."
    )
    console.print("\n".join(lines), highlight=False)


def explanation(result: Mapping[str, Any]) -> None:
    """One image: classes, differing spikes a layer, and the first of them in words."""
    console = Console()
    classes, first = result["classes"], result["first"]
    console.print(
        f"Image {result['image']} of {result['model']}, a {result['label']}: the float network says {classes['float']}, "
        f"the integers {classes['integers']}.",
        highlight=False,
    )
    table = Table("class", "float logit", "integers", box=SIMPLE_HEAD)
    for number, (one, other) in enumerate(zip(result["logits"]["float"], result["logits"]["integers"], strict=True)):
        table.add_row(str(number), f"{one:.4f}", f"{other:.4f}")
    console.print(table)
    told = ", ".join(f"{layer['name']} {layer['differing']} of {layer['neuron_steps']:,}" for layer in result["layers"])
    console.print(f"Neuron-steps that differ: {told}.", highlight=False)
    if first is None:
        console.print(
            "Every spike is the same: what differs in the logits is the rounding of the readout's weights and biases."
        )
        return
    console.print("\n".join(_reasons(first)), highlight=False, markup=False)


def _reasons(first: Mapping[str, Any]) -> list[str]:
    """Where the first neuron differs, by what sums, and which rounding did it."""
    ours, theirs, moved = first["float"], first["integers"], first["margin_moved_by"]
    does, other = ("spikes", "do not") if first["float_spikes"] else ("does not spike", "do")
    place = ", ".join(f"{name} {first[name]}" for name in ("channel", "row", "column", "step"))
    where = f"First: {first['layer']}, {place} (from 0): the float network's neuron {does}, the integers' {other}."
    floats = f"float {ours['membrane']:.6g} of {ours['threshold']:.6g}, margin {ours['margin']:+.3g}"
    integers = f"integers {theirs['membrane']:g} of {theirs['theta']:g}, margin {theirs['margin']:+g}"
    same = f"that is {theirs['margin'] * first['unit']:+.3g} at {first['unit']:.4g} a unit"
    parts = ", ".join(f"{moved[name]:+.3g} ({name})" for name in ("weights", "biases", "threshold", "chip"))
    return [
        where,
        f"Since step {first['since_step']}: {floats}; {integers}, {same}.",
        f"The margin moved by {parts}: it is {CAUSES[first['cause']]}.",
    ]


def _differing_here(row: Mapping[str, Any]) -> int:
    return sum(layer["differing_here"] for layer in row["layers"])


def _bits(widths: Mapping[str, int]) -> str:
    """Weight widths in words."""
    if len(set(widths.values())) == 1:
        return f"{next(iter(widths.values()))} bits"
    return ", ".join(f"{name} {bits}" for name, bits in widths.items()) + " bits"


def _percent(outcome: Mapping[str, Any] | None) -> str:
    return f"{100 * outcome['accuracy']:.1f}" if outcome else ""


def _difference(paired: Mapping[str, Any] | None) -> str:
    if paired is None:
        return ""
    low, high = (100 * end for end in paired["bootstrap95"])
    return f"{100 * paired['difference']:+.1f} ({low:+.1f} to {high:+.1f})"
