"""The fast emulator: whole batches and all steps of a layer at once in torch, bit for bit what `reference` computes.

Synapses run as ordinary float convolutions, which is exact while every partial sum is an integer the type can hold: below
2^24 in float32 (2^23 where the sum may wrap), 2^53 in float64. That holds for algorithms that only add products; Winograd and FFT ones do not, so each
layer is tested against integers before it is trusted, and the next candidate is taken where it fails.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from toolchain.emulate.reference import LIMIT, synapses
from toolchain.errors import BackendError
from toolchain.ir import AnyLayer, Conv, Network, Neuron, Readout, Shape
from toolchain.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

_FORGETS = 4096
"""The i_decay with which nothing of the last current is left"""
_PROBE_SAMPLES = 16
"""Enough that the library chooses the algorithm it would choose for a batch"""
_BATCH_BYTES = 256 << 20
"""Default bound on the largest array of a batch"""


def run(network: Network, images: npt.NDArray[np.uint8], *, record: bool = False, device: str = "cpu") -> Trace:
    """Return what the network does on uint8 images (samples, C, H, W); with `record`, every spike too."""
    return Emulator(network, device=device).run(images, record=record)


class Emulator:
    """A network made ready to run many times on one device.

    Raises BackendError where no algorithm of this device adds exactly.
    """

    def __init__(self, network: Network, *, device: str = "cpu") -> None:
        self.network = network
        self.device = torch.device(device)
        with _plain_sums():
            self._layers = [_ready(layer, source, network, self.device) for layer, source, _ in network.wired()]

    def run(
        self,
        images: npt.NDArray[np.uint8],
        *,
        record: bool = False,
        batch: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Trace:
        """Return the trace of uint8 images (samples, C, H, W), `batch` at a time; `progress` gets the samples done."""
        messages = self.network.input.encode(images)
        batch = batch or self._default_batch()
        parts: list[_Part] = []
        with _plain_sums():
            # An empty set of images still runs once, so that the trace has its shapes.
            for start in range(0, max(len(messages), 1), batch):
                parts.append(self._run(torch.from_numpy(messages[start : start + batch]), record=record))
                if progress:
                    progress(min(start + batch, len(messages)))
        hidden = range(len(self.network.layers))
        tallies = np.sum([part.tallies for part in parts], axis=0, dtype=np.int64)
        return Trace(
            backend=f"emulator ({self.device.type})",
            layers=tuple(layer.name for layer in self.network.layers),
            logits=np.concatenate([part.logits for part in parts]),
            counts=tuple(np.concatenate([part.counts[k] for part in parts]) for k in hidden),
            spikes=tuple(np.concatenate([part.spikes[k] for part in parts]) for k in hidden) if record else None,
            step_spikes=tallies[:, 3:],
            active=tallies[:, 0],
            wraps=tallies[:, 1],
            saturations=tallies[:, 2],
        )

    def biases(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
        """Return what the host sets as the first layer's biases, (samples, C, H, W) of that layer, where `Input.bias` is."""
        first, shape = self._layers[0], self.network.shapes[0]
        assert not isinstance(first.layer, Readout)
        with _plain_sums():
            sums = first.synapses(torch.from_numpy(self.network.input.encode(images)).to(self.device))
        _, biases = self.network.driven(first.layer, sums.reshape(-1, *shape).cpu().numpy().astype(np.int64))
        return biases.astype(np.int16)

    def _default_batch(self) -> int:
        widest = max(int(np.prod(shape)) for shape in self.network.shapes)
        return max(1, _BATCH_BYTES // (widest * self.network.timesteps * 4))

    def _run(self, messages: Tensor, *, record: bool) -> _Part:
        steps, samples = self.network.timesteps, len(messages)
        counts, spikes, tallies = [], [], []
        signal = messages.to(self.device)
        for index, (ready, shape) in enumerate(zip(self._layers, self.network.shapes, strict=True)):
            # Time is the outer axis. The first layer sees the same messages at every step, so it computes them once.
            drive = ready.synapses(signal).reshape(steps if index else 1, samples, *shape)
            if isinstance(ready.layer, Readout):
                break
            neuron, bound = ready.layer.neuron, ready.bound
            if index == 0 and (coding := self.network.input.bias):
                neuron, biases = self.network.driven(ready.layer, drive.cpu().numpy().astype(np.int64))
                drive, bound = torch.from_numpy(biases).to(drive), coding.limit
            out, tally = _neurons(neuron, drive, steps, bound)
            counts.append(out.sum(dim=0, dtype=torch.int32).cpu().numpy())
            if record:
                spikes.append(out.transpose(0, 1).bool().cpu().numpy())
            tallies.append(tally)
            signal = out.reshape(steps * samples, *shape)
        bias = torch.from_numpy(self.network.readout.bias.astype(np.int64))
        logits = drive.long().sum(dim=0)[:, :, 0, 0].cpu() + steps * bias
        return _Part(logits.numpy(), counts, spikes, tallies)


@contextmanager
def _plain_sums() -> Iterator[None]:
    """Inside, convolutions do not use NNPACK, whose 3x3 kernels do more than add products."""
    with torch.inference_mode(), torch.backends.nnpack.flags(enabled=False):  # type: ignore[attr-defined,no-untyped-call,unused-ignore]
        yield


@dataclass(frozen=True, slots=True)
class _Part:
    """The trace of one batch; tallies hold active, wraps, saturations and the spikes of each step, of each layer."""

    logits: npt.NDArray[np.int64]
    counts: list[npt.NDArray[np.int32]]
    spikes: list[npt.NDArray[np.bool_]]
    tallies: list[list[int]]


@dataclass(frozen=True, slots=True)
class _Ready:
    """A layer with its weight on the device, in the type and by the algorithm that proved exact."""

    layer: AnyLayer
    weight: Tensor
    multiply: Callable[[AnyLayer, Tensor, Tensor], Tensor]
    bound: int

    def synapses(self, signal: Tensor) -> Tensor:
        """Return a, whole numbers in a float type. Shapes: (n, C, H, W) -> (n, Cout, Hout, Wout)."""
        return _synapses(self.layer, self.weight, signal, self.multiply, self.bound)


def _synapses(
    layer: AnyLayer,
    weight: Tensor,
    signal: Tensor,
    multiply: Callable[[AnyLayer, Tensor, Tensor], Tensor],
    bound: int,
) -> Tensor:
    signal = signal.to(weight.dtype)
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


def _ready(layer: AnyLayer, source: Shape, network: Network, device: torch.device) -> _Ready:
    """Return the layer ready to run, by the first candidate that adds exactly on this device."""
    first = layer is network.layers[0]
    greatest = int(np.maximum(network.input.offset, 255 - network.input.offset).max()) if first else layer.pool**2
    bound = int(np.abs(layer.weight.astype(np.int64)).reshape(len(layer.weight), -1).sum(axis=1).max()) * greatest
    weight = torch.from_numpy(np.array(layer.weight))
    generator = torch.Generator().manual_seed(0)
    low, high = (-greatest, greatest) if first else (0, 1)
    probe = torch.randint(low, high + 1, (_PROBE_SAMPLES, *source), generator=generator)
    expected = torch.from_numpy(synapses(layer, probe[:2].numpy()))
    # Wrapping a convolution's sum adds LIMIT to it, which float32 must hold too.
    for dtype in [torch.float64] if bound >= LIMIT else [torch.float32, torch.float64]:
        for multiply in (_multiply, _multiply_unfolded):
            cast = weight.to(device, dtype)
            drive = _synapses(layer, cast, probe.to(device), multiply, bound)[:2]
            if torch.equal(drive.cpu().long(), expected):
                return _Ready(layer, cast, multiply, bound)
    raise BackendError(
        backend=f"emulator ({device.type})",
        reason=f"no convolution of this device adds {layer.name} exactly",
        remedy="Run on the CPU",
    )


def _neurons(neuron: Neuron, drive: Tensor, steps: int, bound: int) -> tuple[Tensor, list[int]]:
    """Return spikes (T, samples, C, H, W) float, and [active, wraps, saturations, spikes of each step].

    Shapes: drive (T, samples, C, H, W), or (1, samples, ...) where every step is the same; bound is that of its |a|.
    """
    # A leak multiplies 24 bit states by 12 bit factors, and 64 * a needs 6 bits more than a.
    dtype = torch.int64 if neuron.leaks or bound >= 1 << 24 else torch.int32
    theta, bias = (
        torch.from_numpy(array.astype(np.int64)).to(drive.device, dtype) for array in (neuron.theta, neuron.bias)
    )
    level = 64 * (theta[:, None, None] if theta.ndim else theta) - 64
    offset = 64 * (bias[:, None, None] if bias.ndim == 1 else bias)
    u = v = torch.zeros_like(drive[0], dtype=dtype)
    spikes = torch.empty((steps, *drive.shape[1:]), dtype=torch.float32, device=drive.device)
    active = wraps = saturations = 0
    step_spikes: list[int] = []
    for t in range(steps):
        if t < len(drive):
            drive_now = drive[t].to(dtype) * 64
        u = drive_now if neuron.i_decay == _FORGETS else drive_now + _decay(u, neuron.i_decay)
        if neuron.i_decay != _FORGETS or 64 * bound >= LIMIT:
            u, current = _wrapped(u), u
            wraps += int(torch.count_nonzero(u != current))
        voltage = _decay(v, neuron.v_decay) + u + offset
        v = voltage.clamp(1 - LIMIT, LIMIT - 1)
        spiking = v > level
        spikes[t] = spiking
        step_spikes.append(int(torch.count_nonzero(spiking)))
        if t < len(drive):
            active_now = int(torch.count_nonzero(drive_now + offset))
        active += active_now
        saturations += int(torch.count_nonzero(voltage <= -LIMIT))
        v.masked_fill_(spiking, 0)
    return spikes, [active, wraps, saturations, *step_spikes]


def _wrapped(exact: Tensor) -> Tensor:
    current = exact.to(torch.int32).to(exact.dtype)  # Lava adds in 32 bit
    u = torch.where(current > LIMIT, current - 2 * LIMIT, current)
    return torch.where(u <= -LIMIT, current + 2 * LIMIT, u)


def _decay(state: Tensor, amount: int) -> Tensor:
    return torch.div(state * (4096 - amount), 4096, rounding_mode="trunc") if amount else state
