"""The report as one HTML page that needs nothing but itself: `page.html` is its frame, `sections` fills it, `charts` draws.

Whatever comes from profiles and models is text, never markup: jinja2 and markupsafe escape it, and a content security policy
lets no script or style run but the page's own two.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from toolchain.report.page import sections
from toolchain.report.page.figures import Notes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template

_HERE = Path(__file__).parent


def render(report: Mapping[str, Any]) -> str:
    """The page of a report; the same report gives the same bytes. A section that the report lacks is left out."""
    notes = Notes()
    style, script = (Markup((_HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))  # noqa: S704  ours
    return _template().render(
        title=f"{report['model'].get('name', 'model')} on {report['profile']['name']}",
        policy=f"default-src 'none'; style-src '{_sha256(style)}'; script-src '{_sha256(script)}'",
        style=style,
        script=script,
        data=_embedded(report),
        head=sections.head(report),
        sections=[section for section in sections.all_of(report, notes) if section.blocks],
        notes=notes.sources(),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")


def _embedded(report: Mapping[str, Any]) -> Markup:
    """The report as JSON that cannot end the script element it stands in."""
    text = json.dumps(report, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  no character of it is markup any more


def _sha256(text: str) -> str:
    """What a content security policy calls a script or a style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
