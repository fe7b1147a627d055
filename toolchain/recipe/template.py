"""A recipe file that explains itself: every key with what it means, most of them commented out at their defaults."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from typing import TYPE_CHECKING, Any

from toolchain.recipe.sections import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HEAD = """\
# A recipe for one's own data. Train with `rsnn-deploy run FILE --out DIR`; try it out first with `--set budget=minutes`.
# Every key is optional: a line that begins with # shows a default. Pixels are in [0, 1]; "8/255" is a number too.
"""
_BUDGETS = """
# A budget is a table of keys that replace those above: `budget = "minutes"` here, or `--set budget=minutes`, takes it.
[budgets.minutes]
data.train_images = 2000
train.epochs = 5
prune.epochs = 2
sparse.epochs = 2
convert.timesteps = 30
finetune.epochs = 2
attack.validation = 100
"""
_WIDTH = 118


def template(chosen: Mapping[str, Any]) -> str:
    """The text of a recipe file with every key; those of `chosen`, by dotted name, are set, the others commented out."""
    lines = [_HEAD, *_keys(Recipe, "", chosen)]
    for section in dataclasses.fields(Recipe):
        if dataclasses.is_dataclass(section.default):
            kind = type(section.default)
            lines += ["", f"[{section.name}]", *_keys(kind, f"{section.name}.", chosen)]
    return "\n".join(lines) + "\n" + _BUDGETS


def _keys(kind: type, prefix: str, chosen: Mapping[str, Any]) -> Iterator[str]:
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default):
            continue
        name = f"{prefix}{field.name}"
        yield from textwrap.wrap(field.metadata["doc"], _WIDTH, initial_indent="# ", subsequent_indent="# ")
        yield f"{field.name} = {_toml(chosen[name])}" if name in chosen else f"# {field.name} = {_toml(field.default)}"


def _toml(value: Any) -> str:
    """A value as TOML, and pixels as the fraction they are."""
    if isinstance(value, float) and 0 < value < 1 and abs(255 * value - round(255 * value)) < 1e-9:
        return f'"{round(255 * value)}/255"'
    return json.dumps(list(value) if isinstance(value, tuple) else value)
