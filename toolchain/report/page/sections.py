"""What the page says, section by section, in the order of the report's questions: does it fit, what does it do, what does it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolchain.report.page import charts
from toolchain.report.page.energy import energy
from toolchain.report.page.figures import Chart, Section, Table, figure_table, find, shown, shown_share
from toolchain.report.words import NOT_KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from toolchain.report.page.figures import Notes

    Report = Mapping[str, Any]
    Tile = tuple[str, Markup | str, Markup | str]


def all_of(report: Report, notes: Notes) -> list[Section]:
    """Every section, of which one has no blocks where the report says nothing about it."""
    return [
        Section(id="layers", title="Layers", blocks=list(_layers(report))),
        Section(id="cores", title="Cores", blocks=list(_cores(report))),
        Section(id="limits", title="Limits", blocks=list(_limits(report))),
        Section(id="memory", title="Memory", blocks=list(_memory(report, notes))),
        Section(id="activity", title="Activity", blocks=list(_activity(report))),
        Section(id="energy", title="Energy", blocks=list(energy(report, notes))),
        Section(id="accuracy", title="Accuracy and robustness", blocks=list(_accuracy(report))),
        Section(id="assumptions", title="What the figures rest on", blocks=list(_assumptions(report, notes))),
    ]


def head(report: Report) -> dict[str, Any]:
    """The summary: a sentence, the verdict, and a few tiles (name, figure, what it is)."""
    verdict = report["check"]
    return {
        "name": report["model"].get("name", "model"),
        "profile": report["profile"]["name"],
        "description": report["profile"].get("description", ""),
        "fits": verdict["ok"],
        "violations": [
            f"{finding['layer']}: {finding['resource']} exceeded. {finding['remedy']}"
            for finding in verdict["violations"]
        ],
        "tiles": list(_tiles(report)),
        "backend": report["activity"]["backend"],
        "samples": shown(report, "activity", "samples"),
        "hashes": {
            "model": report["model"].get("sha256") or NOT_KNOWN,
            "profile": report["profile"]["sha256"],
        },
    }


def _tiles(report: Report) -> Iterator[Tile]:
    mapping, accuracy = report["mapping"], report["accuracy"]
    yield "Cores", shown(report, "mapping", "n_cores"), _join("on ", shown(report, "mapping", "n_chips"), " chip(s)")
    worst = [(index, layer["worst_core"]) for index, layer in enumerate(mapping["layers"]) if layer["worst_core"]]
    if worst:
        index, fullest = max(worst, key=lambda entry: entry[1]["fill"])
        what = f"of its {fullest['resource']}: core {fullest['core']}, {mapping['layers'][index]['name']}"
        yield "Fullest core", shown_share(report, "mapping", "layers", index, "worst_core", "fill"), what
    kept, of = shown(report, "model", "n_nonzero_weights"), shown(report, "model", "n_weights")
    yield "Sparsity", shown(report, "model", "sparsity", say=_two_digits), _join(kept, " of ", of, " weights")
    synapses = shown(report, "network", "n_synapses")
    yield "Neurons", shown(report, "network", "n_neurons"), _join(synapses, " synapses, T = ", shown(report, "model", "T"))
    if "deployed" in accuracy and "accuracy" in accuracy["deployed"]:
        right, of = (shown(report, "accuracy", "deployed", key) for key in ("n_right", "n"))
        yield (
            "Clean accuracy",
            shown_share(report, "accuracy", "deployed", "accuracy"),
            _join("of the integers: ", right, " of ", of, " test images"),
        )
    robust = [keys for keys, outcome in _outcomes(accuracy) if outcome.get("attack") not in {None, "none"}]
    if robust:
        outcome = find(report, "accuracy", *robust[-1])
        what = f"{_label(robust[-1])}, {outcome['attack']}{_radius(outcome)}"
        yield "Robust accuracy", shown_share(report, "accuracy", *robust[-1], "accuracy"), what
    yield (
        "Spikes",
        shown(report, "activity", "spikes_per_image"),
        f"an image, by the {report['activity']['backend']}",
    )
    hardware = report["energy"].get("hardware", {})
    if "total_low" in hardware:
        low, high = (("energy", "hardware", name, "value") for name in ("total_low", "total_high"))
        if find(report, *low) is None:
            figure, what = shown(report, *low), f"no coefficients published for {report['profile']['name']}"
        else:
            same = find(report, *low) == find(report, *high)
            figure = shown(report, *low) if same else _join(shown(report, *low), " to ", shown(report, *high))
            what = f"{hardware['total_low']['unit']}, modelled, not measured"
        yield "Energy", figure, what
    stored = report["memory"].get("on_chip_bytes")
    if stored:
        yield "On-chip memory", shown(report, "memory", "on_chip_bytes", "value"), f"{stored['unit']}, {stored['how']}"


def _two_digits(value: float) -> str:
    return f"{value:.2%}"


def _join(*parts: str) -> Markup:
    return Markup("").join(parts)


def _radius(outcome: Mapping[str, Any]) -> str:
    """Of an attack, as papers write it."""
    if "eps" not in outcome:
        return ""
    return f", eps {outcome['eps'] * 255:.4g}/255"


def _layers(report: Report) -> Iterator[Table]:
    rows = []
    for index, layer in enumerate(report["network"]["layers"]):
        place = ("network", "layers", index)
        theta: Markup | str = "-"
        if layer["theta"]:
            low, high = layer["theta"]
            theta = shown(report, *place, "theta", 0)
            theta = theta if low == high else _join(theta, " to ", shown(report, *place, "theta", 1))
        rows.append(
            [
                layer["name"],
                layer["kind"] + (f", pool {layer['pool']}" if layer["pool"] > 1 else ""),
                "×".join(map(str, layer["shape"])),
                shown(report, *place, "n_neurons"),
                shown(report, *place, "n_nonzero_weights"),
                shown(report, *place, "n_weights"),
                shown(report, *place, "n_synapses"),
                shown(report, *place, "n_synapses_netx"),
                shown(report, *place, "weight_bits"),
                theta,
            ]
        )
    totals = (shown(report, "network", name) for name in ("n_neurons", "n_synapses", "n_synapses_netx"))
    neurons, synapses, netx = totals
    kept, weights = (shown(report, "model", name) for name in ("n_nonzero_weights", "n_weights"))
    rows.append(["all", "", "", neurons, kept, weights, synapses, netx, "", ""])
    columns = ("layer", "kind", "C×H×W", "neurons", "nonzero weights", "weights", "synapses", "in the netx file", "bits", "theta")
    yield Table(
        caption="Layers of the network",
        columns=columns,
        rows=rows,
        left=frozenset({0, 1, 2}),
        note="A synapse is an unrolled nonzero connection, pools unexpanded; the netx file spreads pools into kernels. "
        "Theta is the threshold in weight units; the readout has none.",
    )


def _cores(report: Report) -> Iterator[Table | Chart]:
    cores = report["mapping"].get("cores")
    if cores:
        controls = [("fullest", "scarcest resource"), *((entry["rule"], entry["resource"]) for entry in cores["resources"])]
        ends = [f"{end:.0%}" for end in charts.BANDS]
        key = [("f0", f"up to {ends[0]}"), *((f"f{i}", f"to {end}") for i, end in enumerate(ends[1:], 1))]
        yield Chart(
            title="How full each core is",
            kind="map",
            drawings=charts.chip_maps(report),
            controls=controls,
            key=[*key, ("over", "over the limit"), ("free", "free")],
            note="Share of the limit that may be planned for, head-room taken off. Cells stand in the order cores were filled; "
            "they are not positions on the chip.",
        )
    rows = []
    for index, layer in enumerate(report["mapping"]["layers"]):
        place, worst = ("mapping", "layers", index), layer["worst_core"]
        fullest: list[Markup | str] = [NOT_KNOWN, "", "", "", ""]
        if worst:
            at = (*place, "worst_core")
            fullest = [
                shown(report, *at, "core"),
                worst["resource"],
                _join(shown(report, *at, "used"), " of ", shown(report, *at, "limit"), f" {worst['unit']}"),
                shown_share(report, *at, "fill"),
                charts.meter(worst["fill"]),
            ]
        rows.append(
            [
                layer["name"],
                layer["format"],
                shown(report, *place, "n_cores"),
                _join(*_between(" × ", [shown(report, *place, "tile", axis) for axis in range(len(layer["tile"]))])),
                *fullest,
            ]
        )
    columns = ("layer", "format", "cores", "tile, y × x × c", "fullest core", "its scarcest resource", "used", "fill", "")
    yield Table(caption="Where each layer sits", columns=columns, rows=rows, left=frozenset({0, 1, 5}))


def _between(what: str, parts: list[Markup]) -> Iterator[str]:
    for index, part in enumerate(parts):
        if index:
            yield what
        yield part


def _limits(report: Report) -> Iterator[Table | str]:
    """Each limit of the profile where it is fullest; those of zero only where they are violated."""
    fullest: dict[tuple[str, str], int] = {}
    usage = report["check"]["usage"]
    for index, entry in enumerate(usage):
        if not entry["limit"] and not entry["used"]:
            continue
        best = fullest.setdefault((entry["rule"], entry["resource"]), index)
        if entry["used"] * usage[best]["limit"] > usage[best]["used"] * entry["limit"]:
            fullest[entry["rule"], entry["resource"]] = index
    rows = []
    for index in fullest.values():
        entry, place = usage[index], ("check", "usage", index)
        fill = entry["used"] / entry["limit"] if entry["limit"] else None
        rows.append(
            [
                entry["rule"],
                entry["resource"],
                entry["layer"] if entry["core"] is None else f"{entry['layer']}, core {entry['core']}",
                shown(report, *place, "used"),
                shown(report, *place, "limit"),
                entry["unit"],
                "exceeded" if entry["used"] > entry["limit"] else "kept",
                "" if fill is None else charts.meter(fill),
            ]
        )
    columns = ("rule", "limit of", "where it is fullest", "used", "limit", "unit", "", "")
    caption = f"Limits of {report['check']['profile']}, each where it is fullest"
    yield Table(caption=caption, columns=columns, rows=rows, left=frozenset({0, 1, 2, 5, 6}))


def _memory(report: Report, notes: Notes) -> Iterator[Table]:
    if report["memory"]:
        yield figure_table(report, "Memory", [(name, ("memory", name)) for name in report["memory"]], notes)


def _activity(report: Report) -> Iterator[Table | Chart | str]:
    activity = report["activity"]
    layers = activity["layers"]
    drawn = [index for index, layer in enumerate(layers) if layer.get("spikes_per_step")]
    sizes = {index: report["network"]["layers"][index]["n_neurons"] for index in drawn}
    if drawn:
        greatest = max(spikes / sizes[index] for index in drawn for spikes in layers[index]["spikes_per_step"])
        top = next((end for end in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if greatest <= end), 1.0)
        yield Chart(
            title="Neurons that spike in each step, per layer",
            kind="multiples",
            drawings=[_captioned(layers[index]["name"], charts.steps(report, index, top)) for index in drawn],
            note=_join(
                "Share of a layer's neurons, mean over ",
                shown(report, "activity", "samples"),
                f" images on the {activity['backend']}; one scale for all layers, the highest step labelled.",
            ),
        )
        n_steps = max(len(layers[index]["spikes_per_step"]) for index in drawn)
        rows = [
            [
                layers[index]["name"],
                *(shown(report, "activity", "layers", index, "spikes_per_step", step) for step in range(n_steps)),
                shown(report, "activity", "layers", index, "spikes_per_image"),
            ]
            for index in drawn
        ]
        yield Table(
            caption="Spikes an image in each step",
            columns=("layer", *(f"step {step + 1}" for step in range(n_steps)), "all steps"),
            rows=rows,
        )
    yield _activity_table(report)
    for key, what in (("silent", "never spikes"), ("always_on", "always spikes")):
        for name in activity[key]:
            yield f"{name} {what}: it carries no information."
    yield from _raster(report)


def _activity_table(report: Report) -> Table:
    rows = [
        [
            layer["name"],
            *(
                say(report, "activity", "layers", index, key)
                for key, say in (
                    ("spikes_per_image", shown),
                    ("rate", shown_share),
                    ("silent_neurons", shown),
                    ("active_share", shown_share),
                    ("wraps", shown),
                    ("saturations", shown),
                )
            ),
        ]
        for index, layer in enumerate(report["activity"]["layers"])
    ]
    columns = ("layer", "spikes/image", "rate", "neurons never seen to spike", "driven", "wraps", "saturations")
    note = "Rate: spikes a neuron and step. Driven: neuron-steps whose synaptic sum plus bias is not zero."
    return Table(caption="Activity of each layer", columns=columns, rows=rows, note=note)


def _captioned(name: str, drawing: Markup) -> Markup:
    return Markup("<figcaption>{}</figcaption>{}").format(name, drawing)


def _raster(report: Report) -> Iterator[Chart]:
    raster = report["activity"].get("raster")
    if not raster:
        return
    drawings = []
    for index, layer in enumerate(raster["layers"]):
        place = ("activity", "raster", "layers", index)
        caption = _join(
            layer["name"],
            ": ",
            shown(report, *place, "n_spikes"),
            " spikes, ",
            shown(report, *place, "n_shown"),
            " of ",
            shown(report, *place, "n_neurons"),
            " neurons",
        )
        drawings.append(_captioned(caption, charts.raster(report, index)))
    at = ("activity", "raster")
    label = "" if raster["label"] is None else _join(", label ", shown(report, *at, "label"))
    yield Chart(
        title="Spikes of one image",
        kind="multiples",
        drawings=drawings,
        note=_join(
            "Image ",
            shown(report, *at, "sample"),
            " of the test set",
            label,
            ", classified as ",
            shown(report, *at, "class"),
            f", on the {raster['backend']}. A row is a neuron, a column a step; neurons are spread evenly over each layer.",
        ),
    )


def _outcomes(accuracy: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield every measured accuracy with its place: training stages in their order, then the deployed network."""

    def walk(node: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
        if isinstance(node.get("accuracy"), (int, float)):
            yield keys, node
            return
        for key in sorted(node, key="deployed".__eq__):
            if isinstance(node[key], dict):
                yield from walk(node[key], (*keys, key))

    yield from walk(accuracy, ())


def _label(keys: tuple[str, ...]) -> str:
    match keys:
        case ("stages", stage, "validation", _):
            return f"after {stage}, validation"
        case ("deployed", *_):
            return "deployed integers, test"
    return ", ".join(keys[:-1] or keys)


def _accuracy(report: Report) -> Iterator[Table | Chart | str]:
    found = list(_outcomes(report["accuracy"]))
    if not found:
        yield "Not measured."
        return
    entries = [
        (_label(keys), "clean" if outcome.get("attack") in {None, "none"} else "attacked", ("accuracy", *keys))
        for keys, outcome in found
    ]
    if not any(kind == "attacked" and keys[1] == "deployed" for _, kind, keys in entries):
        yield "The robust accuracy of the deployed integers was not measured: n/a. Robust figures below are of the float network."
    yield Chart(
        title="Accuracy, clean and under attack",
        kind="dots",
        drawings=[charts.dots(report, entries, title="Accuracy of each stage, clean and under attack")],
        key=[("clean", "clean"), ("attacked", "under attack")],
        note="Lines are 95 % intervals, where the report has them.",
    )
    rows = []
    for (keys, outcome), (label, _, place) in zip(found, entries, strict=True):
        interval = outcome.get("interval95")
        ends = [shown_share(report, *place, "interval95", end) for end in range(2)] if interval else []
        attack = outcome.get("attack", "none")
        rows.append(
            [
                label,
                f"{attack}{_radius(outcome)}" if attack != "none" else "none",
                shown_share(report, *place, "accuracy"),
                _join(ends[0], " to ", ends[1]) if ends else NOT_KNOWN,
                shown(report, *place, "n_right") if "n_right" in outcome else NOT_KNOWN,
                shown(report, *place, "n") if "n" in outcome else NOT_KNOWN,
                outcome.get("backend", "float network" if keys[0] == "stages" else ""),
            ]
        )
    columns = ("network", "attack", "accuracy", "95 % interval", "right", "images", "computed by")
    yield Table(caption="Accuracy", columns=columns, rows=rows, left=frozenset({0, 1, 6}))


def _assumptions(report: Report, notes: Notes) -> Iterator[Table]:
    rows: list[list[Markup | str]] = []
    for index, entry in enumerate(report["assumptions"]):
        what: Markup | str = entry.get("statement", "")
        if "numbers" in entry:
            lines = [
                Markup("<li><code>{}</code> = {}</li>").format(name, _number(report, index, name, value))
                for name, value in entry["numbers"].items()
            ]
            what = Markup('<ul class="plain">{}</ul>').format(_join(*lines))
        rows.append([what, entry["status"], _join(entry["source"], " ", notes.link(entry["source"]))])
    if rows:
        caption = "Every assumption, and every number of the profile that nobody published as such"
        yield Table(caption=caption, columns=("what", "known", "source"), rows=rows, left=frozenset({0, 1, 2}))


def _number(report: Report, index: int, name: str, value: Any) -> Markup | str:
    """A number of the profile; a list of them as text."""
    return shown(report, "assumptions", index, "numbers", name) if isinstance(value, (int, float)) else str(value)
