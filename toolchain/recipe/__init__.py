"""A recipe: everything a training run depends on, read from TOML, checked as a whole, and JSON-able for checkpoints.

Every key has a default and a line that documents it, in `sections`. The stages a recipe describes, in order:
train (dense network), prune (its mask), sparse (masked finetuning), convert (to spikes), finetune (the spiking network).
With `method = "end-to-end"`, the baseline, two of them: prune (a mask for a network of random weights) and finetune (the
spiking network, trained from scratch under it).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from toolchain import resources
from toolchain.errors import ConfigError
from toolchain.recipe.parse import override, read
from toolchain.recipe.sections import (
    END_TO_END,
    HEAL,
    PAPER,
    STAGES,
    DataSettings,
    LossSettings,
    ModelSettings,
    Recipe,
    contradictions,
    parse_surrogate,
)
from toolchain.recipe.template import template

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = [
    "END_TO_END",
    "HEAL",
    "STAGES",
    "DataSettings",
    "LossSettings",
    "ModelSettings",
    "Recipe",
    "differences",
    "from_dict",
    "load",
    "parse_surrogate",
    "template",
]

BUDGETS = "budgets"
"""The table of a recipe file whose tables are overrides; `budget` names the one that is applied."""


def load(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a TOML file, or of a shipped recipe's name, under its budget, with `key=value` overrides applied last.

    Raises: ConfigError, which lists every fault.
    """
    path = resources.recipe_path(source)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(where=str(path), faults=(f"not TOML: {error}",)) from None
    except OSError as error:
        raise ConfigError(where=str(path), faults=(f"cannot be read: {error.strerror}",)) from None
    given: dict[str, Any] = {}
    faults = [fault for text in overrides for fault in override(given, text, into=table)]
    return from_dict(_merged(_budgeted(table, given, faults), given), where=str(path), faults=faults)


def _budgeted(table: dict[str, Any], given: dict[str, Any], faults: list[str]) -> dict[str, Any]:
    """`table` under the budget that it, or what was `given` beside it, names; every budget is checked."""
    budgets = table.pop(BUDGETS, {})
    if not isinstance(budgets, dict):
        faults.append(f"{BUDGETS}: expected a section, got {budgets!r}")
        return table
    sound = {}
    for name, budget in budgets.items():
        n_faults = len(faults)
        read(Recipe, budget, f"{BUDGETS}.{name}.", faults)
        if len(faults) == n_faults:
            sound[name] = budget
    name = given.get("budget", table.get("budget", PAPER))
    if isinstance(name, str) and name not in {PAPER, *budgets}:
        faults.append(f"budget: expected one of {', '.join((PAPER, *budgets))}, got {name!r}")
    return _merged(table, sound.get(name, {}) if isinstance(name, str) else {})


def _merged(table: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`table` with the keys of `other` in place of its own, section by section."""
    merged = dict(table)
    for key, value in other.items():
        own = merged.get(key)
        merged[key] = _merged(own, value) if isinstance(value, dict) and isinstance(own, dict) else value
    return merged


def from_dict(table: dict[str, Any], *, where: str = "recipe", faults: Iterable[str] = ()) -> Recipe:
    """The recipe of nested plain types; missing keys take their defaults. Raises ConfigError, which lists every fault."""
    found = list(faults)
    recipe: Recipe = read(Recipe, table, "", found)
    if not found:
        found.extend(contradictions(recipe))
    if found:
        raise ConfigError(where=where, faults=tuple(found))
    return recipe


def differences(one: Recipe, other: Recipe) -> tuple[str, ...]:
    """Dotted keys in which two recipes differ."""
    left, right = dict(_leaves(one.to_dict())), dict(_leaves(other.to_dict()))
    return tuple(key for key in left if left[key] != right[key])


def _leaves(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
