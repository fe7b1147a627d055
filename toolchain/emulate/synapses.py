"""Synaptic sums as float convolutions in torch, each by an algorithm that this device was seen to add exactly.

That is exact while every partial sum is an integer the type can hold: below 2^24 in float32 (2^23 where the sum may wrap), 2^53 in
float64. It holds for algorithms that only add products; Winograd and FFT ones do not, so each layer is tested against integers before it is
trusted, and the next candidate is taken where it fails.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from toolchain.emulate.reference import LIMIT, synapses
from toolchain.errors import BackendError
from toolchain.ir import AnyLayer, Conv, Network, Neuron, Readout, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Multiply = Callable[[AnyLayer, Tensor, Tensor], Tensor]

_MANY_CHANNELS = 8
_CHECKED_CHANNELS = 16
PROBE_SAMPLES = 16
"""Enough that the library chooses the algorithm it would choose for a batch"""


@dataclass(frozen=True, slots=True)
class Synapses:
    """A layer's synapses on a device, in the type and by the algorithm that proved exact.

    Attributes: bound, of |a|, proven from the weights and the greatest event.
    """

    layer: AnyLayer
    weight: Tensor
    multiply: Multiply
    bound: int

    def drive(self, signal: Tensor) -> Tensor:
        """Return a, whole numbers in a float type. Shapes: (n, C or more, H, W) -> (n, Cout, Hout, Wout)."""
        if isinstance(self.layer, Conv):
            signal = signal[:, : self.layer.n_sources]
        return _drive(self.layer, self.weight, signal, self.multiply, self.bound)


@contextmanager
def plain_sums(*, gradients: bool = False) -> Iterator[None]:
    """Inside, convolutions do not use NNPACK, whose 3x3 kernels do more than add products; gradients are kept if asked for."""
    with torch.inference_mode(not gradients), torch.backends.nnpack.flags(enabled=False):  # type: ignore[attr-defined,no-untyped-call,unused-ignore]
        yield


def prepare(layer: AnyLayer, source: Shape, network: Network, device: torch.device) -> Synapses:
    """Return the layer's synapses, by the first candidate that adds exactly on this device. Raises BackendError."""
    first = layer is network.layers[0]
    greatest = int(np.maximum(network.input.offset, 255 - network.input.offset).max()) if first else layer.pool**2
    bound = int(np.abs(layer.weight.astype(np.int64)).reshape(len(layer.weight), -1).sum(axis=1).max()) * greatest
    weight = torch.from_numpy(np.array(layer.weight))
    probe = events(source, greatest if first else 1, signed=first)
    some = _some_channels(layer)
    expected = torch.from_numpy(synapses(_narrowed(layer, some), probe[:2].numpy()))
    # Wrapping a convolution's sum adds LIMIT to it, which float32 must hold too.
    for dtype in [torch.float64] if bound >= LIMIT else [torch.float32, torch.float64]:
        for multiply in (_multiply, _multiply_unfolded):
            cast = weight.to(device, dtype)
            if _channels_last(layer, source):
                cast = cast.contiguous(memory_format=torch.channels_last)
            drive = _drive(layer, cast, probe.to(device), multiply, bound)[:2, some]
            if torch.equal(drive.cpu().long(), expected):
                return Synapses(layer, cast, multiply, bound)
    raise BackendError(
        backend=f"emulator ({device.type})",
        reason=f"no convolution of this device adds {layer.name} exactly",
        remedy="Run on the CPU",
    )


def _some_channels(layer: AnyLayer) -> npt.NDArray[np.int64]:
    """Return the channels that a self-test looks at, as many of each group: an algorithm that does not add exactly shows in any."""
    groups = layer.groups if isinstance(layer, Conv) else 1
    by_group = np.arange(len(layer.weight)).reshape(groups, -1)
    return by_group[:, :: -(-by_group.shape[1] // max(1, _CHECKED_CHANNELS // groups))].reshape(-1)


def _narrowed(layer: AnyLayer, channels: npt.NDArray[np.int64]) -> AnyLayer:
    weight, zeros = layer.weight[channels], np.zeros(len(channels), dtype=np.int32)
    if isinstance(layer, Readout):
        return replace(layer, weight=weight, bias=zeros)
    return replace(layer, weight=weight, neuron=Neuron(theta=np.array(1), bias=zeros))


def events(source: Shape, greatest: int, *, signed: bool) -> Tensor:
    """Return the same random messages each time. Shape: (PROBE_SAMPLES, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-greatest if signed else 0, greatest + 1, (PROBE_SAMPLES, *source), generator=generator)


def _channels_last(layer: AnyLayer, source: Shape) -> bool:
    """Return whether a convolution is of the ordinary kind that is fastest with its channels innermost.

    For others there is nothing to gain, and oneDNN (torch 2.3) ends the process on some that reach far beyond their map.
    """
    if not isinstance(layer, Conv) or layer.groups > 1 or layer.dilation != (1, 1) or source[0] < _MANY_CHANNELS:
        return False
    extents = zip(layer.weight.shape[2:], layer.padding, source[1:], strict=True)
    return all(padding < kernel <= extent // layer.pool for kernel, padding, extent in extents)


def _drive(layer: AnyLayer, weight: Tensor, signal: Tensor, multiply: Multiply, bound: int) -> Tensor:
    innermost = weight.ndim == 4 and not weight.is_contiguous()
    signal = signal.to(weight.dtype, memory_format=torch.channels_last if innermost else torch.contiguous_format)
    if layer.pool > 1:
        signal = F.avg_pool2d(signal, layer.pool, divisor_override=1)
    drive = multiply(layer, weight, signal)
    if isinstance(layer, Conv) and bound >= LIMIT:
        drive = (drive + LIMIT) % (2 * LIMIT) - LIMIT
    return drive


def _multiply(layer: AnyLayer, weight: Tensor, signal: Tensor) -> Tensor:
    if not isinstance(layer, Conv):
        return F.linear(signal.flatten(1), weight)[:, :, None, None]
    return F.conv2d(signal, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _multiply_unfolded(layer: AnyLayer, weight: Tensor, signal: Tensor) -> Tensor:
    """Return what `_multiply` does, a convolution by one matrix product for each group."""
    if not isinstance(layer, Conv):
        return _multiply(layer, weight, signal)
    n, channels, *extent = signal.shape
    _, rows, columns = layer.output_shape((channels, layer.pool * extent[0], layer.pool * extent[1]))
    columned = F.unfold(signal, tuple(weight.shape[2:]), layer.dilation, layer.padding, layer.stride)
    product = weight.reshape(layer.groups, -1, columned.shape[1] // layer.groups) @ columned.reshape(
        n, layer.groups, -1, rows * columns
    )
    return product.reshape(n, -1, rows, columns)
