"""Measurements of the integer network on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

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
    terminal.verdict(console, result)


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
