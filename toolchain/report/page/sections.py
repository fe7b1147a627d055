"""What the page says, section by section, in the order of the report's questions: does it fit, what does it do, what does it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolchain.report.losses import lost_weights
from toolchain.report.outcomes import label, outcomes
from toolchain.report.page import charts
from toolchain.report.page.accuracy import accuracy, radius
from toolchain.report.page.activity import activity
from toolchain.report.page.coding import image_input
from toolchain.report.page.energy import dense, energy, memory, neurobench, relays, under_attack
from toolchain.report.page.figures import Chart, Section, Table, find, join, shown, shown_share
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
        Section(id="input", title="Input", blocks=list(image_input(report))),
        Section(id="cores", title="Cores", blocks=list(_cores(report))),
        Section(id="limits", title="Limits", blocks=list(_limits(report))),
        Section(id="memory", title="Memory", blocks=list(memory(report, notes))),
        Section(id="relays", title="Relays", blocks=list(relays(report, notes))),
        Section(id="activity", title="Activity", blocks=list(activity(report))),
        Section(id="energy", title="Energy", blocks=list(energy(report, notes))),
        Section(id="attacked", title="Under attack", blocks=list(under_attack(report, notes))),
        Section(id="dense", title="Against the dense network", blocks=list(dense(report, notes))),
        Section(id="neurobench", title="NeuroBench", blocks=list(neurobench(report, notes))),
        Section(id="accuracy", title="Accuracy and robustness", blocks=list(accuracy(report))),
        Section(id="assumptions", title="What the figures rest on", blocks=list(_assumptions(report))),
    ]


def head(report: Report) -> dict[str, Any]:
    """The summary: a sentence, the verdict, and a few tiles (name, figure, what it is)."""
    verdict = report["check"]
    return {
        "name": report["model"].get("name", "model"),
        "profile": report["profile"]["name"],
        "description": report["profile"].get("description", ""),
        "fits": verdict["ok"],
        "verdict": {
            True: "Fits: every limit is kept.",
            False: "Does not fit.",
            None: f"Not checked: {report['mapping'].get('reason')}.",
        }[verdict["ok"]],
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
    mapping, measured = report["mapping"], report["accuracy"]
    chips = join("on ", shown(report, "mapping", "n_chips"), " chip(s)")
    yield "Cores", shown(report, "mapping", "n_cores"), mapping.get("reason") or chips
    worst = [(index, layer["worst_core"]) for index, layer in enumerate(mapping["layers"]) if layer["worst_core"]]
    if worst:
        index, fullest = max(worst, key=lambda entry: entry[1]["fill"])
        what = f"of its {fullest['resource']}: core {fullest['core']}, {mapping['layers'][index]['name']}"
        yield "Fullest core", shown_share(report, "mapping", "layers", index, "worst_core", "fill"), what
    kept, of = shown(report, "model", "n_nonzero_weights"), shown(report, "model", "n_weights")
    yield "Sparsity", shown(report, "model", "sparsity", say=_two_digits), join(kept, " of ", of, " weights")
    synapses = shown(report, "network", "n_synapses")
    yield (
        "Neurons",
        shown(report, "network", "n_neurons"),
        join(synapses, " synapses, T = ", shown(report, "model", "T")),
    )
    if "deployed" in measured and "accuracy" in measured["deployed"]:
        right, of = (shown(report, "accuracy", "deployed", key) for key in ("n_right", "n"))
        yield (
            "Clean accuracy",
            shown_share(report, "accuracy", "deployed", "accuracy"),
            join("of the integers: ", right, " of ", of, " test images"),
        )
    robust = [keys for keys, outcome in outcomes(measured) if outcome.get("attack") not in {None, "none"}]
    if robust:
        outcome = find(report, "accuracy", *robust[-1])
        what = f"{label(robust[-1])}, {outcome['attack']}{radius(outcome)}"
        yield "Robust accuracy", shown_share(report, "accuracy", *robust[-1], "accuracy"), what
    yield (
        "Spikes",
        shown(report, "activity", "spikes_per_image"),
        f"an image; backend: {report['activity']['backend']}",
    )
    yield from _costs(report)


def _costs(report: Report) -> Iterator[Tile]:
    """What the chip's own set of coefficients says, how fast it could be at best, and what it takes."""
    hardware = report["energy"].get("hardware")
    if hardware:
        chosen = ("energy", "hardware", "sets", hardware["default"])
        low, high = ((*chosen, name, "value") for name in ("total_low", "total_high"))
        if find(report, *low) is None:
            figure, what = shown(report, *low), f"no coefficients published for {report['profile']['name']}"
        else:
            same = find(report, *low) == find(report, *high)
            figure = shown(report, *low) if same else join(shown(report, *low), " to ", shown(report, *high))
            dynamic = [shown(report, *chosen, f"dynamic_{end}", "value") for end in ("low", "high")]
            unit = find(report, *chosen, "total_low", "unit")
            what = join(f"{unit}, modelled by {hardware['default']}, not measured; without static power ", dynamic[0])
            what = what if same else join(what, " to ", dynamic[1])
        yield "Energy", figure, what
        if hardware["latency"]["value"] is not None:
            bound = "us an image at least, one sample"
            yield "Latency", shown(report, "energy", "hardware", "latency", "value"), bound
    resident = report["memory"].get("resident_bytes")
    if resident:
        once = shown(report, "memory", "unique_bytes", "value")
        what = join("bytes in all cores, ", once, f" if each kernel is stored once; {resident['how']}")
        yield "On-chip memory", shown(report, "memory", "resident_bytes", "value"), what


def _two_digits(value: float) -> str:
    return f"{value:.2%}"


def _layers(report: Report) -> Iterator[Table]:
    rows = []
    for index, layer in enumerate(report["network"]["layers"]):
        place = ("network", "layers", index)
        theta: Markup | str = "-"
        if layer["theta"]:
            low, high = layer["theta"]
            theta = shown(report, *place, "theta", 0)
            theta = theta if low == high else join(theta, " to ", shown(report, *place, "theta", 1))
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
    columns = (
        "layer",
        "kind",
        "C×H×W",
        "neurons",
        "nonzero weights",
        "weights",
        "synapses",
        "in the netx file",
        "bits",
        "theta",
    )
    yield Table(
        caption="Layers of the network",
        columns=columns,
        rows=rows,
        left=frozenset({0, 1, 2}),
        note="A synapse is an unrolled nonzero connection, pools unexpanded; the netx file spreads pools into kernels. "
        f"Theta is the threshold in weight units; the readout has none. {lost_weights(report)}".strip(),
    )


def _cores(report: Report) -> Iterator[Table | Chart]:
    cores = report["mapping"].get("cores")
    if cores:
        controls = [
            ("fullest", "scarcest resource"),
            *((entry["rule"], entry["resource"]) for entry in cores["resources"]),
        ]
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
                join(shown(report, *at, "used"), " of ", shown(report, *at, "limit"), f" {worst['unit']}"),
                shown_share(report, *at, "fill"),
                charts.meter(worst["fill"]),
            ]
        rows.append(
            [
                layer["name"],
                layer["format"],
                shown(report, *place, "n_cores"),
                join(*_between(" × ", [shown(report, *place, "tile", axis) for axis in range(len(layer["tile"]))])),
                *fullest,
            ]
        )
    columns = (
        "layer",
        "format",
        "cores",
        "tile y×x×c",
        "fullest core",
        "its scarcest resource",
        "used",
        "fill",
        "",
    )
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


def _assumptions(report: Report) -> Iterator[Table]:
    rows: list[list[Markup | str]] = []
    for index, entry in enumerate(report["assumptions"]):
        what: Markup | str = entry.get("statement", "")
        if "numbers" in entry:
            lines = [
                Markup("<li><code>{}</code> = {}</li>").format(name, _number(report, index, name, value))
                for name, value in entry["numbers"].items()
            ]
            what = Markup('<ul class="plain">{}</ul>').format(join(*lines))
        rows.append([what, entry["status"], entry["source"]])
    if rows:
        caption = "Every assumption, and every number of the profile that nobody published as such"
        yield Table(caption=caption, columns=("what", "known", "source"), rows=rows, left=frozenset({0, 1, 2}))


def _number(report: Report, index: int, name: str, value: Any) -> Markup | str:
    """A number of the profile; a list of them as text."""
    return shown(report, "assumptions", index, "numbers", name) if isinstance(value, (int, float)) else str(value)
