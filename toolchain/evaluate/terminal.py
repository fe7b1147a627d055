"""An evaluation on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console


def render(result: Mapping[str, Any]) -> None:
    """The result of `evaluate` stands on stdout: a line an attack, a line a member where all were tried, the verdict."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    model, source = result["model"], result["data"]
    images = f"{source['n']} test images of {source['source']}"
    if source["n"] < source["of"]:
        images = f"{source['subset']} test images of {source['source']}"
    title = f"{model['path']} ({model['mode']}, {model['sparsity']:.1%} sparse) on {images}"
    table = Table(
        "attack", "eps", "accuracy", "95 % interval", "strongest gradients", title=title, title_justify="left"
    )
    for outcome in result["outcomes"]:
        low, high = outcome["interval95"]
        eps = f"{outcome['eps'] * 255:g}/255" if "eps" in outcome else "-"
        interval = f"{low:.1%} to {high:.1%}"
        table.add_row(outcome["attack"], eps, f"{outcome['accuracy']:.1%}", interval, _members(outcome))
    for outcome in result["together"]:
        low, high = outcome["interval95"]
        eps, interval = f"{outcome['eps'] * 255:g}/255", f"{low:.1%} to {high:.1%}"
        table.add_row("all of these", eps, f"{outcome['accuracy']:.1%}", interval, "")
    console.print(table)
    verdict(console, result)


def verdict(console: Console, result: Mapping[str, Any]) -> None:
    """Each check of an evaluation and what they say together, where there were any."""
    if "checks" in result:
        checks = result["checks"]
        for check in checks["checks"]:
            console.print(f"  {'ok' if check['passed'] else 'NO'}  {check['check']}", highlight=False)
        console.print(
            f"On {checks['n']} images at eps {checks['eps'] * 255:g}/255: {checks['verdict']}.", highlight=False
        )


def _members(outcome: Mapping[str, Any]) -> str:
    """Which members broke how many images, the first three of them."""
    members = outcome.get("members") or {}
    if len(members) < 2:
        return ""
    ordered = sorted(members.items(), key=lambda item: -item[1]["n_broken"])
    told = ", ".join(f"{name} {entry['n_broken']}" for name, entry in ordered[:3])
    if "accuracy_alone" in ordered[0][1]:
        alone = [entry["accuracy_alone"] for entry in members.values()]
        told += f"; alone {min(alone):.1%} to {max(alone):.1%}"
    return told
