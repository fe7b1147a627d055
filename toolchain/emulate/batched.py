"""The fast emulator: whole batches and all steps of a layer at once in torch, bit for bit what `reference` computes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from toolchain import counts
from toolchain.emulate import compiled, neurons, sparse, synapses
from toolchain.ir import AnyLayer, Conv, Layer, Network, Readout, Shape
from toolchain.trace import Trace, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt
    from torch import Tensor

    from toolchain.emulate.fired import Fired, Kernels
    from toolchain.emulate.sparse import Sparse
    from toolchain.emulate.synapses import Synapses

_BATCH_BYTES = 64 << 20
"""Default bound on the largest array of a batch: a few of these exist at a time"""


def run(network: Network, images: npt.NDArray[np.uint8], *, record: bool = False, device: str = "cpu") -> Trace:
    """Return what the network does on uint8 images (samples, C, H, W); with `record`, every spike too."""
    return Emulator(network, device=device).run(images, record=record)


class Emulator:
    """A network made ready to run many times on one device.

    kernels: `torch`, `compiled` (by numba, on the CPU) wherever that is possible, or whichever `measured` faster.
    Raises BackendError where no algorithm of this device adds exactly.
    """

    def __init__(self, network: Network, *, device: str = "cpu", kernels: Kernels = "measured") -> None:
        self.network = network
        self.device = torch.device(device)
        self._kernels = kernels
        with synapses.plain_sums():
            self._layers = [self._ready(*wired) for wired in network.wired()]

    def run(
        self,
        images: npt.NDArray[np.uint8],
        *,
        record: bool = False,
        batch: int | None = None,
        activity: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> Trace:
        """Return the trace of uint8 images (samples, C, H, W), `batch` at a time; `progress` gets the samples done.

        activity: also count what each layer does in each step.
        """
        parts = []
        done = 0
        for part in self.stream(images, record=record, batch=batch, activity=activity):
            parts.append(part)
            done += part.n_samples
            if progress:
                progress(done)
        return joined(parts)

    def stream(
        self,
        images: npt.NDArray[np.uint8],
        *,
        record: bool = False,
        batch: int | None = None,
        activity: bool = True,
    ) -> Iterator[Trace]:
        """Yield what `run` returns batch by batch, so that no more of it need exist at a time: a test set's spikes fill memories."""
        batch = batch or self._default_batch(len(images))
        # An empty set of images still runs once, so that the trace has its shapes.
        for start in range(0, max(len(images), 1), batch):
            messages = self.network.input.encode(images[start : start + batch])
            with synapses.plain_sums():
                part = self._run(torch.from_numpy(messages), record=record, activity=activity)
            tallies = part.tallies
            yield Trace(
                backend=f"emulator ({self.device.type})",
                layers=tuple(layer.name for layer in self.network.layers),
                logits=part.logits,
                counts=tuple(part.counts),
                spikes=tuple(part.spikes) if record else None,
                step_spikes=tallies[:-1, 3] if activity else None,
                active=tallies[:-1, 0] if activity else None,
                wraps=tallies[:-1, 1] if activity else None,
                saturations=tallies[:-1, 2] if activity else None,
                synops=tallies[:, 4] if activity else None,
            )

    def biases(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
        """Return what the host sets as the first layer's biases, (samples, C, H, W) of that layer, where `Input.bias` is."""
        first = self._layers[0]
        assert not isinstance(first.layer, Readout)
        with synapses.plain_sums():
            sums = first.synapses.drive(torch.from_numpy(self.network.input.encode(images)).to(self.device))
        _, biases = self.network.driven(first.layer, sums.cpu().numpy().astype(np.int64))
        return biases.astype(np.int16)

    def _ready(self, layer: AnyLayer, source: Shape, _shape: Shape) -> _Ready:
        first = layer is self.network.layers[0]
        own, heard = (layer.own, (layer.own.n_sources, *source[1:])) if isinstance(layer, Conv) else (layer, source)
        dense = synapses.prepare(own, heard, self.network, self.device)
        lanes = None
        compiles = self._kernels != "torch" and self.device.type == "cpu" and compiled.available()
        if compiles and not isinstance(own, Readout) and not first:
            lanes = sparse.prepare(own, heard, dense.bound)
            if lanes and self._kernels == "measured" and not sparse.faster(lanes, dense, heard):
                lanes = None
        return _Ready(layer, own.output_shape(heard), dense, lanes, counts.fan_out(layer, source, layer.weight))

    def _default_batch(self, n: int) -> int:
        """Of n images, in batches as alike in size as can be. Lanes hold a spike in a byte, frames and the sums behind them in four."""
        in_lanes = [
            True,
            *(ready.sparse is not None for ready in self._layers[1:]),
            False,
        ]  # the first has sums of one step only
        n_bytes = max(
            int(np.prod(shape)) * (1 if own and following else 4)
            for shape, (own, following) in zip(self.network.shapes, pairwise(in_lanes), strict=True)
        )
        most = max(1, _BATCH_BYTES // (n_bytes * self.network.timesteps))
        n_batches = max(1, math.ceil(n / most))
        return max(1, math.ceil(n / n_batches))

    def _run(self, messages: Tensor, *, record: bool, activity: bool) -> _Part:
        network, steps, samples = self.network, self.network.timesteps, len(messages)
        part = _Part(tallies=np.zeros((len(self._layers), 5, steps), dtype=np.int64))
        if activity and not network.input.bias:
            part.tallies[0, 4] = (np.count_nonzero(messages.numpy(), axis=0) * self._layers[0].fan_in).sum()
        signal = messages.to(self.device)
        fired: Fired | None = None
        for index, ready in enumerate(self._layers):
            if isinstance(ready.layer, Readout):
                break
            in_lanes = self._layers[index + 1].sparse is not None
            before = fired
            fired = self._fire(ready, ready.layer, signal, samples, activity=activity, in_lanes=in_lanes)
            if before and isinstance(ready.layer, Conv) and ready.layer.n_relays:
                fired = fired.with_relays(before, ready.layer, activity=activity)
            part.counts.append(fired.counts.to("cpu", torch.int32).numpy())
            if record:
                part.spikes.append(fired.recorded().cpu().numpy())
            if activity:
                sums = fired.sums.cpu().numpy().astype(np.int64).reshape(steps, -1)
                part.tallies[index, :3] = fired.tally.cpu().numpy()
                part.tallies[index, 3] = sums.sum(axis=1)
                part.tallies[index + 1, 4] = sums @ self._layers[index + 1].fan_in.reshape(-1)
            signal = fired.lanes() if in_lanes else fired.frames()
        drive = ready.synapses.drive(signal).reshape(steps, samples, len(network.readout.weight))
        bias = torch.from_numpy(network.readout.bias.astype(np.int64))
        part.logits = (drive.long().sum(dim=0).cpu() + steps * bias).numpy()
        return part

    def _fire(
        self, ready: _Ready, layer: Layer, signal: Tensor, samples: int, *, activity: bool, in_lanes: bool
    ) -> Fired:
        own = layer.own if isinstance(layer, Conv) else layer
        steps, neuron, bound = self.network.timesteps, own.neuron, ready.synapses.bound
        if ready.sparse:
            return ready.sparse.fire(signal, steps)
        # Time is the outer axis. The first layer sees the same messages at every step, so it computes them once.
        drive = ready.synapses.drive(signal)
        drive = drive.reshape(len(drive) // samples if samples else 1, samples, *ready.shape)
        if layer is self.network.layers[0] and (coding := self.network.input.bias):
            neuron, biases = self.network.driven(layer, drive.cpu().numpy().astype(np.int64))
            drive, bound = torch.from_numpy(biases).to(drive), coding.limit
        if in_lanes and len(drive) == 1 and neurons.exact_in_floats(neuron, drive, bound):
            return compiled.fire_held(neuron, drive.float(), steps)
        return neurons.fire(neuron, drive, steps, bound, activity=activity, kernels=self._kernels)


@dataclass(slots=True)
class _Part:
    """The trace of one batch; tallies hold active, wraps, saturations, spikes and synops of each step, of each layer."""

    tallies: npt.NDArray[np.int64]
    logits: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    counts: list[npt.NDArray[np.int32]] = field(default_factory=list)
    spikes: list[npt.NDArray[np.bool_]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A layer ready to run, in lanes where `sparse`; its relays are copied.

    Shapes: shape, without relays; fan_in (C, H, W) of its source: synapses that an event there reaches.
    """

    layer: AnyLayer
    shape: Shape
    synapses: Synapses
    sparse: Sparse | None
    fan_in: npt.NDArray[np.int64]
