"""Figures that say where in the report they stand, and tables of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolchain.report.words import number, share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Cell = str | Markup


class Notes:
    """The numbered list of sources at the end of the page."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def link(self, source: str) -> Markup:
        """A link to the source, which is in the list from now on."""
        n = self._numbers.setdefault(source, len(self._numbers) + 1)
        return Markup('<a class="note" href="#source-{0}">[{0}]</a>').format(n)

    def sources(self) -> list[str]:
        """The list, in order of first use."""
        return list(self._numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """columns: titles, the first heads the rows; left: columns of words, set flush left."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: frozenset[int] = frozenset({0})
    note: Cell = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Drawings under one title. kind names its style; scale and key stand above and below the drawings."""

    title: str
    drawings: Sequence[Markup]
    note: Cell = ""
    kind: str = ""
    controls: Sequence[tuple[str, str]] = ()
    key: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands below it: tables, charts, and paragraphs as text."""

    id: str
    title: str
    blocks: list[Table | Chart | Cell] = field(default_factory=list)


def pointer(*keys: str | int) -> str:
    """The JSON pointer (RFC 6901) of a place in the report."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def find(report: Mapping[str, Any], *keys: str | int) -> Any:
    """What stands there."""
    node: Any = report
    for key in keys:
        node = node[key]
    return node


def shown(report: Mapping[str, Any], *keys: str | int, say: Callable[[Any], str] = number) -> Markup:
    """The figure at a place of the report, readable, marked with its place and exact value."""
    value = find(report, *keys)
    return Markup('<data data-path="{}" value="{}">{}</data>').format(pointer(*keys), json.dumps(value), say(value))


def shown_share(report: Mapping[str, Any], *keys: str | int) -> Markup:
    """The same in percent."""
    return shown(report, *keys, say=share)


def join(*parts: str) -> Markup:
    """The parts one after the other, escaped where they are not markup."""
    return Markup("").join(parts)


def figure_table(
    report: Mapping[str, Any], caption: str, places: Sequence[tuple[str, tuple[str | int, ...]]], notes: Notes
) -> Table:
    """A line a figure: its value, unit, how it is known, its source. places: name and place of each."""
    rows: list[list[Cell]] = []
    for name, place in places:
        figure = find(report, *place)
        value = shown(report, *place, "value")
        known = "" if figure["value"] is None else figure["how"]
        rows.append([name.replace("_", " "), value, figure["unit"], known, notes.link(figure["source"])])
    return Table(
        caption=caption, columns=("", "value", "unit", "known", "source"), rows=rows, left=frozenset({0, 2, 3, 4})
    )


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An element; children and attributes are escaped. `class_` is class, `data_path` is data-path, None is left out."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, Markup("").join(children))


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
