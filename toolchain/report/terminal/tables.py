"""Tables on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from toolchain.report.words import number

if TYPE_CHECKING:
    from collections.abc import Mapping

Notes = dict[str, int]
"""Source -> its number in the list at the end of the report"""


def table(title: str, *columns: str) -> Table:
    """An empty table, its first column flush left."""
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right")
    return made


def figures_table(title: str, figures: Mapping[str, Mapping[str, Any]], notes: Notes) -> Table:
    """A line a figure: its value, unit, how it is known, and the number of its source."""
    made = table(title, "", "value", "unit", "known", "source")
    for column in made.columns[2:4]:
        column.justify = "left"
    for name, entry in figures.items():
        note = notes.setdefault(entry["source"], len(notes) + 1)
        known = "" if entry["value"] is None else entry["how"]
        made.add_row(name.replace("_", " "), number(entry["value"]), entry["unit"], known, f"({note})")
    return made
