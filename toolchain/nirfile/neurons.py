"""Neurons of a NIR graph, as ours at the front of which weights are scaled, or refused with the difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.adopt.neurons import STRICTLY
from toolchain.errors import ConfigError, UnsupportedError
from toolchain.nirfile.library import V_TH
from toolchain.spiking import V_TH_MIN

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_OTHERS = {
    "CubaLIF": "its synapses leak",
    "CubaLI": "its synapses leak, and it does not spike",
    "LI": "it leaks and does not spike; end with a linear layer, whose sums are read",
    "I": "it does not spike; end with a linear layer, whose sums are read",
    "Threshold": "it has no membrane",
}
NAMES = frozenset({"IF", "LIF", *_OTHERS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Neurons:
    """Our neurons, and by what each output channel of the layer before them is to be multiplied.

    dt: the step that they were read with; None where it does not matter. Shapes: gains (channels,).
    """

    v_th: float
    leak: float
    gains: Floats
    dt: float | None


def neurons(name: str, node: Any, channels: int, dt: float | None) -> Neurons:
    """Return what a node computes each step. Raises UnsupportedError for what ours cannot, ConfigError where it takes a dt.

    Shapes: each parameter of the node is a number, one a channel, or one a neuron with channels first.
    """
    kind = type(node).__name__
    if kind in _OTHERS:
        raise _unsupported(name, f"{kind}: {_OTHERS[kind]}; only IF and LIF can be deployed")
    given = {key: _parameter(name, node, key) for key in ("v_threshold", "v_reset", "r")}
    if (given["v_reset"] != 0).any():
        raise _unsupported(name, f"{kind}: v_reset is {_some(given['v_reset'])}; only a reset to 0 can be deployed")
    leak, gain, taken = _leaky(name, node, given["r"], dt) if kind == "LIF" else _integrating(name, given["r"], dt)
    with np.errstate(divide="ignore", invalid="ignore"):
        v_th = given["v_threshold"] / gain
    if not ((v_th < np.finfo(np.float32).max) & (v_th > 0) & (gain > 0)).all():
        raise _unsupported(name, f"{kind}: its thresholds and r are not all finite and greater than 0")
    if v_th.size > 1 and (v_th != v_th.flat[0]).any():
        per_channel = _per_channel(name, kind, v_th, channels)
        return Neurons(v_th=_above(1.0), leak=leak, gains=1 / per_channel, dt=taken)
    one = _at(node, float(v_th.flat[0]))
    if one < V_TH_MIN:  # weights can be scaled where a threshold would be raised
        return Neurons(v_th=1.0, leak=leak, gains=np.full(channels, 1 / one), dt=taken)
    return Neurons(v_th=one, leak=leak, gains=np.ones(channels), dt=taken)


def _integrating(name: str, r: Floats, dt: float | None) -> tuple[float, Floats, float | None]:
    """Return leak, gain and step of an IF node."""
    if (r == 1).all():
        return 0.0, r, None
    if dt is None:
        raise _asks(name, f"r is {_some(r)}")
    return 0.0, r * dt, dt


def _leaky(name: str, node: Any, r: Floats, dt: float | None) -> tuple[float, Floats, float | None]:
    """Return leak, gain and step of a LIF node."""
    tau, v_leak = _parameter(name, node, "tau"), _parameter(name, node, "v_leak")
    if (v_leak != 0).any():
        raise _unsupported(name, f"LIF: v_leak is {_some(v_leak)}; only a leak to 0 can be deployed")
    if np.isinf(tau).all() and np.isinf(r).all():
        return 0.0, np.ones_like(r), None
    if not (np.isfinite(tau) & np.isfinite(r)).all() or (tau <= 0).any():
        raise _unsupported(name, f"LIF: tau is {_some(tau)} and r {_some(r)}")
    if (tau != tau.flat[0]).any():
        raise _unsupported(name, "LIF: tau differs among its neurons; only one a layer can be deployed")
    seconds = float(tau.flat[0])
    if dt is None:
        raise _asks(name, f"tau is {seconds:g}")
    leak = dt / seconds
    if leak > 1:
        raise _unsupported(name, f"LIF: its tau of {seconds:g} is shorter than a step of {dt:g} seconds; see --dt")
    return leak, r * leak, dt


def _parameter(name: str, node: Any, key: str) -> Floats:
    values = np.asarray(getattr(node, key))
    if values.dtype.kind not in "iuf" or not values.size or np.isnan(values).any():
        raise _unsupported(name, f"{type(node).__name__}: its {key} is not of numbers")
    return values.astype(np.float64)


def _per_channel(name: str, kind: str, values: Floats, channels: int) -> Floats:
    per_channel = values.reshape(channels, -1) if values.size % channels == 0 else values.reshape(1, -1)
    if len(per_channel) != channels or (per_channel != per_channel[:, :1]).any():
        reason = f"{kind}: thresholds or r differ within a channel; only one a channel can be deployed"
        raise _unsupported(name, reason)
    return per_channel[:, 0]


def _at(node: Any, v_threshold: float) -> float:
    """Return the least membrane that spikes: what a graph of ours says, or the next float32 above the threshold."""
    said = node.metadata.get(V_TH) if isinstance(node.metadata, dict) else None
    said = np.asarray(said) if said is not None else np.empty(0)
    if said.dtype == np.float32 and said.size == 1 and np.nextafter(said, np.float32(0)) == np.float32(v_threshold):
        return float(said.item())
    return _above(v_threshold)


def _above(v_threshold: float) -> float:
    return v_threshold * STRICTLY


def _some(values: Floats) -> str:
    found = np.unique(values)
    return f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g} to {found[-1]:g}"


def _asks(name: str, what: str) -> ConfigError:
    fault = (
        f"say how many seconds a step takes, --dt 1e-4 for instance, for {what} in {name} and the graph does not tell"
    )
    return ConfigError(where="dt", faults=(fault,))


def _unsupported(where: str, reason: str) -> UnsupportedError:
    return UnsupportedError(where=where, reason=reason)
