"""A sweep as one SVG that needs nothing but itself: accuracy over its longest axis, and against energy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.report.page.figures import tag
from toolchain.report.page.scatter import even
from toolchain.report.words import number, share
from toolchain.sweep.terminal import fronts, price

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Row = Mapping[str, Any]

COLOURS = ("#440154", "#443983", "#31688e", "#21918c", "#35b779", "#90d743", "#e0c51e")
"""From dark to light, so that a line's place among the others shows. Source: viridis, matplotlib, CC0; its yellow darkened."""
LINE, SOFT = "#d0d7de", "#57606a"
WIDE, HIGH, LEFT, TOP, BETWEEN, BELOW = 250, 180, 52, 64, 30, 40
PER_LINE = 3
"""Panels beside each other"""
BARS, FRONT = "Bars: 95 % intervals", "Grey line: the best for their energy"
SERIES = {"accuracy": "clean", "robust": "under PGD"}
SHAPES = ("dot", "ring", "square", "triangle")
AXES = ("timesteps", "bits", "sparsity")
SAID = {"timesteps": "T", "bits": "weight bits", "sparsity": "sparsity"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """A panel's place and scale. ticks: of the horizontal axis, their values and what is written there."""

    x: float
    y: float
    title: str
    below: str
    ticks: Sequence[tuple[float, str]]

    def across(self, value: float) -> float:
        low, high = self.ticks[0][0], self.ticks[-1][0]
        return self.x + (WIDE * (value - low) / (high - low) if high > low else WIDE / 2)

    def up(self, part: float) -> float:
        return self.y + HIGH * (1 - part)

    def frame(self) -> Iterator[str]:
        yield tag("text", self.title, x=self.x, y=self.y - 8, font_weight=600)
        for percent in range(0, 101, 25):
            y = self.up(percent / 100)
            yield tag("line", x1=self.x, x2=self.x + WIDE, y1=y, y2=y, stroke=LINE)
            yield tag("text", f"{percent} %", x=self.x - 6, y=y + 4, text_anchor="end", fill=SOFT)
        for value, text in self.ticks:
            yield tag("text", text, x=self.across(value), y=self.y + HIGH + 15, text_anchor="middle", fill=SOFT)
        middle = self.x + WIDE / 2
        yield tag("text", self.below, x=middle, y=self.y + HIGH + 31, text_anchor="middle", fill=SOFT)


def plot(result: Mapping[str, Any]) -> str:
    """The sweep's rows: above, over the axis with most values, a line for each value of the next, a panel for each of the last.

    Below, against energy, joined where no other row is right as often for as little. The same result gives the same text.
    """
    rows = [row for row in result["rows"] if row["accuracy"]]
    across, lines, panels = sorted(AXES, key=lambda axis: -len(_values(result["rows"], axis)))
    series = {key: said for key, said in SERIES.items() if any(row[key] for row in rows)}
    colours = _colours(_values(result["rows"], lines))
    marks: list[str] = []
    at = TOP
    for key, said in series.items():
        for place, value in enumerate(_values(rows, panels)):
            some = [row for row in rows if row[panels] == value]
            ticks = [(_at(each), _written(across, each)) for each in _values(rows, across)]
            panel = _panel(place, at, f"{said}, {SAID[panels]} {_written(panels, value)}", SAID[across], ticks)
            marks += [*panel.frame(), *_curves(panel, some, key, across=across, lines=lines, colours=colours)]
        at += (1 + (len(_values(rows, panels)) - 1) // PER_LINE) * (HIGH + BETWEEN + BELOW)
    if price(result):
        shapes = _shapes(_values(rows, panels))
        marks += [*_against_energy(result, series, at, lines=lines, colours=colours, panels=panels, shapes=shapes)]
        at += HIGH + BETWEEN + BELOW + 22
    explained = [BARS] + [FRONT] * (price(result) is not None)
    marks += [tag("text", said, x=LEFT, y=at + 16 * place, fill=SOFT) for place, said in enumerate(explained)]
    at += 16 * len(explained)
    columns = min(PER_LINE, max(len(_values(rows, panels)), len(series), 1))
    width, height = columns * (WIDE + LEFT) + 24, at
    title = f"{Path(result['model']['path']).stem} on {result['profile']}, validation images"
    marks = [
        tag("title", title),
        tag("rect", width=width, height=height, fill="#ffffff"),
        tag("text", title, x=LEFT, y=20, font_weight=600),
        *_key(colours, lines),
        *marks,
    ]
    fonts = {"font_family": "system-ui, sans-serif", "font_size": 12, "fill": "#1b1f24"}
    return f"{tag('svg', *marks, xmlns='http://www.w3.org/2000/svg', viewBox=f'0 0 {width} {height}', role='img', **fonts)}\n"


def _panel(place: int, top: float, title: str, below: str, ticks: Sequence[tuple[float, str]]) -> _Panel:
    line, column = divmod(place, PER_LINE)
    return _Panel(
        x=LEFT + column * (WIDE + LEFT),
        y=top + line * (HIGH + BETWEEN + BELOW) + 14,
        title=title,
        below=below,
        ticks=ticks,
    )


def _values(rows: Sequence[Row], axis: str) -> list[Any]:
    return sorted({row[axis] for row in rows}, key=lambda value: value or 0)


def _at(value: float | None) -> float:
    return float(value or 0)


def _written(axis: str, value: float | None) -> str:
    if value is None:
        return "as recorded"
    return f"{value:.1%}" if axis == "sparsity" else f"{value:g}"


def _colours(values: Sequence[Any]) -> dict[Any, str]:
    """A colour for each value, as far apart as they go."""
    last = max(1, len(values) - 1)
    return {value: COLOURS[round(place * (len(COLOURS) - 1) / last)] for place, value in enumerate(values)}


def _shapes(values: Sequence[Any]) -> dict[Any, str]:
    """A shape for each value, as far as there are some."""
    return {value: SHAPES[place % len(SHAPES)] for place, value in enumerate(values)}


def _key(colours: Mapping[Any, str], lines: str) -> Iterator[str]:
    yield tag("text", f"{SAID[lines]}:", x=LEFT, y=42, fill=SOFT)
    for place, (value, colour) in enumerate(colours.items()):
        x = LEFT + 90 + place * 62
        yield tag("circle", cx=x, cy=38, r=4, fill=colour)
        yield tag("text", _written(lines, value), x=x + 8, y=42)


def _key_of_shapes(shapes: Mapping[Any, str], panels: str, at: float) -> Iterator[str]:
    """Beside the title of the panels that tell values by shapes."""
    yield tag("text", f"{SAID[panels]}:", x=LEFT, y=at, fill=SOFT)
    for place, (value, shape) in enumerate(shapes.items()):
        x = LEFT + 90 + place * 62
        yield _mark(shape, x, at - 4, SOFT)
        yield tag("text", _written(panels, value), x=x + 8, y=at)


def _curves(
    panel: _Panel, rows: Sequence[Row], key: str, *, across: str, lines: str, colours: Mapping[Any, str]
) -> Iterator[str]:
    for value, colour in colours.items():
        own = sorted((row for row in rows if row[lines] == value and row[key]), key=lambda row: _at(row[across]))
        path = " ".join(f"{panel.across(_at(row[across])):.2f},{panel.up(row[key]['accuracy']):.2f}" for row in own)
        yield tag("polyline", points=path, fill="none", stroke=colour, stroke_width=1.5)
        for row in own:
            place = panel.across(_at(row[across])), panel.up(row[key]["accuracy"])
            low, high = (panel.up(end) for end in row[key]["interval95"])
            yield tag("line", x1=place[0], x2=place[0], y1=low, y2=high, stroke=colour, stroke_opacity=0.5)
            yield _dot(*place, row, key, colour=colour)


def _against_energy(
    result: Mapping[str, Any],
    series: Mapping[str, str],
    at: int,
    *,
    lines: str,
    colours: Mapping[Any, str],
    panels: str,
    shapes: Mapping[Any, str],
) -> Iterator[str]:
    yield from _key_of_shapes(shapes, panels, at)
    judge, best = price(result), fronts(result)
    known = [row for row in result["rows"] if row["accuracy"] and judge in row["energy"]]
    ticks = [(tick, number(tick)) for tick in even(max(row["energy"][judge]["value"] for row in known))]
    for place, (key, said) in enumerate(series.items()):
        panel = _panel(place, at + 22, f"{said}, against energy", f"nJ/image, {judge}", ticks)
        yield from panel.frame()
        front = [result["rows"][index] for index in best.get("clean" if key == "accuracy" else "robust", ())]
        path = " ".join(
            f"{panel.across(row['energy'][judge]['value']):.2f},{panel.up(row[key]['accuracy']):.2f}" for row in front
        )
        yield tag("polyline", points=path, fill="none", stroke=SOFT)
        for row in known:
            if row[key]:
                spot = panel.across(row["energy"][judge]["value"]), panel.up(row[key]["accuracy"])
                yield _dot(*spot, row, key, colour=colours[row[lines]], shape=shapes[row[panels]])


def _dot(x: float, y: float, row: Row, key: str, *, colour: str, shape: str = "dot") -> str:
    width = "bits as recorded" if row["bits"] is None else f"{row['bits']} bits"
    low, high = row[key]["interval95"]
    said = f"{width}, T = {row['timesteps']}, {row['sparsity']:.1%} sparse: {share(row[key]['accuracy'])} ({low:.1%} to {high:.1%})"
    return _mark(shape, x, y, colour, tag("title", said))


def _mark(shape: str, x: float, y: float, colour: str, *inside: str) -> str:
    match shape:
        case "dot":
            return tag("circle", *inside, cx=x, cy=y, r=3, fill=colour)
        case "ring":
            return tag("circle", *inside, cx=x, cy=y, r=3, fill="#ffffff", stroke=colour, stroke_width=1.5)
        case "square":
            return tag("rect", *inside, x=x - 3, y=y - 3, width=6, height=6, fill=colour)
        case _:
            corners = f"{x:.2f},{y - 4:.2f} {x - 4:.2f},{y + 3:.2f} {x + 4:.2f},{y + 3:.2f}"
            return tag("polygon", *inside, points=corners, fill=colour)
