"""The report of an export with the robustness of its integers, where an evaluation measured it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from toolchain import store
from toolchain.deployed.fingerprint import fingerprint
from toolchain.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from toolchain.ir import Network

_TOLD = (
    "attack",
    "eps",
    "steps",
    "accuracy",
    "n",
    "n_right",
    "interval95",
    "before_rounding",
    "float",
    "against_float",
)


def with_robustness(made: Mapping[str, Any], evaluation: Path, network: Network) -> dict[str, Any]:
    """The report with what `evaluate --deployed` found of the same network, all its attacks together last.

    Raises FormatError for a file that is no such evaluation, or one of another network.
    """
    try:
        table = json.loads(store.read_bytes(evaluation))
        whose = table["deployed"]["network_sha256"]
        found = [outcome for outcome in table["outcomes"] if outcome["attack"] != "none"]
        found += [{"attack": "all of these", **outcome} for outcome in table["together"]]
        told = {
            f"{outcome['attack']}@{outcome['eps'] * 255:g}": {
                **{name: outcome[name] for name in _TOLD if name in outcome},
                "accuracy": float(outcome["accuracy"]),
                "backend": "emulator",
            }
            for outcome in found
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FormatError(
            path=str(evaluation), reason="not an evaluation of integers, by evaluate --deployed"
        ) from None
    if whose != fingerprint(network):
        reason = "of another network than the one exported; evaluate the same model with the same options, --deployed"
        raise FormatError(path=str(evaluation), reason=reason)
    return {**made, "accuracy": {**made["accuracy"], "deployed_attacked": told}}
