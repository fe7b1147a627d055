"""Every accuracy that a report tells of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def outcomes(measured: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield every measured accuracy with its place: training stages in their order, then the deployed network."""

    def walk(node: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
        if isinstance(node.get("accuracy"), (int, float)):
            yield keys, node
            return
        for key in sorted(node, key=lambda key: key.startswith("deployed")):
            if isinstance(node[key], dict):
                yield from walk(node[key], (*keys, key))

    yield from walk(measured, ())


def label(keys: tuple[str, ...]) -> str:
    """What a person calls the network measured there."""
    match keys:
        case ("stages", stage, "validation", _):
            return f"after {stage}, validation"
        case ("deployed" | "deployed_attacked", *_):
            return "deployed integers, test"
    return ", ".join(keys[:-1] or keys)
