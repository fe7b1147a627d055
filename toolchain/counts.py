"""How many neurons and synapses a layer has, and how many synapses leave each neuron: sums over taps, never unrolled.

A tap (ky, kx) of a convolution connects source row y to output row r where y = r * stride - padding + dilation * ky, and
columns likewise. So a synapse count is a sum over taps of nonzero weights times the outputs whose tap lies on the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.ir import Conv

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.ir import AnyLayer, Shape

    Array = npt.NDArray[Any]
    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]


def n_synapses(layer: AnyLayer, source: Shape, nonzero: Array) -> int:
    """Unrolled connections of the weights where `nonzero`, its pool unexpanded: a cell and a neuron are one pair.

    Shapes: source (C, H, W), the layer's source before its pool; nonzero like the layer's weight.
    Equation: sum over taps (ky, kx) of nonzero weights there * rows(ky) * columns(kx), and one for each relay.
    """
    if not isinstance(layer, Conv):
        return int(np.count_nonzero(nonzero))
    rows, cols = (reach(layer, source, axis).sum(axis=1) for axis in (0, 1))
    taps = np.count_nonzero(nonzero, axis=(0, 1))
    _, height, width = layer.output_shape(source)
    return int((taps * np.outer(rows, cols)).sum()) + layer.n_relays * height * width


def n_synapses_netx(layer: AnyLayer, source: Shape, nonzero: Array) -> int:
    """Unrolled connections of the layer as the netx file writes it, its pool spread into the kernel.

    Each cell becomes the q x q neurons it sums, so that every pair becomes q * q.
    """
    return n_synapses(layer, source, nonzero) * layer.pool**2


def fan_out(layer: AnyLayer, source: Shape, nonzero: Array) -> Ints:
    """Synapses that each neuron of the source addresses, pools unexpanded: a neuron addresses its cell's.

    Shapes: source (C, H, W) -> (C, H, W); nonzero like the layer's weight.
    Equation: the gradient of sum(layer(x, nonzero)) with respect to x.
    """
    channels, height, width = source
    q = layer.pool
    if isinstance(layer, Conv):
        heard = np.concatenate([part.sum(axis=0, dtype=np.int64) for part in np.split(nonzero != 0, layer.groups)])
        per_tap = np.zeros((channels, *heard.shape[1:]), dtype=np.int64)
        per_tap[: len(heard)] = heard
        if layer.n_relays:
            per_tap[slice(*layer.relays), heard.shape[1] // 2, heard.shape[2] // 2] += 1
        rows, cols = (reach(layer, source, axis) for axis in (0, 1))
        cells = np.einsum("ckl,ky,lx->cyx", per_tap, rows, cols, optimize=True)
    else:
        cells = np.count_nonzero(nonzero, axis=0).reshape(channels, height // q, width // q)
    fan: Ints = cells.repeat(q, axis=1).repeat(q, axis=2).astype(np.int64)
    return fan


def reach(layer: Conv, source: Shape, axis: int, outputs: tuple[int, int] | None = None) -> Ints:
    """Whether a tap leads from a pooled source row (axis 0) or column (axis 1) to one of the outputs: 1 or 0.

    Shapes: source (C, H, W), before the pool; outputs first and one past last, all by default -> (taps, cells).
    """
    taps, stride = layer.weight.shape[2 + axis], layer.stride[axis]
    cells = np.arange(source[1 + axis] // layer.pool)
    low, high = outputs or (0, layer.output_shape(source)[1 + axis])
    at = cells + layer.padding[axis] - layer.dilation[axis] * np.arange(taps)[:, None]
    hits: Ints = ((at % stride == 0) & (at >= low * stride) & (at < high * stride)).astype(np.int64)
    return hits
