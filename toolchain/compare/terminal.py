"""A comparison on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from toolchain.compare.pareto import STATIC
from toolchain.report.terminal.tables import table
from toolchain.report.words import NOT_KNOWN, number, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.table import Table


def render(comparison: Mapping[str, Any], console: Console | None = None) -> None:
    """What each row takes and does, what it costs by each model, and which rows no other beats."""
    console = console or Console()
    rows = comparison["rows"]
    console.print(_rows(rows), *_energies(rows))
    for index, row in enumerate(rows, start=1):
        for said, style in ((row["reason"], "red"), (row["note"], "")):
            if said:
                console.print(Text(f"({index}) {said}", style=style))
    for plot in comparison["plots"]:
        for series, front in plot["front"].items():
            best = ", ".join(str(at + 1) for at in front)
            console.print(Text(f"{plot['name']} against {series} accuracy: no row beats {best or NOT_KNOWN}"))


def _rows(rows: Sequence[Mapping[str, Any]]) -> Table:
    made = table(
        "Models on profiles", "", "model", "profile", "fits", "sparse", "cores", "clean", "robust", "kB on chip"
    )
    for column in made.columns[1:4]:
        column.justify = "left"
    made.columns[1].overflow = "fold"
    for index, row in enumerate(rows, start=1):
        resident = row["memory"].get("resident_bytes", {}).get("value")
        made.add_row(
            str(index),
            row["model"],
            row["profile"],
            {True: "yes", False: "no", None: NOT_KNOWN}[row["fits"]],
            share(row["sparsity"]),
            number(row["n_cores"]),
            *(share(row[key]["accuracy"]) if row[key] else NOT_KNOWN for key in ("accuracy", "robust")),
            number(None if resident is None else resident / 1000),
        )
    return made


def _energies(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    names = list(dict.fromkeys(name for row in rows for name in row["energy"] if not name.endswith(STATIC)))
    if not names:
        return
    title = "nJ an image without static power, modelled, not measured; latency a lower bound"
    costs = table(title, "", *names, "us at least")
    for index, row in enumerate(rows, start=1):
        cells = [row["energy"].get(name) for name in names] + [row["latency"]]
        costs.add_row(str(index), *(number(cell["value"]) if cell else NOT_KNOWN for cell in cells))
    yield costs
