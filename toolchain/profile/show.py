"""A profile as a table: for a terminal, and as plain types."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from toolchain.profile.model import HardwareProfile, Quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.profile.model import AnyProfile


def quantities(profile: AnyProfile) -> tuple[tuple[str, Quantity[Any], str], ...]:
    """Return (path such as `core.neurons`, quantity, what it is) of every number a profile has, in its order."""
    return tuple(_quantities(profile, ""))


def _quantities(part: Any, prefix: str) -> Iterator[tuple[str, Quantity[Any], str]]:
    for entry in fields(part):
        value = getattr(part, entry.name)
        path = f"{prefix}{entry.name}"
        if isinstance(value, Quantity):
            yield path, value, entry.metadata["doc"]
        elif is_dataclass(value):
            yield from _quantities(value, f"{path}.")
        elif entry.name == "sets":
            for name, chosen in value.items():
                yield from _quantities(chosen, f"{prefix}{name}.")


def to_dict(profile: AnyProfile) -> dict[str, Any]:
    """The profile as plain types that JSON can hold: a flat table of its quantities by path."""
    return {
        "name": profile.name,
        "description": profile.description,
        "sha256": profile.sha256,
        **({"input": profile.input} if isinstance(profile, HardwareProfile) else {}),
        "quantities": {
            path: {
                "value": quantity.value,
                "unit": quantity.unit,
                "status": quantity.status,
                "source": quantity.source,
                "what": what,
            }
            for path, quantity, what in quantities(profile)
        },
    }


def render(profile: AnyProfile) -> None:
    """The profile is on the terminal as a table: every number with its unit, how it is known, what it is, its source."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    cited = {quantity.source: None for _, quantity, _ in quantities(profile)}
    numbers = {source: index for index, source in enumerate(cited, start=1)}
    table = Table("key", "value", "unit", "known", "what it is (source)", title=profile.name, box=SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for path, quantity, what in quantities(profile):
        table.add_row(
            path, _shown(quantity.value), quantity.unit, quantity.status, f"{what} ({numbers[quantity.source]})"
        )
    console = Console()
    console.print(profile.description, markup=False)
    console.print(table)
    if isinstance(profile, HardwareProfile):
        reaches = {"graded": "graded messages", "bias": "the bias of the first layer's neurons"}[profile.input]
        console.print(f"An image reaches the first layer as {reaches}.")
    for source, index in numbers.items():
        console.print(f"({index}) {source}", markup=False, highlight=False, soft_wrap=True)


def _shown(value: float | tuple[float, ...] | None) -> str:
    if value is None:
        return "n/a"
    return " ".join(f"{item:,}" for item in value) if isinstance(value, tuple) else f"{value:,}"
