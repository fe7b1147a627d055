"""Sparse layers on the CPU: every nonzero weight adds one row of lanes to another, and a zero weight costs nothing.

Lanes are the spikes of a neuron in all steps of all samples, side by side: uint8 (C, H, W, T * samples), step-major.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from toolchain.emulate import compiled, neurons
from toolchain.emulate.neurons import FLOAT_BOUND
from toolchain.emulate.synapses import events
from toolchain.ir import Conv, Layer, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from toolchain.emulate.fired import Fired
    from toolchain.emulate.synapses import Synapses

_WORD = np.uint64
"""An unsigned index cannot count from the end, so that nothing is left to check in a loop"""
_PROBE_STEPS, _PROBE_SAMPLES = 4, 32
_WORTH_A_PROBE = 500_000
"""Multiplications a frame below which a layer is not worth the time it takes to compare"""
_DENSE = 0.3
"""Share of nonzero weights from which no sparse loop was ever faster, see docs/performance.md"""


@dataclass(frozen=True, slots=True)
class Sparse:
    """A layer by its nonzero weights.

    Shapes: starts (channels + 1,); for each weight its place (channel, y, x) in the padded source; padded (C, H, W); level (theta - 1)
    and bias of each neuron.
    """

    layer: Layer
    shape: Shape
    padded: Shape
    starts: npt.NDArray[np.int64]
    places: npt.NDArray[np.uint64]
    weights: npt.NDArray[Any]
    origins: npt.NDArray[np.uint64]
    level: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def fire(self, lanes: Tensor, steps: int) -> Fired:
        """Return what the layer does on the lanes of its source, in lanes."""
        from toolchain.emulate import kernels

        source = self._padded(lanes).reshape(-1).numpy()
        n = _WORD(lanes.shape[-1])
        places, origins = self.places * n, self.origins * n

        def part(first: int, last: int, out: compiled.Lanes, tally: npt.NDArray[np.int64]) -> None:
            kernels.convolve_and_fire(
                *(source, self.starts, places, self.weights, origins, self.level, self.bias),
                *(steps, out.spikes, out.counts, out.sums, tally, first, last),
            )

        return compiled.fire_lanes(part, self.shape, steps, lanes.shape[-1] // steps)

    def _padded(self, lanes: Tensor) -> Tensor:
        q = self.layer.pool
        if isinstance(self.layer, Conv):
            lanes = lanes[: self.layer.n_sources]
        if q > 1:
            cells = [lanes[:, i::q, j::q] for i in range(q) for j in range(q)]
            lanes = torch.stack(cells).sum(dim=0, dtype=torch.uint8)
        if not isinstance(self.layer, Conv) or self.layer.padding == (0, 0):
            return lanes.contiguous()
        (py, px), (_, height, width, n) = self.layer.padding, lanes.shape
        padded = lanes.new_zeros((*self.padded, n))
        padded[:, py : py + height, px : px + width] = lanes
        return padded


def prepare(layer: Layer, source: Shape, bound: int) -> Sparse | None:
    """Return a hidden layer ready for lanes; None where its arithmetic needs more than these loops do."""
    if layer.neuron.leaks or bound >= FLOAT_BOUND or layer.pool**2 > np.iinfo(np.uint8).max:
        return None
    channels, height, width = source[0], source[1] // layer.pool, source[2] // layer.pool
    weight = layer.weight
    if isinstance(layer, Conv):
        (py, px), (sy, sx), (dy, dx) = layer.padding, layer.stride, layer.dilation
        padded = channels, height + 2 * py, width + 2 * px
        co, ci, ky, kx = np.nonzero(weight)
        group = co // (len(weight) // layer.groups)
        places = ((group * weight.shape[1] + ci) * padded[1] + ky * dy) * padded[2] + kx * dx
    else:
        padded, sy, sx = (channels, height, width), 1, 1
        co, places = np.nonzero(weight)
    shape = layer.output_shape(source)
    rows, columns = np.arange(shape[1])[:, None] * sy, np.arange(shape[2]) * sx
    by_channel = weight.reshape(len(weight), -1).astype(np.int64)
    # Every partial sum lies between that of the negative products and that of the positive ones.
    reach = max(by_channel.clip(min=0).sum(axis=1).max(), -by_channel.clip(max=0).sum(axis=1).min()) * layer.pool**2
    bias = layer.neuron.bias
    return Sparse(
        layer=layer,
        shape=shape,
        padded=padded,
        starts=np.concatenate([[0], np.cumsum(np.count_nonzero(by_channel, axis=1))]).astype(np.int64),
        places=places.astype(_WORD),
        weights=weight[weight != 0].astype(np.int16 if reach <= np.iinfo(np.int16).max else np.float32),
        origins=(rows * padded[2] + columns).reshape(-1).astype(_WORD),
        level=compiled.per_neuron(layer.neuron.per_channel(shape[0]) - 1, shape),
        bias=compiled.per_neuron(bias, shape),
    )


def faster(sparse: Sparse, dense: Synapses, source: Shape) -> bool:
    """Return whether lanes take less time than a convolution, measured on made-up spikes."""
    frames = sparse.layer.weight.size * sparse.shape[1] * sparse.shape[2]
    if frames < _WORTH_A_PROBE or len(sparse.weights) > _DENSE * sparse.layer.weight.size:
        return False
    probe = events(source, 1, signed=False).to(torch.float32, memory_format=torch.channels_last)
    few, many = len(probe), _PROBE_STEPS * _PROBE_SAMPLES
    lanes = torch.ones((*source, many), dtype=torch.uint8)  # which spikes there are does not matter here

    def frame_by_frame() -> None:
        drive = dense.drive(probe).reshape(_PROBE_STEPS, few // _PROBE_STEPS, *sparse.shape)
        neurons.fire(sparse.layer.neuron, drive, _PROBE_STEPS, dense.bound, kernels="compiled")

    def in_lanes() -> None:
        sparse.fire(lanes, _PROBE_STEPS)

    in_lanes()  # the first call compiles
    frame_by_frame()
    sparse_seconds, dense_seconds = _seconds(in_lanes) / many, _seconds(frame_by_frame) / few
    if 0.5 < sparse_seconds / dense_seconds < 2:  # too close to trust one look
        sparse_seconds = min(sparse_seconds, _seconds(in_lanes) / many)
        dense_seconds = min(dense_seconds, _seconds(frame_by_frame) / few)
    return sparse_seconds < dense_seconds


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
