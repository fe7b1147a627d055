"""The report as one HTML page that needs nothing but itself: `page.html` is its frame, `sections` fills it, `charts` draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.report.page import frame, sections
from toolchain.report.page.figures import Notes

if TYPE_CHECKING:
    from collections.abc import Mapping

_HERE = Path(__file__).parent


def render(report: Mapping[str, Any]) -> str:
    """The page of a report; the same report gives the same bytes. A section that the report lacks is left out."""
    notes = Notes()
    return frame.render(
        _HERE / "page.html",
        report,
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
        title=f"{report['model'].get('name', 'model')} on {report['profile']['name']}",
        head=sections.head(report),
        sections=[section for section in sections.all_of(report, notes) if section.blocks],
        notes=notes.sources(),
    )
