"""Trains robust sparse spiking networks, deploys them as integers, and proves the deployed network on Lava.

Verbs on files and the nouns they pass on are here, under the names of `__all__`; the verbs of each step are in their modules:
`toolchain.quantize.quantize`, `toolchain.mapping.place`, `toolchain.emulate.run`. Importing this package loads neither torch nor Lava:
a name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolchain import check as check
    from toolchain import compare as compare
    from toolchain import convert as convert
    from toolchain import data as data
    from toolchain import emulate as emulate
    from toolchain import energy as energy
    from toolchain import evaluate as evaluate
    from toolchain import export as export
    from toolchain import finetune as finetune
    from toolchain import fit as fit
    from toolchain import heal as heal
    from toolchain import lavadl as lavadl
    from toolchain import mapping as mapping
    from toolchain import nets as nets
    from toolchain import nirfile as nirfile
    from toolchain import prune as prune
    from toolchain import quantize as quantize
    from toolchain import report as report
    from toolchain import simulate as simulate
    from toolchain import sweep as sweep
    from toolchain import train as train
    from toolchain.deployment import Folder as Folder
    from toolchain.deployment import Settings as Settings
    from toolchain.deployment import check_limits as check_limits
    from toolchain.deployment import export as export_model
    from toolchain.deployment import open_folder as open_folder
    from toolchain.deployment import read_report as read_report
    from toolchain.deployment.own import deploy as deploy
    from toolchain.errors import ToolchainError as ToolchainError
    from toolchain.ir import Network as Network
    from toolchain.pipeline import run as run
    from toolchain.profile import HardwareProfile as HardwareProfile
    from toolchain.profile import load as load_profile
    from toolchain.proof import simulate_folder as simulate_folder
    from toolchain.proof import verify as verify
    from toolchain.recipe import Recipe as Recipe
    from toolchain.recipe import load as load_recipe
    from toolchain.store import Model as Model
    from toolchain.store import load as load_model
    from toolchain.trace import Trace as Trace

__version__ = "0.1.0"

_HOMES = {
    "Folder": "deployment.Folder",
    "HardwareProfile": "profile.HardwareProfile",
    "Model": "store.Model",
    "Network": "ir.Network",
    "Recipe": "recipe.Recipe",
    "Settings": "deployment.Settings",
    "ToolchainError": "errors.ToolchainError",
    "Trace": "trace.Trace",
    "check_limits": "deployment.check_limits",
    "deploy": "deployment.own.deploy",
    "export_model": "deployment.export",
    "load_model": "store.load",
    "load_profile": "profile.load",
    "load_recipe": "recipe.load",
    "open_folder": "deployment.open_folder",
    "read_report": "deployment.read_report",
    "run": "pipeline.run",
    "simulate_folder": "proof.simulate_folder",
    "verify": "proof.verify",
}
STEPS = (
    *("data", "nets", "train", "prune", "convert", "finetune", "evaluate", "quantize"),
    *("mapping", "check", "export", "emulate", "simulate", "energy", "report"),
    *("compare", "fit", "heal", "sweep", "lavadl", "nirfile"),
)
"""Modules whose verbs are public too, in the order of the main path."""

__all__ = [
    "Folder",
    "HardwareProfile",
    "Model",
    "Network",
    "Recipe",
    "Settings",
    "ToolchainError",
    "Trace",
    "check_limits",
    "deploy",
    "export_model",
    "load_model",
    "load_profile",
    "load_recipe",
    "open_folder",
    "read_report",
    "run",
    "simulate_folder",
    "verify",
]


def __getattr__(name: str) -> Any:
    """The verb, noun or module of a name, from where it lives."""
    if name in STEPS:
        return importlib.import_module(f"toolchain.{name}")
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    home, _, there = _HOMES[name].rpartition(".")
    return getattr(importlib.import_module(f"toolchain.{home}"), there)


def __dir__() -> list[str]:
    """Every public name."""
    return sorted({*globals(), *__all__, *STEPS})
