"""What an image costs: every model's total, then each model's terms, layers and counts, and whatever model comes beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolchain.report.beside import at, knows_static, totals
from toolchain.report.page import charts
from toolchain.report.page.figures import Chart, Table, figure_table, find, join, shown
from toolchain.report.words import NOT_KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from toolchain.report.page.figures import Notes

    Report = Mapping[str, Any]
    Place = tuple[str | int, ...]
    Block = Table | Chart | str


def energy(report: Report, notes: Notes) -> Iterator[Block]:
    """The blocks of every model, the chip's first."""
    models = report["energy"]
    found = list(totals(models))
    if found:
        rows = [
            [name, shown(report, "energy", *place, "value"), notes.link(find(report, "energy", *place)["source"])]
            for name, place in found
        ]
        yield Table(
            caption="Energy of an image, by each model",
            columns=("model", "nJ/image", "source"),
            rows=rows,
            left=frozenset({0, 2}),
            note="Modelled, not measured. Models answer different questions: eq. 12 is arithmetic only, Lemaire's processor is "
            "no chip. A chip is priced by each published set of coefficients, over its nonzero synapses or over all that it "
            "stores, without and with the static power of whole chips; a total is that of its known terms.",
        )
    for name in sorted(models, key=lambda name: {"hardware": 0, "lemaire": 1}.get(name, 2)):
        match name:
            case "hardware":
                yield from _hardware(report, notes)
            case "lemaire":
                yield from _lemaire(report, notes)
            case "eq12":
                title = "Eq. 12: additions of the trained network; arithmetic only, not hardware energy"
                yield from _model(report, ("energy", name), title, "eq. 12", notes)
            case _:
                yield from _model(report, ("energy", name), name, name, notes)


def _hardware(report: Report, notes: Notes) -> Iterator[Block]:
    place: Place = ("energy", "hardware")
    made = find(report, *place)
    chip = made["profile"]
    for name, chosen in made["sets"].items():
        yield from _set(report, (*place, "sets", name), f"{chip}, {chosen['statement']}", notes)
    yield figure_table(report, f"Events of an image on {chip}", _each(made["counts"], (*place, "counts")), notes)
    yield _beside(report, (*place, "layers"), f"Events of an image on {chip}, by layer", notes)
    worst = made["worst_core"]
    times = [(key, (*place, key)) for key in ("steps", "t_step", "latency", "static")]
    busiest = [(f"worst core: {key} a step", (*place, "worst_core", key)) for key in ("synops", "updates")]
    yield figure_table(report, "Time of an image, a lower bound", [*busiest, *times], notes)
    yield f"The worst core is {worst['where']}: the slowest core of a step is what every other waits for."
    context = report.get("context", [])
    if context:
        yield Table(
            caption=f"Measured by others on {chip}, of another network: to know the scale by, not an estimate of this one",
            columns=("what", "value", "unit", "known", "source"),
            rows=[
                [
                    entry["what"],
                    shown(report, "context", i, "value"),
                    entry["unit"],
                    entry["status"],
                    notes.link(entry["source"]),
                ]
                for i, entry in enumerate(context)
            ],
            left=frozenset({0, 2, 3, 4}),
        )


def _set(report: Report, place: Place, title: str, notes: Notes) -> Iterator[Block]:
    """One set of coefficients: where the energy goes, by term and by layer."""
    made = find(report, *place)
    terms = _each(made["terms"], (*place, "terms"))
    note = "Synaptic events are priced over the nonzero synapses or over all stored ones: the two are alternatives, not a sum. "
    if made["omitted"]:
        missing = ", ".join(made["omitted"]).replace("_", " ")
        note += f"Left out of the totals, for want of a coefficient: {missing}."
    name = f"Where it goes: {title}"
    yield Chart(title=name, kind="bars", drawings=[charts.bars(report, terms, title=name)], note=note)
    sums: list[tuple[str, Place]] = [
        (f"{total}, {which} synapses", (*place, f"{total}_{end}"))
        for total in ("dynamic", "total")
        for end, which in (("low", "nonzero"), ("high", "stored"))
    ]
    yield figure_table(report, f"Energy of an image, modelled for {title}, not measured", [*terms, *sums], notes)
    yield from _by_layer(report, (*place, "layers"), title, notes, skip={"synapses_stored"})


def _lemaire(report: Report, notes: Notes) -> Iterator[Block]:
    place: Place = ("energy", "lemaire")
    title = "an ideal event-driven processor in 45 nm (Lemaire 2022)"
    terms = _each(find(report, *place, "terms"), (*place, "terms"))
    name = f"Where it goes: {title}"
    yield Chart(title=name, kind="bars", drawings=[charts.bars(report, terms, title=name)])
    yield figure_table(report, f"Energy of an image on {title}", [*terms, ("total", (*place, "total"))], notes)
    yield from _by_layer(report, (*place, "layers"), title, notes, skip=set())


def _by_layer(report: Report, place: Place, title: str, notes: Notes, *, skip: set[str]) -> Iterator[Block]:
    """Layers beside each other, their terms stacked, and in a table; no drawing where nothing is known."""
    layers = find(report, *place)
    terms = [key for key in layers[0] if _is_figure(layers[0][key]) and key not in {*skip, "total"}]
    known = [term for term in terms if any(layer[term]["value"] for layer in layers)]
    if known:
        name = f"By layer: {title}"
        yield Chart(
            title=name,
            kind="bars",
            drawings=[charts.stacked(report, place, known, title=name)],
            key=[(f"t{index}", term.replace("_", " ")) for index, term in enumerate(known)],
        )
    yield _beside(report, place, f"Energy of an image by layer: {title}", notes)


def _each(figures: Mapping[str, Any], place: Place) -> list[tuple[str, Place]]:
    return [(key.replace("_", " "), (*place, key)) for key in figures]


def _model(report: Report, place: Place, title: str, short: str, notes: Notes) -> Iterator[Block]:
    """Any model: its figures in tables, whatever they are called."""
    model = find(report, *place)
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


def _beside(report: Report, place: Place, caption: str, notes: Notes) -> Table:
    """A line an entry of a list, a column each of its figures."""
    entries = find(report, *place)
    keys = [key for key in entries[0] if any(_is_figure(entry.get(key)) for entry in entries)]
    units = {key: next(entry[key]["unit"] for entry in entries if _is_figure(entry.get(key))) for key in keys}
    one = set(units.values()) if len(set(units.values())) == 1 else set()
    rows = [
        [
            str(entry.get("name", index)),
            *(shown(report, *place, index, key, "value") if _is_figure(entry.get(key)) else "" for key in keys),
        ]
        for index, entry in enumerate(entries)
    ]
    sources = dict.fromkeys(entry[key]["source"] for entry in entries for key in keys if _is_figure(entry.get(key)))
    columns = ("layer", *(key.replace("_", " ") if one else _heading(key, units[key]) for key in keys))
    links = Markup(" ").join(notes.link(source) for source in sources)
    unit = f"{one.pop()}. " if one else ""
    return Table(caption=caption, columns=columns, rows=rows, note=join(unit, "Source: ", links))


def _heading(key: str, unit: str) -> str:
    """A column's name and unit, said once where the unit says it all: `spikes` in `spikes/image`."""
    counted = unit.removesuffix("/image")
    return key.replace("_", " ") if key.startswith(counted) else f"{key.replace('_', ' ')}, {unit}"


def memory(report: Report, notes: Notes) -> Iterator[Block]:
    """The blocks of the section: bytes and words of the network, then of each layer."""
    figures = [(name, ("memory", name)) for name, entry in report["memory"].items() if _is_figure(entry)]
    if figures:
        yield figure_table(report, "What the network takes", figures, notes)
    if report["memory"].get("layers"):
        yield _beside(report, ("memory", "layers"), "What each layer takes", notes)


def relays(report: Report, notes: Notes) -> Iterator[Block]:
    """The blocks of the section: what a residual network's skip connections take on a chain."""
    found = report.get("relays")
    if found:
        figures = {name: entry for name, entry in found.items() if name != "layers"}
        yield figure_table(report, "What passing spikes on takes", _each(figures, ("relays",)), notes)


def neurobench(report: Report, notes: Notes) -> Iterator[Block]:
    """The blocks of the section."""
    figures = report.get("neurobench", {})
    if figures:
        yield figure_table(report, "By NeuroBench's definitions", _each(figures, ("neurobench",)), notes)


def under_attack(report: Report, notes: Notes) -> Iterator[Block]:
    """The blocks of the section: the same images clean and attacked."""
    found = report.get("attacked")
    if not found:
        return
    sides: tuple[Place, Place] = (("attacked", "clean"), ("attacked", "adversarial"))
    yield found["attack"]["statement"]
    layers = found["clean"]["activity"]["layers"]
    spikes = [
        (layer["name"], [(*side, "activity", "layers", index, "spikes_per_image") for side in sides])
        for index, layer in enumerate(layers)
    ]
    name = "Spikes of each layer, clean and attacked"
    yield Chart(
        title=name,
        kind="bars",
        drawings=[charts.pairs(report, spikes, title=name, unit="spikes/image")],
        key=[("first", "clean"), ("second", "attacked")],
    )
    rows = [[layer, *(shown(report, *place) for place in places), ""] for layer, places in spikes]
    whole = [shown(report, *side, "activity", "spikes_per_image") for side in sides]
    rows.append(["all layers", *whole, shown(report, "attacked", "ratios", "spikes", "value")])
    rows.append(["images classified right", *(shown(report, *side, "accuracy", "n_right") for side in sides), ""])
    images = join("Of ", shown(report, *sides[0], "activity", "samples"), " images; spikes are means of an image.")
    columns = ("", "clean", "attacked", "ratio")
    yield Table(caption="What the network does, clean and attacked", columns=columns, rows=rows, note=images)
    places = tuple((*side, "energy") for side in sides)
    rows, source = _compared(report, places, ("attacked", "ratios", "energy"), notes)
    caption = "What it costs, clean and attacked, nJ/image"
    yield Table(caption=caption, columns=columns, rows=rows, note=source)


def dense(report: Report, notes: Notes) -> Iterator[Block]:
    """The blocks of the section: the network with every weight beside it as it is."""
    found = report.get("dense")
    if not found:
        return
    yield f"Dense means {found['assumption']}."
    cores = [shown(report, *place, "n_cores") for place in (("mapping",), ("dense", "mapping"))]
    rows: list[list[Markup | str]] = [["cores", *cores, ""]]
    for key, entry in report["memory"].items():
        if _is_figure(entry) and key != "stored_bytes":
            both = (shown(report, *place, key, "value") for place in (("memory",), ("dense", "memory")))
            rows.append([f"{key.replace('_', ' ')}", *both, ""])
    columns = ("", "this network", "dense, assumed", "ratio")
    yield Table(
        caption="What the dense network would take", columns=columns, rows=rows, note=found["mapping"]["reason"]
    )
    places = (("energy",), ("dense", "energy"))
    rows, source = _compared(report, places, ("dense", "ratios", "energy"), notes)
    yield Table(caption="What the dense network would cost, nJ/image", columns=columns, rows=rows, note=source)


def _compared(
    report: Report, places: Sequence[Place], ratios: Place, notes: Notes
) -> tuple[list[list[Markup | str]], Markup]:
    """Totals of two situations with their ratio, each followed by its terms; and what the ratio is."""
    rows: list[list[Markup | str]] = []
    what = ""
    for name, place in totals(find(report, *places[0])):
        ratio = (*ratios, *place)
        what = find(report, *ratio, "source")
        both = _both(report, places, place)
        rows.append([Markup("<b>{}</b>").format(name), *both, shown(report, *ratio, "value")])
        terms = (*place[:-1], "terms")
        model = at(find(report, *places[0]), place[:-1])
        if place[-1] == "total" or (place[-1].endswith("low") and place[-1].startswith("total") == knows_static(model)):
            rows += [
                [f"- {term.replace('_', ' ')}", *_both(report, places, (*terms, term)), ""]
                for term in at(find(report, *places[0]), terms)
            ]
    return rows, join("Ratio: ", notes.link(what))


def _both(report: Report, places: Sequence[Place], place: tuple[str, ...]) -> list[Markup | str]:
    return [
        shown(report, *where, *place, "value") if at(find(report, *where), place) else NOT_KNOWN for where in places
    ]
