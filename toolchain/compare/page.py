"""A comparison as one HTML page that needs nothing but itself, in the style of a report's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolchain.report.page import frame
from toolchain.report.page.figures import Chart, Notes, Section, Table, shown, shown_share
from toolchain.report.page.scatter import scatter
from toolchain.report.words import NOT_KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Comparison = Mapping[str, Any]


def render(comparison: Comparison) -> str:
    """The page of a comparison; the same comparison gives the same bytes."""
    notes = Notes()
    models, profiles = (list(dict.fromkeys(row[key] for row in comparison["rows"])) for key in ("model", "profile"))
    title = f"{_list(models)} on {_list(profiles)}"
    sections = [
        Section(id="rows", title="Side by side", blocks=list(_tables(comparison, notes))),
        Section(id="plots", title="What is paid and what is got", blocks=list(_plots(comparison))),
    ]
    return frame.render(
        Path(__file__).with_name("page.html"),
        comparison,
        title=title,
        sections=[section for section in sections if section.blocks],
        notes=notes.sources(),
    )


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _tables(comparison: Comparison, notes: Notes) -> Iterator[Table | str]:
    rows = comparison["rows"]
    yield Table(
        caption="Models on profiles",
        columns=(
            "",
            "model",
            "profile",
            "fits",
            "sparsity",
            "T",
            "cores",
            "chips",
            "clean accuracy",
            "robust",
            "spikes/image",
        ),
        rows=[
            [
                str(index + 1),
                row["model"],
                row["profile"],
                {True: "yes", False: "no", None: NOT_KNOWN}[row["fits"]],
                shown_share(comparison, "rows", index, "sparsity"),
                *(shown(comparison, "rows", index, key) for key in ("T", "n_cores", "n_chips")),
                *(_share(comparison, index, key) for key in ("accuracy", "robust")),
                shown(comparison, "rows", index, "spikes"),
            ]
            for index, row in enumerate(rows)
        ],
        left=frozenset({0, 1, 2, 3}),
        note=_measured(rows),
    )
    for index, row in enumerate(rows, start=1):
        yield from (f"Row {index}: {said}" for said in (row["reason"], row["note"]) if said)
    yield _figures(comparison, "energy", "Energy of an image, nJ: modelled, not measured, over nonzero synapses", notes)
    yield _figures(comparison, "memory", "Memory, bytes", notes)


def _measured(rows: list[Mapping[str, Any]]) -> str:
    """What the accuracies are of."""
    clean = next((row["accuracy"] for row in rows if row["accuracy"]), None)
    robust = next((row["robust"] for row in rows if row["robust"]), None)
    said = []
    if clean:
        said.append(f"Clean: of the integer network, test images, {clean['backend']}.")
    if robust:
        eps = f", eps {robust['eps'] * 255:g}/255" if "eps" in robust else ""
        said.append(
            f"Robust: {robust['attack']}{eps}, measured in training ({robust['measured']}), of the float network."
        )
    return " ".join(said)


def _share(comparison: Comparison, index: int, key: str) -> Markup | str:
    outcome = comparison["rows"][index][key]
    return shown_share(comparison, "rows", index, key, "accuracy") if outcome else NOT_KNOWN


def _figures(comparison: Comparison, key: str, caption: str, notes: Notes) -> Table:
    """A line a row, a column each figure that any row has."""
    rows = comparison["rows"]
    names = list(dict.fromkeys(name for row in rows for name in row[key]))
    body: list[list[Markup | str]] = []
    for index, row in enumerate(rows):
        cells = [
            shown(comparison, "rows", index, key, name, "value") if name in row[key] else NOT_KNOWN for name in names
        ]
        links = dict.fromkeys(notes.link(row[key][name]["source"]) for name in names if name in row[key])
        body.append([str(index + 1), row["model"], row["profile"], *cells, Markup(" ").join(links)])
    columns = ("", "model", "profile", *(name.replace("_", " ") for name in names), "source")
    return Table(caption=caption, columns=columns, rows=body, left=frozenset({0, 1, 2, len(columns) - 1}))


def _plots(comparison: Comparison) -> Iterator[Chart]:
    for index, plot in enumerate(comparison["plots"]):
        name = f"Accuracy against {plot['name']}"
        yield Chart(
            title=name,
            kind="dots",
            drawings=[scatter(comparison, index, title=name)],
            key=[("clean", "clean"), ("attacked", "robust")],
            note="Numbers are rows. A line joins the rows that no other beats: cheaper and as accurate, or as cheap and more so.",
        )
