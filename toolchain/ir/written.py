"""Layers written out: pools spread into kernels, relays as kernels of their own. They compute the same and take more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.ir import Conv

    Ints = npt.NDArray[np.int32]


def dense_weight(layer: Conv) -> Ints:
    """Return the layer's weight with each relay as a kernel of one 1. Shape: (n_channels, n_sources, kh, kw)."""
    weight = layer.weight
    if not layer.n_relays:
        return weight
    own, heard, kh, kw = weight.shape
    dense = np.zeros((layer.n_channels, layer.n_sources, kh, kw), dtype=weight.dtype)
    dense[:own, :heard] = weight
    dense[np.arange(own, len(dense)), np.arange(*layer.relays), kh // 2, kw // 2] = 1
    return dense


def without_pool(layer: Any, source: tuple[int, int, int]) -> Any:
    """Return the layer with each weight repeated for the q x q neurons of its cell. Shape: source (C, H, W), before the pool."""
    q, weight = layer.pool, layer.weight
    if q == 1:
        return layer
    if weight.ndim == 2:
        channels, height, width = source
        cells = weight.reshape(len(weight), channels, height // q, width // q)
        return replace(layer, weight=cells.repeat(q, axis=2).repeat(q, axis=3).reshape(len(weight), -1), pool=1)
    taps = [np.arange(n) * d * q for n, d in zip(weight.shape[2:], layer.dilation, strict=True)]
    spread = np.zeros((*weight.shape[:2], *(at[-1] + q for at in taps)), dtype=weight.dtype)
    for y in range(q):
        for x in range(q):
            spread[:, :, (taps[0] + y)[:, None], taps[1] + x] = weight
    stride, padding = ((a * q, b * q) for a, b in (layer.stride, layer.padding))
    return replace(layer, weight=spread, stride=stride, padding=padding, dilation=(1, 1), pool=1)
