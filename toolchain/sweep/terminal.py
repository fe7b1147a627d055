"""A sweep on a terminal: one table, a line a combination."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from toolchain.report.terminal.tables import table
from toolchain.report.words import NOT_KNOWN, number, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.table import Table

    Row = Mapping[str, Any]

MARKS = {"clean": "c", "robust": "r"}


def price(result: Mapping[str, Any]) -> str | None:
    """The energy that a sweep is judged by: the chip's own by the first set that has one, else Lemaire's."""
    names = dict.fromkeys(name for row in result["rows"] for name in row["energy"])
    own = [name for name in names if name not in {"eq. 12, fp32", "Lemaire, 45 nm"}]
    return next(iter([*own, *reversed(names)]), None)


def fronts(result: Mapping[str, Any]) -> Mapping[str, Sequence[int]]:
    """The rows that no other beats for that energy, by series."""
    name = f"energy: {price(result)}"
    found: Iterator[Mapping[str, Sequence[int]]] = (plot["front"] for plot in result["plots"] if plot["name"] == name)
    return next(found, {})


def render(result: Mapping[str, Any], console: Console | None = None) -> None:
    """What each combination costs and how often it is right; marked, those that no other beats; then what stopping early does."""
    console = console or Console()
    rows = result["rows"]
    best = fronts(result)
    shown = {title: cell for title, cell in _columns(price(result)).items() if any(cell(row) for row in rows)}
    found = table(f"{Path(result['model']['path']).stem} on {result['profile']}", "", *shown, "best")
    for index, row in enumerate(rows):
        marks = "".join(mark for series, mark in MARKS.items() if index in best.get(series, ()))
        found.add_row(str(index + 1), *(cell(row) or NOT_KNOWN for cell in shown.values()), marks)
    console.print(found)
    if any(row["early_exit"] for row in rows):
        console.print(_stopped_early(rows))
    reasons: dict[str, list[str]] = {}
    for index, row in enumerate(rows, start=1):
        if row["reason"]:
            reasons.setdefault(row["reason"], []).append(str(index))
    for reason, numbers in reasons.items():
        console.print(Text(f"({', '.join(numbers)}) {reason}", style="red"))
    for said in _legend(result):
        console.print(Text(said))


def _columns(judge: str | None) -> dict[str, Callable[[Row], str | None]]:
    """What is in a column of a row, None where it is not known."""
    return {
        "bits": lambda row: "own" if row["bits"] is None else str(row["bits"]),
        "T": lambda row: str(row["timesteps"]),
        "sparse": lambda row: share(row["sparsity"]),
        "clean": lambda row: share(row["accuracy"]["accuracy"]) if row["accuracy"] else None,
        "robust": lambda row: share(row["robust"]["accuracy"]) if row["robust"] else None,
        "cores": lambda row: None if row["n_cores"] is None else number(row["n_cores"]),
        "nJ": lambda row: number(row["energy"][judge]["value"]) if judge in row["energy"] else None,
        "us": lambda row: number(row["latency"]["value"]) if row["latency"] and row["latency"]["value"] else None,
    }


def _stopped_early(rows: Sequence[Row]) -> Table:
    """A line a combination: mean steps by either rule; by the margin what is saved, and how many points accuracy differs by."""
    found = table("Stopped early", "", "proven", "margin", "saved", "clean", "points, 95 %", "robust", "points")
    for index, row in enumerate(rows, start=1):
        stops = row["early_exit"]
        if stops:
            clean, attacked = (stops["margin"].get(split) for split in ("clean", "attacked"))
            low, high = clean["against_full"]["interval95"]
            cells = [f"{stops[rule]['clean']['mean_steps']:.2f}" for rule in ("proven", "margin")]
            cells += [share(clean["saved"]), share(clean["accuracy"])]
            cells += [f"{_points(clean)} ({100 * low:+.1f} to {100 * high:+.1f})"]
            cells += [share(attacked["accuracy"]), _points(attacked)] if attacked else [NOT_KNOWN] * 2
            found.add_row(str(index), *cells)
    return found


def _points(stopped: Mapping[str, Any]) -> str:
    return f"{100 * stopped['against_full']['difference']:+.1f}"


def _legend(result: Mapping[str, Any]) -> list[str]:
    """What the columns are of."""
    rows, judge = result["rows"], price(result)
    clean = next((row["accuracy"] for row in rows if row["accuracy"]), None)
    robust = next((row["robust"] for row in rows if row["robust"]), None)
    said = [*result["notes"]]
    if clean:
        widest = max(_half(row["accuracy"]) for row in rows if row["accuracy"])
        said.append(f"Clean: integers, {clean['n']:,} validation images, give or take {widest:.1%} at most.")
    if robust:
        widest = max(_half(row["robust"]) for row in rows if row["robust"])
        eps = f"eps {robust['eps'] * 255:g}/255, {robust['steps']} steps"
        said.append(
            f"Robust: right too under PGD by {len(robust['members'])} gradients of the integers, {eps}, {robust['n']:,} "
            f"validation images, give or take {widest:.1%} at most."
        )
    if judge:
        said.append(
            f"nJ an image by {judge}, without static power, modelled, not measured. Best: for as little energy no other is right "
            "as often, clean (c) or under PGD (r)."
        )
    if any(row["early_exit"] for row in rows):
        said.append(
            "Stopped early: the mean step after which an image keeps its class whatever follows (proven), or its top logit leads by "
            "a margin chosen on the other half of the images; by the margin, what of the steps is saved, and by how many points "
            "accuracy differs. Robust: on the images attacked above, which were made against all steps."
        )
    if not result["epochs"] and len({(row["timesteps"], row["sparsity"]) for row in rows}) > 1:
        said.append("Nothing was finetuned for other steps or sparsities; --epochs does.")
    return said


def _half(found: Mapping[str, Any]) -> float:
    low, high = found["interval95"]
    return float(high - low) / 2
