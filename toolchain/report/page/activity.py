"""What the network did: spikes of each layer and step, and of one image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolchain.report.losses import idle_channels
from toolchain.report.page import charts
from toolchain.report.page.figures import Chart, Table, join, shown, shown_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Report = Mapping[str, Any]


def activity(report: Report) -> Iterator[Table | Chart | str]:
    """The blocks of the section; what was not recorded is left out."""
    found = report["activity"]
    layers = found["layers"]
    drawn = [index for index, layer in enumerate(layers) if layer.get("spikes_per_step")]
    sizes = {index: report["network"]["layers"][index]["n_neurons"] for index in drawn}
    if drawn:
        greatest = max(spikes / sizes[index] for index in drawn for spikes in layers[index]["spikes_per_step"])
        top = next((end for end in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5) if greatest <= end), 1.0)
        yield Chart(
            title="Neurons that spike in each step, per layer",
            kind="multiples",
            drawings=[_captioned(layers[index]["name"], charts.steps(report, index, top)) for index in drawn],
            note=join(
                "Share of a layer's neurons, mean over ",
                shown(report, "activity", "samples"),
                f" images; backend: {found['backend']}. One scale for all layers, the highest step labelled.",
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
        for name in found[key]:
            yield f"{name} {what}: it carries no information."
    yield from idle_channels(report)
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
        caption = join(
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
    label = "" if raster["label"] is None else join(", label ", shown(report, *at, "label"))
    yield Chart(
        title="Spikes of one image",
        kind="multiples",
        drawings=drawings,
        note=join(
            "Image ",
            shown(report, *at, "sample"),
            " of the test set",
            label,
            ", classified as ",
            shown(report, *at, "class"),
            f"; backend: {raster['backend']}. A row is a neuron, a column a step; neurons are spread evenly over each layer.",
        ),
    )
