"""One layer of the float SNN as its border sees it: its synapses, what its batch norm makes of them, its threshold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from toolchain.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import torch

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """One layer of the float SNN with its batch norm and pools folded in.

    threshold is None for the readout; leak as of `spiking.IF`. relays: source channels that it passes on, see `ir.Conv`; parts: where the weight of each
    source begins, by the source's name, in a weight composed of several.
    Shapes: weight as in `ir`, per message of the first layer and per spike elsewhere; bias (C,) or (C, H, W).
    """

    name: str
    module: nn.Conv2d | nn.Linear
    weight: Floats
    bias: Floats
    threshold: float | None
    pool: int
    mask: Bools
    leak: float = 0.0
    relays: tuple[int, int] = (0, 0)
    parts: tuple[tuple[str, int], ...] = ()


def opened(name: str, module: nn.Conv2d | nn.Linear, pool: int, masks: Mapping[str, Bools]) -> Folded:
    """Return a layer without its neurons yet. Raises UnsupportedError."""
    weight = vector(module.weight)
    if not np.isfinite(weight).all():
        raise unsupported(name, "its weights are not finite")
    if isinstance(module, nn.Conv2d) and (module.padding_mode != "zeros" or isinstance(module.padding, str)):
        raise unsupported(name, "only zero padding given as numbers can be deployed")
    bias = np.zeros(len(weight)) if module.bias is None else vector(module.bias)
    mask = np.asarray(masks[name]) if name in masks else weight != 0
    return Folded(
        name=name, module=module, weight=weight * mask / pool**2, bias=bias, threshold=None, pool=pool, mask=mask
    )


def normalised(layer: Folded, norm: nn.BatchNorm2d) -> Folded:
    """Return the layer with a batch norm folded in. Raises UnsupportedError."""
    if norm.running_mean is None or norm.running_var is None:
        raise unsupported(layer.name, "its batch norm keeps no running statistics to fold")
    gain = 1 / np.sqrt(vector(norm.running_var) + norm.eps)
    shift = np.zeros_like(gain)
    if norm.affine:
        gain, shift = gain * vector(norm.weight), vector(norm.bias)
    bias = (layer.bias - vector(norm.running_mean)) * gain + shift
    return replace(layer, weight=layer.weight * gain[:, None, None, None], bias=bias)


def vector(tensor: torch.Tensor) -> Floats:
    """Return a tensor as a float64 array."""
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)


def unsupported(where: str, reason: str) -> UnsupportedError:
    """Return the error that names what cannot be deployed."""
    return UnsupportedError(where=where, reason=reason)
