"""Whatever energy models a report has: their terms as bars, every figure in a table, layers beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolchain.report.page import charts
from toolchain.report.page.figures import Chart, Table, figure_table, find, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from toolchain.report.page.figures import Notes

    Report = Mapping[str, Any]
    Place = tuple[str | int, ...]
    Block = Table | Chart | str


def energy(report: Report, notes: Notes) -> Iterator[Block]:
    """The blocks of every model, the chip's first."""
    models = report["energy"]
    for name in sorted(models, key=lambda name: name != "hardware"):
        title, short = _titles(name, models[name])
        yield from _model(report, ("energy", name), title, short, notes)


def _titles(name: str, model: Mapping[str, Any]) -> tuple[str, str]:
    """What the model is, and the name its further tables begin with."""
    match name:
        case "hardware":
            return f"Energy of an image, modelled for {model['profile']}, not measured", str(model["profile"])
        case "eq12":
            return "Eq. 12: additions of the trained network; arithmetic only, not hardware energy", "eq. 12"
    return name, name


def _model(report: Report, place: Place, title: str, short: str, notes: Notes) -> Iterator[Block]:
    model = find(report, *place)
    if "terms" in model:
        yield _terms(report, place, title)
    own = [(key, (*place, key)) for key, entry in model.items() if _is_figure(entry)]
    if own:
        yield figure_table(report, title, own, notes)
    for key, entry in model.items():
        where, caption = (*place, key), f"{short}: {key.replace('_', ' ')}"
        if _is_figure(entry):
            continue
        if isinstance(entry, dict) and entry and all(map(_is_figure, entry.values())):
            yield figure_table(report, caption, [(name, (*where, name)) for name in entry], notes)
        elif isinstance(entry, dict):
            yield from _model(report, where, caption, caption, notes)
        elif isinstance(entry, list) and entry and all(isinstance(item, dict) for item in entry):
            yield _beside(report, where, caption, notes)


def _is_figure(entry: Any) -> bool:
    return isinstance(entry, dict) and {"value", "unit", "how", "source"} <= set(entry)


def _terms(report: Report, place: Place, title: str) -> Chart:
    model = find(report, *place)
    entries: list[tuple[str, Place]] = [(key.replace("_", " "), (*place, "terms", key)) for key in model["terms"]]
    note = "Synaptic events are priced over the nonzero synapses or over all stored ones: the two are alternatives, not a sum. "
    if model.get("omitted"):
        missing = ", ".join(model["omitted"]).replace("_", " ")
        note += f"Left out of the totals, for want of a coefficient: {missing}."
    return Chart(title=title, kind="bars", drawings=[charts.bars(report, entries, title=title)], note=note)


def _beside(report: Report, place: Place, caption: str, notes: Notes) -> Table:
    """A line an entry of a list, a column each of its figures."""
    entries = find(report, *place)
    keys = [key for key in entries[0] if any(_is_figure(entry.get(key)) for entry in entries)]
    units = {key: next(entry[key]["unit"] for entry in entries if _is_figure(entry.get(key))) for key in keys}
    rows = [
        [
            str(entry.get("name", index)),
            *(shown(report, *place, index, key, "value") if _is_figure(entry.get(key)) else "" for key in keys),
        ]
        for index, entry in enumerate(entries)
    ]
    sources = dict.fromkeys(entry[key]["source"] for entry in entries for key in keys if _is_figure(entry.get(key)))
    columns = ("layer", *(_heading(key, units[key]) for key in keys))
    links = Markup(" ").join(notes.link(source) for source in sources)
    return Table(caption=caption, columns=columns, rows=rows, note=Markup("Source: {}").format(links))


def _heading(key: str, unit: str) -> str:
    """A column's name and unit, said once where the unit says it all: `spikes` in `spikes/image`."""
    return unit if unit.startswith(f"{key}/") else f"{key.replace('_', ' ')}, {unit}"
