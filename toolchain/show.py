"""What the results of `check`, `fit`, `heal`, `simulate`, `verify` and `run` look like on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping


def limits(result: Mapping[str, Any]) -> None:
    """The fullest place of each limit of a profile, then each violation as a sentence."""
    console = Console()
    fullest: dict[tuple[str, str], Any] = {}
    for entry in result["usage"]:
        key = entry["rule"], entry["resource"]
        if key not in fullest or entry["used"] * fullest[key]["limit"] > fullest[key]["used"] * entry["limit"]:
            fullest[key] = entry
    title = f"Limits of {result['profile']}, each where it is fullest"
    table = _table(title, "rule", "resource", "used", "limit", "place")
    for entry in fullest.values():
        if entry["limit"] or entry["used"]:
            place = entry["layer"] if entry["core"] is None else f"{entry['layer']}, core {entry['core']}"
            used, limit = (f"{entry[key]:,}" for key in ("used", "limit"))
            style = "red" if entry["used"] > entry["limit"] else ""
            table.add_row(entry["rule"], entry["resource"], used, f"{limit} {entry['unit']}", place, style=style)
    console.print(table)
    for note in result["notes"]:
        console.print(f"Assumed: {note}", markup=False)
    for sentence in result["sentences"]:
        console.print(sentence, style="red", markup=False)
    verdict = "fits" if result["fits"] else "does not fit"
    console.print(f"{verdict} on {result['profile']}: {result['n_cores']} cores on {result['n_chips']} chip(s)")


def simulation(result: Mapping[str, Any]) -> None:
    """A line a sample: its class, its label, its logits."""
    console = Console()
    table = _table(f"{result['samples']} samples on {result['backend']}", "sample", "class", "label", "logits")
    for index, (found, label, logits) in enumerate(
        zip(result["classes"], result["labels"], result["logits"], strict=True)
    ):
        known = result["correct"] is not None
        style = "yellow" if known and found != label else ""
        table.add_row(str(index), str(found), str(label) if known else "", " ".join(map(str, logits)), style=style)
    console.print(table)
    if result["correct"] is not None:
        console.print(f"{result['correct']} of {result['samples']} right")
    if "expected" in result:
        same = result["samples"] - result["differing"]
        console.print(f"{same} of {result['samples']} classified as when {result['images']} was made")


def verdict(result: Mapping[str, Any]) -> None:
    """A line a layer: spikes, rate and mismatches between the emulator and Lava, then the verdict."""
    console = Console()
    emulator, lava = result["backends"]
    table = _table(f"{emulator} against {lava}", "layer", "spikes", "rate", "mismatches")
    for layer in result["layers"]:
        style = "red" if layer["mismatches"] else ""
        table.add_row(
            layer["name"], f"{layer['spikes']:,}", f"{layer['rate']:.1%}", f"{layer['mismatches']:,}", style=style
        )
    console.print(table)
    if result["identical"]:
        console.print(
            f"identical: every spike of every layer and step, and every logit, of {result['samples']} samples"
        )


def fitted(result: Mapping[str, Any]) -> None:
    """What each layer gave up, then the cores and the accuracy on validation images, before and after."""
    console = Console()
    if result["out"] is None:
        used, allowed = result["cores"]["after"], result["budget"]["cores"]
        console.print(f"fits as it is: {used} of {allowed} cores of {result['profile']}; nothing was changed")
        return
    table = _table("Given up, before and after", "layer", "sparsity", "weight bits", "cores", "format")
    for layer in result["layers"]:
        sparsity, bits, cores = (layer[name] for name in ("sparsity", "bits", "cores"))
        table.add_row(
            layer["name"],
            f"{sparsity['before']:.1%} > {sparsity['after']:.1%}",
            f"{bits['before']} > {bits['after']}",
            f"{_or_none(cores['before'])} > {cores['after']}",
            layer["format"],
        )
    console.print(table)
    table = _table("Validation accuracy", "", "float, clean", "float, under PGD", "integers, clean")
    for when, outcomes in result["validation"].items():
        table.add_row(when, *(f"{outcomes[name]['accuracy']:.1%}" for name in ("none", "pgd-ens", "integers")))
    console.print(table)
    cores = result["cores"]
    console.print(
        f"{_or_none(cores['before'])} > {cores['after']} cores of {result['profile']}, {result['budget']['cores']} allowed"
    )


def healed(result: Mapping[str, Any]) -> None:
    """Accuracy on validation images: of the float network, and of its integers before and after."""
    console = Console()
    table = _table("Validation accuracy", "", "clean", "under PGD")
    titles = {"float": "float network", "before": "integers before", "after": "integers after"}
    for when, outcomes in result["validation"].items():
        table.add_row(titles[when], *(f"{outcomes[name]['accuracy']:.1%}" for name in ("none", "pgd-ens")))
    console.print(table)
    bits = ", ".join(f"{name} {width}" for name, width in result["weight_bits"].items())
    console.print(f"weight bits for {result['profile']}: {bits}", highlight=False)
    if result["out"] is None:
        console.print("it did not help: nothing was written; try more --epochs or another --lr")


def _or_none(n: int | None) -> str:
    return "none" if n is None else str(n)


def trained(result: Mapping[str, Any]) -> None:
    """Where the model is and how good it was on validation images after each stage."""
    console = Console()
    table = _table("Validation accuracy", "stage", "clean", "under PGD", "sparsity")
    for stage, metrics in result["metrics"].items():
        clean, robust = (f"{metrics['validation'][name]['accuracy']:.1%}" for name in ("none", "pgd-ens"))
        table.add_row(stage, clean, robust, f"{metrics['sparsity']:.2%}")
    console.print(table)
    layers = ", ".join(f"{name} {share:.2%}" for name, share in result["layer_sparsity"].items())
    console.print(f"sparsity of each layer: {layers}", highlight=False)
    kept, total = result["n_nonzero_weights"], result["n_weights"]
    console.print(f"{result['model']}: {kept:,} of {total:,} weights kept; sha256 {result['sha256'][:16]}")


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD)
