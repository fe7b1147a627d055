"""How often the network was right, clean and under attack, at each stage that was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.report.outcomes import label, outcomes
from toolchain.report.page import charts
from toolchain.report.page.figures import Chart, Table, join, shown, shown_share
from toolchain.report.words import NOT_KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Report = Mapping[str, Any]


def accuracy(report: Report) -> Iterator[Table | Chart | str]:
    """The blocks of the section."""
    found = list(outcomes(report["accuracy"]))
    if not found:
        yield "Not measured."
        return
    entries = [
        (label(keys), "clean" if outcome.get("attack") in {None, "none"} else "attacked", ("accuracy", *keys))
        for keys, outcome in found
    ]
    if not any(kind == "attacked" and keys[1] == "deployed_attacked" for _, kind, keys in entries):
        rest = (
            " Robust figures below are of the float network."
            if any(kind == "attacked" for _, kind, _ in entries)
            else ""
        )
        yield f"The robust accuracy of the deployed integers was not measured: {NOT_KNOWN}.{rest}"
    yield Chart(
        title="Accuracy, clean and under attack",
        kind="dots",
        drawings=[charts.dots(report, entries, title="Accuracy of each stage, clean and under attack")],
        key=[("clean", "clean"), ("attacked", "under attack")],
        note="Lines are 95 % intervals, where the report has them.",
    )
    rows = []
    for (keys, outcome), (name, _, place) in zip(found, entries, strict=True):
        interval = outcome.get("interval95")
        ends = [shown_share(report, *place, "interval95", end) for end in range(2)] if interval else []
        attack = outcome.get("attack", "none")
        rows.append(
            [
                name,
                f"{attack}{radius(outcome)}" if attack != "none" else "none",
                shown_share(report, *place, "accuracy"),
                join(ends[0], " to ", ends[1]) if ends else NOT_KNOWN,
                shown(report, *place, "n_right") if "n_right" in outcome else NOT_KNOWN,
                shown(report, *place, "n") if "n" in outcome else NOT_KNOWN,
                outcome.get("backend", "float network" if keys[0] == "stages" else ""),
            ]
        )
    columns = ("network", "attack", "accuracy", "95 % interval", "right", "images", "computed by")
    yield Table(caption="Accuracy", columns=columns, rows=rows, left=frozenset({0, 1, 6}))


def radius(outcome: Mapping[str, Any]) -> str:
    """Of an attack, as papers write it."""
    if "eps" not in outcome:
        return ""
    return f", eps {outcome['eps'] * 255:.4g}/255"
