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
MAY_BE_UNKNOWN = {"cores": "cores", "us": "latency"}
"""Columns that some profiles have nothing for, and what they are of"""
ALIGNED_FROM = 100
"""A column that reaches so far is written with one decimal"""


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
    shown = {title: cell for title, cell in _columns(rows, price(result)).items() if any(cell(row) for row in rows)}
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
    for said in _legend(result, [said for title, said in MAY_BE_UNKNOWN.items() if title not in shown]):
        console.print(Text(said))


def _columns(rows: Sequence[Row], judge: str | None) -> dict[str, Callable[[Row], str | None]]:
    """What is in a column of a row, None where it is not known."""
    energy, latency = (_aligned([of(row) for row in rows]) for of in (lambda row: _nj(row, judge), _us))
    return {
        "bits": lambda row: "own" if row["bits"] is None else str(row["bits"]),
        "T": lambda row: str(row["timesteps"]),
        "sparse": lambda row: share(row["sparsity"]),
        "clean": lambda row: share(row["accuracy"]["accuracy"]) if row["accuracy"] else None,
        "robust": lambda row: share(row["robust"]["accuracy"]) if row["robust"] else None,
        "cores": lambda row: None if row["n_cores"] is None else number(row["n_cores"]),
        "nJ": lambda row: energy(_nj(row, judge)),
        "us": lambda row: latency(_us(row)),
    }


def _nj(row: Row, judge: str | None) -> float | None:
    return row["energy"][judge]["value"] if judge in row["energy"] else None


def _us(row: Row) -> float | None:
    return row["latency"]["value"] if row["latency"] else None


def _aligned(values: Sequence[float | None]) -> Callable[[float | None], str | None]:
    """Writes a column's values with as many decimals each, so that they can be read down."""
    digits = 1 if max((value for value in values if value is not None), default=0) >= ALIGNED_FROM else 3
    return lambda value: None if value is None else f"{value:,.{digits}f}"


def _stopped_early(rows: Sequence[Row]) -> Table:
    """A line a combination: mean steps by either rule; by the margin what is saved, and how many points accuracy differs by."""
    found = table("Stopped early", "", "T", "proven", "margin", "saved", "clean", "points, 95 %", "attacked")
    for index, row in enumerate(rows, start=1):
        stops = row["early_exit"]
        if stops:
            clean, attacked = (stops["margin"].get(split) for split in ("clean", "attacked"))
            low, high = clean["against_full"]["interval95"]
            cells = [f"{stops[rule]['clean']['mean_steps']:.2f}" for rule in ("proven", "margin")]
            cells += [
                f"{share(clean['saved'])} ±{100 * _half(clean, 'saved_interval95'):.1f}",
                share(clean["accuracy"]),
            ]
            cells += [f"{100 * clean['against_full']['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"]
            cells += [share(attacked["accuracy"]) if attacked else NOT_KNOWN]
            found.add_row(str(index), str(row["timesteps"]), *cells)
    return found


def _legend(result: Mapping[str, Any], unknown: Sequence[str]) -> list[str]:
    """What the columns are of, and what has none."""
    rows, judge = result["rows"], price(result)
    clean = next((row["accuracy"] for row in rows if row["accuracy"]), None)
    robust = next((row["robust"] for row in rows if row["robust"]), None)
    said = [*result["notes"]]
    if any(row["bits"] is None for row in rows):
        said.append("own bits: as recorded in the model, else 8")
    if clean:
        widest = max(_half(row["accuracy"]) for row in rows if row["accuracy"])
        said.append(
            f"Clean: integers, {clean['n']:,} validation images, give or take {100 * widest:.1f} points at most."
        )
    if robust:
        widest = max(_half(row["robust"]) for row in rows if row["robust"])
        eps = f"eps {robust['eps'] * 255:g}/255, {robust['steps']} steps"
        said.append(
            f"Robust: right too under PGD by {len(robust['members'])} gradients of the integers, {eps}, {robust['n']:,} "
            f"validation images, give or take {100 * widest:.1f} points at most."
        )
    if judge:
        said.append(
            f"nJ an image by {judge}, without static power, modelled, not measured. Best: for as little energy no other is right "
            "as often, clean (c) or under PGD (r)."
        )
    if any(row["early_exit"] for row in rows):
        said.append(
            "Stopped early: the mean step after which an image keeps its class whatever follows (proven), or its top logit leads by "
            "a margin chosen on the other half of the images; by the margin, what of the T steps is saved, and by how many points "
            "clean accuracy differs, both with 95 % intervals. Attacked: right on the images attacked above; these were made "
            "against all steps, so that what is gained on them is no robustness."
        )
    if clean and unknown:
        said.append(f"Not known on {result['profile']}: {' and '.join(unknown)}.")
    said += [f"{note[0].upper()}{note[1:]}." for note in dict.fromkeys(row["note"] for row in rows if row["note"])]
    if not result["epochs"] and len({(row["timesteps"], row["sparsity"]) for row in rows}) > 1:
        said.append("Nothing was finetuned for other steps or sparsities; --epochs does.")
    return said


def _half(found: Mapping[str, Any], interval: str = "interval95") -> float:
    low, high = found[interval]
    return float(high - low) / 2
