"""The drawings of the page, as SVG by a few functions of our own: thin marks, direct labels, every mark with its figure.

A mark that stands for a figure carries its place in the report (data-path), its exact value (data-value) and a title.
"""

from __future__ import annotations

import json
from math import ceil
from typing import TYPE_CHECKING, Any

from toolchain.report.page.figures import find, pointer, tag
from toolchain.report.words import NOT_KNOWN, number, share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    Report = Mapping[str, Any]
    Path = tuple[str | int, ...]

BANDS = (0.25, 0.5, 0.75, 0.9, 1.0)
"""Upper ends of the bands of fill; what is over the last violates a limit. page.js has them too"""
_CELL, _HIGH, _GAP = 50, 34, 4


def band(fill: float | None) -> str:
    """The class of a fill, least inclusive."""
    if fill is None:
        return "unknown"
    return next((f"f{index}" for index, end in enumerate(BANDS) if fill <= end), "over")


def fullest(cores: Mapping[str, Any], at: int) -> int | None:
    """Which resource core number `at` has least of; None where none is known."""
    fills = {
        index: resource["used"][at] / resource["limit"]
        for index, resource in enumerate(cores["resources"])
        if resource["used"][at] is not None and resource["limit"]
    }
    return max(fills, key=lambda index: fills[index]) if fills else None


def chip_maps(report: Report) -> list[Markup]:
    """A drawing a chip: its cores in the order they were filled, each coloured by its scarcest resource, then the free ones."""
    cores = report["mapping"]["cores"]
    return [_chip(report, chip) for chip in sorted(set(cores["chip"]))]


def _chip(report: Report, chip: int) -> Markup:
    cores = report["mapping"]["cores"]
    used = [at for at, on in enumerate(cores["chip"]) if on == chip]
    n_cells = max(cores["per_chip"], len(used))
    columns = next((n for n in range(16, 11, -1) if n_cells % n == 0), 16) if n_cells > 16 else n_cells
    width, height = columns * (_CELL + _GAP) - _GAP, -(-n_cells // columns) * (_HIGH + _GAP) - _GAP

    def place(cell: int) -> tuple[int, int]:
        return cell % columns * (_CELL + _GAP), cell // columns * (_HIGH + _GAP)

    cells = [_core(report, at, *place(cell)) for cell, at in enumerate(used)]
    free = [
        tag("rect", x=x + 0.5, y=y + 0.5, width=_CELL - 1, height=_HIGH - 1, rx=3, class_="free")
        for x, y in (place(cell) for cell in range(len(used), n_cells))
    ]
    name = f"Chip {chip}: {len(used):,} of {cores['per_chip']:,} cores used"
    return drawing(name, width, height, *cells, *free, titled=True)


def _core(report: Report, at: int, x: int, y: int) -> Markup:
    cores = report["mapping"]["cores"]
    core, layer, which = cores["core"][at], cores["layer"][at], fullest(cores, at)
    place = value = fill = None
    title = f"core {core}, {layer}: {NOT_KNOWN}"
    if which is not None:
        resource = cores["resources"][which]
        value, limit = resource["used"][at], resource["limit"]
        place, fill = pointer("mapping", "cores", "resources", which, "used", at), value / limit
        title = f"core {core}, {layer}: {resource['resource']} {value:,} of {limit:,} {resource['unit']}, {fill:.1%}"
    return tag(
        "g",
        tag("title", title),
        tag("rect", x=x, y=y, width=_CELL, height=_HIGH, rx=3),
        tag("text", percent(fill), x=x + _CELL / 2, y=y + 15, class_="fill"),
        tag("text", layer if len(layer) <= 9 else f"{layer[:8]}…", x=x + _CELL / 2, y=y + 27, class_="layer"),
        class_=f"core {band(fill)}",
        data_core=at,
        data_path=place,
        data_value=None if place is None else json.dumps(value),
    )


def percent(fill: float | None) -> str:
    """Whole percents; what is not nothing never reads 0, and what is not full never reads 100."""
    if fill is None:
        return NOT_KNOWN
    if 0 < fill < 0.01:
        return "<1 %"
    return f"{min(int(fill * 100 + 0.5), 99) if fill < 1 else ceil(fill * 100)} %"


def bars(report: Report, entries: Sequence[tuple[str, Path]], *, title: str) -> Markup:
    """A bar a figure, from 0, its value beside it; one that is unknown reads n/a and has no bar."""
    values = [find(report, *path)["value"] for _, path in entries]
    greatest = max((value for value in values if value is not None), default=0) or 1
    left, room, row = 170, 330, 22
    marks: list[Markup] = []
    for index, ((name, path), value) in enumerate(zip(entries, values, strict=True)):
        figure, y = find(report, *path), index * row
        known, unit = value is not None, figure["unit"]
        length = room * value / greatest if known else 0.0
        label = f"{number(value)} {unit} ({figure['how']})" if known else f"{NOT_KNOWN}: {_short(figure['source'])}"
        marks += [
            tag("text", name, x=left - 8, y=y + 15, class_="name"),
            tag(
                "g",
                tag("title", f"{name}: {number(value)} {unit}. {figure['source']}"),
                tag("rect", x=left, y=y + 5, width=length, height=12, class_="bar") if known else "",
                tag("text", label, x=left + length + 6, y=y + 15, class_="value" if known else "value na"),
                data_path=pointer(*path, "value"),
                data_value=json.dumps(value),
            ),
        ]
    height = len(entries) * row + 4
    axis = tag("line", x1=left, x2=left, y1=0, y2=height, class_="axis")
    return drawing(title, left + room + 210, height, *marks, axis)


def stacked(report: Report, place: Path, terms: Sequence[str], *, title: str) -> Markup:
    """A bar a layer, its terms one after the other, from 0, and its total beside it."""
    layers = find(report, *place)
    sums = [sum(layer[term]["value"] or 0 for term in terms) for layer in layers]
    greatest = max(sums) or 1
    left, room, row = 170, 330, 22
    marks: list[Markup] = []
    for index, layer in enumerate(layers):
        x, y = float(left), index * row
        marks.append(tag("text", layer["name"], x=left - 8, y=y + 15, class_="name"))
        for number_of, term in enumerate(terms):
            figure = layer[term]
            length = room * (figure["value"] or 0) / greatest
            what = f"{layer['name']}, {term.replace('_', ' ')}: {number(figure['value'])} {figure['unit']}"
            marks.append(
                tag(
                    "rect",
                    tag("title", what),
                    x=x,
                    y=y + 4,
                    width=length,
                    height=14,
                    class_=f"t{number_of}",
                    data_path=pointer(*place, index, term, "value"),
                    data_value=json.dumps(figure["value"]),
                )
            )
            x += length
        total = layer["total"]
        marks.append(
            tag(
                "text",
                f"{number(total['value'])} {total['unit']}",
                x=x + 6,
                y=y + 15,
                class_="value",
                data_path=pointer(*place, index, "total", "value"),
                data_value=json.dumps(total["value"]),
            )
        )
    height = len(layers) * row + 4
    axis = tag("line", x1=left, x2=left, y1=0, y2=height, class_="axis")
    return drawing(title, left + room + 210, height, *marks, axis)


def pairs(report: Report, entries: Sequence[tuple[str, Sequence[Path]]], *, title: str, unit: str) -> Markup:
    """Two bars an entry, one below the other, from 0, each with its value. entries: name, and the places of two numbers."""
    greatest = max((find(report, *path) or 0 for _, paths in entries for path in paths), default=0) or 1
    left, room, row = 170, 330, 34
    marks: list[Markup] = []
    for index, (name, paths) in enumerate(entries):
        y = index * row
        marks.append(tag("text", name, x=left - 8, y=y + 19, class_="name"))
        for which, (kind, path) in enumerate(zip(("first", "second"), paths, strict=True)):
            value = find(report, *path)
            length = room * (value or 0) / greatest
            marks.append(
                tag(
                    "g",
                    tag("title", f"{name}: {number(value)} {unit}"),
                    tag("rect", x=left, y=y + 3 + 13 * which, width=length, height=11, class_=kind),
                    tag("text", number(value), x=left + length + 6, y=y + 12 + 13 * which, class_="value"),
                    data_path=pointer(*path),
                    data_value=json.dumps(value),
                )
            )
    height = len(entries) * row + 4
    axis = tag("line", x1=left, x2=left, y1=0, y2=height, class_="axis")
    return drawing(title, left + room + 130, height, *marks, axis)


def _short(reason: str) -> str:
    reason = reason.removeprefix("omitted: ")
    return reason if len(reason) <= 72 else f"{reason[:71]}…"


def steps(report: Report, index: int, top: float) -> Markup:
    """A layer's spikes in each step as shares of its neurons, on a scale from 0 to `top` that all layers share."""
    layer = report["activity"]["layers"][index]
    per_step, n_neurons = layer["spikes_per_step"], report["network"]["layers"][index]["n_neurons"]
    left, wide, high = 36, 190.0, 84.0
    pitch = wide / max(1, len(per_step))
    peak = max(range(len(per_step)), key=lambda step: per_step[step], default=0)
    marks: list[Markup] = []
    for step, spikes in enumerate(per_step):
        part = spikes / n_neurons
        bar = high * part / top
        x = left + (step + 0.5) * pitch
        thickness = min(10.0, 0.7 * pitch)
        what = f"{layer['name']}, step {step + 1}: {number(spikes)} spikes an image, {part:.1%} of its neurons"
        marks.append(
            tag(
                "rect",
                tag("title", what),
                x=x - thickness / 2,
                y=18 + high - bar,
                width=thickness,
                height=bar,
                class_="bar",
                data_path=pointer("activity", "layers", index, "spikes_per_step", step),
                data_value=json.dumps(spikes),
            )
        )
        if step == peak:
            marks.append(
                tag("text", f"{part:.1%}", x=min(max(x, left + 16), left + wide - 16), y=14 + high - bar, class_="mid")
            )
        if step in {0, len(per_step) - 1}:
            marks.append(tag("text", str(step + 1), x=x, y=18 + high + 13, class_="mid tick"))
    scale = [
        tag("line", x1=left, x2=left + wide, y1=18 + high, y2=18 + high, class_="axis"),
        tag("text", "0", x=left - 5, y=18 + high + 4, class_="name tick"),
        tag("text", f"{top:.0%}", x=left - 5, y=18 + 4, class_="name tick"),
        tag("line", x1=left, x2=left + wide, y1=18, y2=18, class_="grid"),
        tag("text", "step", x=left + wide / 2, y=18 + high + 13, class_="mid tick"),
    ]
    name = f"{layer['name']}: share of its {n_neurons:,} neurons that spike in each step"
    return drawing(name, int(left + wide) + 4, int(high) + 36, *scale, *marks)


def raster(report: Report, index: int) -> Markup:
    """The spikes of one image in a layer: a row a neuron, a column a step, one path for all."""
    layer = report["activity"]["raster"]["layers"][index]
    trains = layer["spikes"]
    n_steps = len(trains[0]) if trains else 0
    left, wide, high = 34, 190.0, 200.0
    pitch, row = wide / max(1, n_steps), min(4.0, high / max(1, len(trains)))
    tall = row * len(trains)
    thick = min(8.0, 0.8 * pitch)
    ticks = [
        f"M{left + (step + 0.5) * pitch - thick / 2:.1f} {4 + (place + 0.5) * row:.2f}h{thick:.1f}"
        for place, train in enumerate(trains)
        for step, spike in enumerate(train)
        if spike == "1"
    ]
    path = pointer("activity", "raster", "layers", index, "n_spikes")
    marks = [
        tag("rect", x=left, y=4, width=wide, height=tall, class_="plot"),
        tag(
            "path",
            d="".join(ticks),
            class_="spikes",
            stroke_width=max(0.8, 0.75 * row),
            data_path=path,
            data_value=json.dumps(layer["n_spikes"]),
        ),
        tag("text", "1", x=left - 5, y=12, class_="name tick"),
        tag("text", str(len(trains)), x=left - 5, y=4 + tall, class_="name tick") if len(trains) > 4 else "",
        tag("text", "1", x=left + 0.5 * pitch, y=4 + tall + 13, class_="mid tick"),
        tag("text", str(n_steps), x=left + (n_steps - 0.5) * pitch, y=4 + tall + 13, class_="mid tick")
        if n_steps > 1
        else "",
        tag("text", "step", x=left + wide / 2, y=4 + tall + 13, class_="mid tick"),
    ]
    name = f"{layer['name']}: {layer['n_spikes']:,} spikes of {len(trains):,} neurons in {n_steps} steps"
    return drawing(name, int(left + wide) + 4, int(tall) + 22, *marks)


def dots(report: Report, entries: Sequence[tuple[str, str, Path]], *, title: str) -> Markup:
    """A dot an accuracy, from 0 to 100 %, its 95 % interval as a line where there is one.

    entries: label, mark (`clean` filled or `attacked` open) and place; those of the same label that follow each other share a row.
    """
    left, room, row = 190, 400, 26
    labels = list(dict.fromkeys(label for label, _, _ in entries))
    height = len(labels) * row + 24
    grid = [
        mark
        for tick in range(0, 101, 25)
        for mark in (
            tag("line", x1=left + room * tick / 100, x2=left + room * tick / 100, y1=0, y2=height - 20, class_="grid"),
            tag("text", f"{tick} %", x=left + room * tick / 100, y=height - 5, class_="mid tick"),
        )
    ]
    marks = [tag("text", label, x=left - 10, y=i * row + 17, class_="name") for i, label in enumerate(labels)]
    for label, kind, path in entries:
        outcome, y = find(report, *path), labels.index(label) * row + 13
        accuracy, interval = outcome["accuracy"], outcome.get("interval95")
        x = left + room * accuracy
        what = f"{label}, {outcome.get('attack', 'clean')}: {share(accuracy)} of {outcome.get('n', 0):,} images"
        if interval:
            ends = [left + room * end for end in interval]
            marks.append(tag("line", x1=ends[0], x2=ends[1], y1=y, y2=y, class_=f"interval {kind}"))
            what += f", 95 % interval {share(interval[0])} to {share(interval[1])}"
        marks.append(
            tag(
                "circle",
                tag("title", what),
                cx=x,
                cy=y,
                r=4.5,
                class_=kind,
                data_path=pointer(*path, "accuracy"),
                data_value=json.dumps(accuracy),
            )
        )
    return drawing(title, left + room + 24, height, *grid, *marks)


def meter(fill: float) -> Markup:
    """A small bar of a fill, for a table's cell, whose figure stands beside it."""
    over = fill > 1
    inner = tag("rect", width=60 * min(1.0, fill), height=8, class_="over" if over else "bar")
    return tag(
        "svg",
        tag("rect", width=60, height=8, class_="plot"),
        inner,
        width=60,
        height=8,
        class_="meter",
        aria_hidden="true",
    )


def drawing(name: str, width: int, height: int, *marks: str, titled: bool = False) -> Markup:
    """An SVG element with its name for those who cannot see it; `titled` writes the name above the drawing too."""
    above = 22 if titled else 0
    heading = tag("text", name, x=0, y=13, class_="heading") if titled else ""
    body = tag("g", *marks, transform=f"translate(0 {above})")
    return tag(
        "svg",
        tag("title", name),
        heading,
        body,
        viewBox=f"0 0 {width} {height + above}",
        width=width,
        height=height + above,
        role="img",
    )
