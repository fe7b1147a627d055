"""Trains robust sparse spiking networks, deploys them as integers, and proves the deployed network on Lava.

Importing this package loads neither torch nor Lava: what `__all__` names is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolchain.deployment.own import deploy as deploy

__version__ = "0.1.0"

_HOMES = {"deploy": "toolchain.deployment.own"}
__all__ = ["deploy"]


def __getattr__(name: str) -> Any:
    """The verb or noun of a name, from the module it lives in."""
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(_HOMES[name]), name)
