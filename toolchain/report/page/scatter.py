"""The drawing of what is paid against what is got."""

from __future__ import annotations

import json
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolchain.report.page.charts import drawing
from toolchain.report.page.figures import pointer, tag
from toolchain.report.words import number, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LOG_FROM = 30
"""How many times the least the greatest price is from which a plot is logarithmic."""


def scatter(comparison: Mapping[str, Any], index: int, *, title: str) -> Markup:
    """A dot a row: what it pays to the right, how often it is right upwards; lines join those that no other beats."""
    plot = comparison["plots"][index]
    points, unit = plot["points"], plot["unit"]
    left, right, top, high = 60, 480, 12, 220
    spread = [point["x"] for point in points if point["x"] > 0]
    logarithmic = bool(spread) and max(spread) > LOG_FROM * min(spread) and len(spread) == len(points)
    ticks = (
        _decades(min(spread), max(spread)) if logarithmic else even(max((point["x"] for point in points), default=1))
    )

    def across(value: float) -> float:
        low, end = (log10(ticks[0]), log10(ticks[-1])) if logarithmic else (0.0, ticks[-1])
        return left + (right - left) * ((log10(value) if logarithmic else value) - low) / (end - low)

    def up(part: float) -> float:
        return top + high * (1 - part)

    marks = [
        *_levels(left, right, up),
        *(
            mark
            for tick in ticks
            for mark in (
                tag("line", x1=across(tick), x2=across(tick), y1=up(1), y2=up(0), class_="grid"),
                tag("text", number(tick), x=across(tick), y=up(0) + 15, class_="mid tick"),
            )
        ),
        tag(
            "text",
            f"{plot['name']}, {unit}" if unit != plot["name"] else unit,
            x=(left + right) / 2,
            y=up(0) + 32,
            class_="mid tick",
        ),
    ]
    at_row = {point["row"]: (place, point) for place, point in enumerate(points)}
    for series, kind in (("clean", "clean"), ("robust", "attacked")):
        best = [at_row[row][1] for row in plot["front"][series]]
        path = "".join(
            f"{'L' if n else 'M'}{across(point['x']):.1f} {up(point[series]):.1f}" for n, point in enumerate(best)
        )
        marks.append(tag("path", d=path, class_=f"interval {kind}", fill="none") if len(best) > 1 else Markup(""))
        dots = [(place, point) for place, point in enumerate(points) if point[series] is not None]
        for place, point in dots:
            row = comparison["rows"][point["row"]]
            what = f"{row['model']} on {row['profile']}: {number(point['x'])} {unit}, {share(point[series])} {series}"
            marks.append(
                tag(
                    "circle",
                    tag("title", what),
                    cx=across(point["x"]),
                    cy=up(point[series]),
                    r=4.5,
                    class_=kind,
                    data_path=pointer("plots", index, "points", place, series),
                    data_value=json.dumps(point[series]),
                )
            )
        marks += _labels([(across(point["x"]), up(point[series]), point["row"] + 1) for _, point in dots])
    return drawing(title, right + 40, int(high) + 56, *marks)


def _labels(dots: list[tuple[float, float, int]]) -> Iterator[Markup]:
    """The number of each dot beside it; dots that touch share a label."""
    groups: list[list[tuple[float, float, int]]] = []
    for dot in sorted(dots):
        near = (group for group in groups if abs(group[-1][0] - dot[0]) < 14 and abs(group[-1][1] - dot[1]) < 11)
        group = next(near, None)
        if group is None:
            groups.append([dot])
        else:
            group.append(dot)
    for group in groups:
        x, y = max(dot[0] for dot in group), sum(dot[1] for dot in group) / len(group)
        yield tag(
            "text",
            ", ".join(str(number_of) for *_, number_of in sorted(group, key=lambda dot: dot[2])),
            x=x + 8,
            y=y + 4,
            class_="tick",
        )


def _levels(left: int, right: int, up: Callable[[float], float]) -> Iterator[Markup]:
    """The lines of 0 to 100 %."""
    for tick in range(0, 101, 25):
        y = up(tick / 100)
        yield tag("line", x1=left, x2=right, y1=y, y2=y, class_="grid")
        yield tag("text", f"{tick} %", x=left - 6, y=y + 4, class_="name tick")


def even(greatest: float) -> list[float]:
    """Four to eight round numbers from 0 past the greatest."""
    rough = (greatest or 1) / 5
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [step * n for n in range(ceil(greatest / step) + 1)] if greatest else [0.0, 1.0]


def _decades(least: float, greatest: float) -> list[float]:
    """Powers of ten around both."""
    return [10.0**n for n in range(floor(log10(least)), ceil(log10(greatest)) + 1)]
