"""A page that needs nothing but itself: its style, its data and perhaps a script in one file, and a policy that lets no other run.

Whatever comes from profiles and models is text, never markup: jinja2 and markupsafe escape it.
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

if TYPE_CHECKING:
    from collections.abc import Mapping

_HERE = Path(__file__).parent


def render(template: Path, data: Mapping[str, Any], *, script: str = "", **content: Any) -> str:
    """The template filled, with `data` whole in it as JSON; equal content gives equal bytes."""
    style, code = Markup((_HERE / "page.css").read_text(encoding="utf-8")), Markup(script)  # noqa: S704  ours
    runs = f"'{_sha256(code)}'" if script else "'none'"
    return (
        _environment(template.parent)
        .get_template(template.name)
        .render(
            policy=f"default-src 'none'; style-src '{_sha256(style)}'; script-src {runs}",
            style=style,
            script=code,
            data=_embedded(data),
            **content,
        )
    )


@cache
def _environment(folder: Path) -> Environment:
    loader = FileSystemLoader([folder, _HERE])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _embedded(data: Mapping[str, Any]) -> Markup:
    """The data as JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  no character of it is markup any more


def _sha256(text: str) -> str:
    """What a content security policy calls a script or a style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
