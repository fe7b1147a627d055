"""Plots of what is paid against what is got, and which rows no other row beats in both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Row = Mapping[str, Any]

STATIC = " + static"
"""Ends the name of an energy that another stands for: whole chips' static power moves every row of a profile alike."""
GOT = {"clean": "accuracy", "robust": "robust"}
"""Series of a plot, and the row's outcome that each shows."""


def plots(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a plot for each price that at least two rows know: cores, each energy, latency, memory."""
    prices: dict[str, tuple[str, Callable[[Row], float | None]]] = {"cores": ("cores", lambda row: row["n_cores"])}
    for name in dict.fromkeys(name for row in rows for name in row["energy"] if not name.endswith(STATIC)):
        prices[f"energy: {name}"] = ("nJ/image", lambda row, name=name: _value(row["energy"].get(name)))  # type: ignore[misc]
    prices["latency"] = ("us/image", lambda row: _value(row["latency"]))
    prices["memory on chip"] = ("bytes", lambda row: _value(row["memory"].get("resident_bytes")))
    made = [_plot(rows, name, unit, price) for name, (unit, price) in prices.items()]
    return [plot for plot in made if len(plot["points"]) > 1]


def _value(figure: Mapping[str, Any] | None) -> float | None:
    return None if figure is None else figure["value"]


def _plot(rows: Sequence[Row], name: str, unit: str, price: Callable[[Row], float | None]) -> dict[str, Any]:
    points = []
    for index, row in enumerate(rows):
        got = {series: row[key]["accuracy"] for series, key in GOT.items() if row[key]}
        paid = price(row)
        if paid is not None and got and row["fits"] is not False:
            points.append({"row": index, "x": paid, **{series: got.get(series) for series in GOT}})
    return {"name": name, "unit": unit, "points": points, "front": {series: front(points, series) for series in GOT}}


def front(points: Sequence[Mapping[str, Any]], series: str) -> list[int]:
    """The rows that no other beats: none is cheaper or as cheap and better, nor as good and cheaper. Cheapest first."""
    known = [point for point in points if point[series] is not None]

    def beaten(point: Mapping[str, Any]) -> bool:
        return any(
            other["x"] <= point["x"]
            and other[series] >= point[series]
            and (other["x"], other[series]) != (point["x"], point[series])
            for other in known
        )

    return [point["row"] for point in sorted(known, key=lambda point: (point["x"], point["row"])) if not beaten(point)]
