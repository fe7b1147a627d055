"""How an image reaches the first layer, where that is not by messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.report.page.figures import Table, join, shown, shown_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Report = Mapping[str, Any]


def image_input(report: Report) -> Iterator[Table | str]:
    """The blocks of the section: the biases that the host sets, and what they change against messages."""
    coding = report.get("input", {})
    if "limit" not in coding:  # messages
        return
    limit = shown(report, "input", "limit")
    yield join(
        f"{report['profile']['name']} takes spikes, not numbers: the host computes what drives the first layer and sets it, within ",
        limit,
        ", as the neurons' biases. Its work is in no energy here.",
    )
    compared = coding.get("against_messages")
    if not compared:
        return
    at = ("input", "against_messages")
    rows = [
        [
            layer["name"],
            *(shown(report, *at, "layers", index, key) for key in ("spikes", "spikes_messages", "differing")),
            shown_share(report, *at, "layers", index, "differing_share"),
        ]
        for index, layer in enumerate(compared["layers"])
    ]
    columns = ("layer", "spikes", "spikes with messages", "neuron-steps that differ", "share of them")
    note = join(
        "On ",
        shown(report, *at, "samples"),
        " test images, of which ",
        shown(report, *at, "classes_differing"),
        " change class.",
    )
    yield Table(caption="Against the network that would take messages", columns=columns, rows=rows, note=note)
