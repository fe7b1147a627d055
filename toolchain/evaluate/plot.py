"""Robust accuracy against eps as one SVG that needs nothing but itself."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from toolchain.report.page.figures import tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Outcome = Mapping[str, Any]

COLOURS = ("#2a75b0", "#a33b00", "#4f9a6b", "#8f6bb0", "#c2a02e", "#7d8894")
LINE, SOFT = "#d0d7de", "#57606a"
LEFT, RIGHT, TOP, BOTTOM = 48, 460, 30, 250
WIDTH, HEIGHT = 640, 300
BETWEEN_LABELS = 14


def plot(result: Mapping[str, Any]) -> str:
    """The outcomes of `evaluate`: a line an attack from the clean accuracy through its radii, with 95 % intervals.

    Where several attacks were asked for, one more says how many images all of them leave right. The same result gives the
    same text.
    """
    clean, *attacked = result["outcomes"]
    lines: dict[str, list[Outcome]] = {}
    for outcome in (*attacked, *({**together, "attack": "all of these"} for together in result["together"])):
        lines.setdefault(outcome["attack"], []).append(outcome)
    curves = {
        name: sorted([{**clean, "eps": 0.0}, *outcomes], key=lambda outcome: outcome["eps"])
        for name, outcomes in lines.items()
    }
    curves = curves or {"none": [{**clean, "eps": 0.0}]}
    most = max((outcome["eps"] for outcome in attacked), default=0.0) or 1 / 255
    radii = sorted({outcome["eps"] for outcome in attacked} | {0.0})
    title = f"{result['model']['path']}, {result['data']['n']} test images of {result['data']['source']}"
    marks = [
        tag("title", title),
        tag("rect", width=WIDTH, height=HEIGHT, fill="#ffffff"),
        tag("text", title, x=LEFT, y=16, font_weight=600),
        *_axes(radii, most),
        *(
            mark
            for curve, colour in zip(curves.values(), itertools.cycle(COLOURS), strict=False)
            for mark in _curve(curve, most, colour)
        ),
        *_labels({name: curve[-1]["accuracy"] for name, curve in curves.items()}),
    ]
    fonts = {"font_family": "system-ui, sans-serif", "font_size": 12, "fill": "#1b1f24"}
    svg = tag("svg", *marks, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", **fonts)
    return f"{svg}\n"


def _across(eps: float, most: float) -> float:
    return LEFT + (RIGHT - LEFT) * eps / most


def _up(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share


def _axes(radii: Sequence[float], most: float) -> Iterator[str]:
    for percent in range(0, 101, 25):
        y = _up(percent / 100)
        yield tag("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, stroke=LINE)
        yield tag("text", f"{percent} %", x=LEFT - 6, y=y + 4, text_anchor="end", fill=SOFT)
    for eps in radii:
        yield tag("text", f"{255 * eps:g}", x=_across(eps, most), y=BOTTOM + 16, text_anchor="middle", fill=SOFT)
    middle = (LEFT + RIGHT) / 2
    yield tag("text", "eps, in 1/255 of a pixel's range", x=middle, y=BOTTOM + 34, text_anchor="middle", fill=SOFT)


def _curve(curve: Sequence[Outcome], most: float, colour: str) -> Iterator[str]:
    points = [(_across(outcome["eps"], most), _up(outcome["accuracy"])) for outcome in curve]
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    yield tag("polyline", points=path, fill="none", stroke=colour, stroke_width=1.5)
    for outcome, (x, y) in zip(curve, points, strict=True):
        low, high = outcome["interval95"]
        yield tag("line", x1=x, x2=x, y1=_up(low), y2=_up(high), stroke=colour)
        said = (
            f"{outcome['attack']} at {255 * outcome['eps']:g}/255: {outcome['accuracy']:.1%} ({low:.1%} to {high:.1%})"
        )
        yield tag("circle", tag("title", said), cx=x, cy=y, r=3.5, fill=colour)


def _labels(ends: Mapping[str, float]) -> Iterator[str]:
    """Each line's name beside its end, moved up where it would cover another's."""
    colours = dict(zip(ends, itertools.cycle(COLOURS), strict=False))
    above = float(HEIGHT)
    for name, accuracy in sorted(ends.items(), key=lambda end: end[1]):
        above = min(_up(accuracy) + 4, above - BETWEEN_LABELS)
        yield tag("text", f"{name} {accuracy:.1%}", x=RIGHT + 10, y=above, fill=colours[name])
