"""What quantization lost, in sentences: weights that became 0, channels that carry nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LISTED = 12
"""Channels named of a layer, at most"""


def lost_weights(report: Mapping[str, Any]) -> str:
    """Of each layer, how many kept weights rounding made 0; empty where there are none."""
    found = [
        f"{layer['name']} {layer['rounded_away']:,} of {layer['n_nonzero_weights']:,}"
        for layer in report["network"]["layers"]
        if layer.get("rounded_away")
    ]
    return f"Kept weights that became 0 when rounded: {', '.join(found)}." if found else ""


def idle_channels(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield, of each layer that is neither silent nor always on as a whole, the channels that are."""
    activity = report["activity"]
    for layer in activity["layers"]:
        for key, whole, what in (
            ("silent_channels", "silent", "never spike"),
            ("always_on_channels", "always_on", "spike at every step"),
        ):
            channels = layer.get(key)
            if channels and layer["name"] not in activity[whole]:
                more = f" and {len(channels) - _LISTED} more" if len(channels) > _LISTED else ""
                listed = ", ".join(map(str, channels[:_LISTED]))
                yield f"{layer['name']}: channels that {what} in these images: {listed}{more}."
