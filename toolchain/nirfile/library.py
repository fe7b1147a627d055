"""The library `nir`, which is optional, and what our own graphs have beside their nodes."""

from __future__ import annotations

import importlib
from typing import Any

from toolchain.errors import ConfigError

DT = 1e-4
"""Seconds of a step in graphs of ours, as in most libraries'."""
OURS = "rsnn_deploy"
"""Key of the graph's metadata under which ours stand."""
V_TH = "rsnn_deploy_v_th"
"""Key of a neuron's metadata: the threshold at which it spikes."""
SCHEMA = 1


def library() -> Any:
    """Return the module `nir`. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module("nir")
    except ImportError:
        fault = 'reading and writing them takes the library nir: pip install "rsnn-deploy[nir]"'
        raise ConfigError(where="NIR graphs", faults=(fault,)) from None
