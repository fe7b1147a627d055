"""The integer network as a module: whatever attacks, checks or watches the float network can take it in its place.

Forward it computes the integers of the emulator, spike for spike and logit for logit. Backward it is the float network: each
layer's surrogate acts on the membrane in float units, and what rounds passes the gradient straight through (pixels to 8 bits;
the host's division of a driven layer's sums).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.deployed.neurons import Neurons
from toolchain.emulate import synapses
from toolchain.emulate.neurons import FLOAT_BOUND, FLOOR
from toolchain.errors import UnsupportedError
from toolchain.ir import Conv, Readout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from toolchain.emulate.synapses import Synapses
    from toolchain.ir import AnyLayer, BiasCoding, Network, Shape

    Floats = npt.NDArray[np.float64]

_WRAPS_ONCE = 1 << 25
"""|a| below which u wraps once, and not in the 32 bits it is added in before that"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """A layer's numbers in its weight units, whole or on the way to be. Shapes: as in `ir`; theta None for a readout."""

    weight: Floats
    bias: Floats
    theta: Floats | None


class Chain(nn.Module):
    """A network in weight units, layer by layer: its integers exactly, or, with `values`, other numbers in their place.

    Integers are as the emulator has them, with what their 24 bits do to sums and states; other numbers are computed in
    float64, without any of it. `logits` are sums over T in the readout's units, and what the module gives are the same in
    the units of the float network, means over T.

    scales: what one weight unit of each layer stands for, () or (C,), by its name.
    Shapes: images float (B, C, H, W) in [0, 1] -> logits float64 (B, classes).
    Raises: UnsupportedError for neurons that leak, or sums that wrap more than once; BackendError as the emulator.
    """

    offset: Tensor

    def __init__(
        self,
        network: Network,
        scales: Mapping[str, Sequence[float]],
        *,
        values: Sequence[Values] | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("offset", torch.tensor(network.input.offset, dtype=torch.float32)[:, None, None])
        where = torch.device(device)
        chosen = [None] * len(network.chain) if values is None else list(values)
        with synapses.plain_sums(gradients=True), torch.no_grad():
            made = [
                _layer(network, layer, source, device=where, scale=scales[layer.name], values=numbers)
                for (layer, source, _), numbers in zip(network.wired(), chosen, strict=True)
            ]
        self._chain = made
        self.layers = nn.ModuleList(made)
        self._hidden[0].constant = True
        self.to(where)

    @property
    def mode(self) -> str:
        """`ann` or `snn`, as that of a float network."""
        return str(self._hidden[0].mode)

    @property
    def _hidden(self) -> list[Neurons]:
        return [layer.neurons for layer in self._chain if layer.neurons is not None]

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the pixels that a sensor delivers of images: 255 times as much, to the nearest whole number."""
        return self._scaled(self.logits(straight_through(torch.round, 255 * images) - self.offset))

    def unrounded(self, images: Tensor) -> Tensor:
        """Logits of images that no sensor rounded: what the integers would make of messages that are not whole."""
        return self._scaled(self.logits(255 * images - self.offset))

    def logits(self, messages: Tensor) -> Tensor:
        """Sums over T in the readout's units, whole for whole messages. Shapes: (B, C, H, W) -> float64 (B, classes)."""
        signal = messages
        with synapses.plain_sums(gradients=True):
            for layer in self._chain:
                signal = layer(signal)
        return signal.reshape(-1, len(messages), signal.shape[1]).sum(dim=0)

    def recorded(self, images: Tensor) -> list[Record]:
        """What the neurons of every hidden layer do on images, relays left out."""
        found = []
        signal = torch.round(255 * images) - self.offset
        with synapses.plain_sums(gradients=True), torch.no_grad():
            for layer, neurons in zip(self._chain, self._hidden, strict=False):
                steps = neurons.steps(layer.drive(signal))
                u, spikes = neurons.membranes(steps)
                found.append(Record(source=signal, drive=steps, membrane=u, spikes=spikes.bool()))
                signal = layer.with_relays(spikes.flatten(0, 1), signal)
        return found

    def drive(self, index: int, source: Tensor) -> Tensor:
        """What drives a hidden layer, bias included, in its units, when it hears `source`. Shapes: as in `Record`."""
        with synapses.plain_sums(gradients=True), torch.no_grad():
            return self._hidden[index].steps(self._chain[index].drive(source))

    def unit(self, index: int) -> Tensor:
        """What one unit of a layer's membranes stands for. Shapes: () or (C, 1, 1)."""
        return self._chain[index].unit

    def theta(self, index: int) -> Tensor:
        """The thresholds of a hidden layer in its units. Shapes: () or (C, 1, 1)."""
        return self._hidden[index].theta

    def _scaled(self, logits: Tensor) -> Tensor:
        return logits * self._chain[-1].unit.flatten() / (self.network.timesteps if self.mode == "snn" else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a layer did.

    Shapes: source, the messages or spikes it heard, as `Chain.drive` takes them; (T, B, C, H, W) each: drives with their
    bias, membranes before a reset, spikes.
    """

    source: Tensor
    drive: Tensor
    membrane: Tensor
    spikes: Tensor


class _Layer(nn.Module):
    """Sums and neurons of one layer; a readout has no neurons."""

    bias: Tensor
    unit: Tensor

    def __init__(
        self,
        layer: AnyLayer,
        sums: Synapses,
        *,
        bias: Tensor,
        unit: Tensor,
        neurons: Neurons | None,
        coding: BiasCoding | None = None,
    ) -> None:
        super().__init__()
        self._layer, self._sums = layer, sums
        self.register_buffer("bias", bias)
        self.register_buffer("unit", unit)
        self.neurons = neurons
        self._divisor = None if coding is None else _over_map(coding.divisor)

    def forward(self, signal: Tensor) -> Tensor:
        drive = self.drive(signal)
        return drive[:, :, 0, 0] if self.neurons is None else self.with_relays(self.neurons(drive), signal)

    def with_relays(self, spikes: Tensor, signal: Tensor) -> Tensor:
        """The neurons' spikes and, behind them, those of the source that are relayed."""
        layer = self._layer
        if not isinstance(layer, Conv) or not layer.n_relays:
            return spikes
        (first, last), (sy, sx) = layer.relays, layer.stride
        return torch.cat([spikes, signal[:, first:last, ::sy, ::sx].to(spikes.dtype)], dim=1)

    def drive(self, signal: Tensor) -> Tensor:
        """What the neurons integrate, or a readout sums, in weight units; of a driven layer, the host's biases.

        Those are not clipped: a clipped one spikes at every step or at none, as it would without (see `ir.BiasCoding`).
        """
        sums = self._sums.drive(signal)
        if self.neurons is None:
            return sums.double() + self.bias
        if self._divisor is not None:
            return straight_through(torch.floor, (sums.double() + self.bias) / self._divisor.to(sums.device) + 0.5)
        if self._sums.bound >= FLOAT_BOUND:
            sums = straight_through(_wrapped, sums)
        return sums + self.bias


def _layer(
    network: Network,
    layer: AnyLayer,
    source: Shape,
    *,
    device: torch.device,
    scale: Sequence[float],
    values: Values | None,
) -> _Layer:
    """A layer as integers, or as `values`. Its relays have no numbers of their own."""
    own, heard = (layer.own, (layer.own.n_sources, *source[1:])) if isinstance(layer, Conv) else (layer, source)
    sums = synapses.prepare(own, heard, network, device)
    unit = _over_map(np.asarray(scale if len(scale) > 1 else scale[0]))
    if values is not None:
        sums = replace(sums, weight=torch.from_numpy(np.array(values.weight)).to(sums.weight.device), bound=0)
        neurons = None
        if values.theta is not None:
            theta = _over_map(values.theta)
            neurons = Neurons(theta=theta, bar=theta, unit=unit, floor=None, timesteps=network.timesteps)
        return _Layer(layer, sums, bias=_over_map(values.bias), unit=unit, neurons=neurons)
    if isinstance(own, Readout):
        return _Layer(layer, sums, bias=_over_map(own.bias), unit=unit, neurons=None)
    coding = network.input.bias if network.is_driven(layer) else None
    if own.neuron.leaks or sums.bound >= _WRAPS_ONCE:
        reason = "its neurons leak" if own.neuron.leaks else "its sums may wrap more than once"
        raise UnsupportedError(where=layer.name, reason=f"{reason}, for which there is no gradient")
    if coding is not None:
        unit = unit * _over_map(coding.divisor)
    theta = _over_map(own.neuron.theta).float()
    neurons = Neurons(
        # Membranes are multiples of 1/64: they exceed theta - 1, as the chip compares, from there on.
        theta=theta,
        bar=theta - 1 + 1 / 64,
        unit=unit.float(),
        floor=FLOOR,
        timesteps=network.timesteps,
    )
    bias = _over_map(own.neuron.bias).to(sums.weight.dtype if coding is None else torch.float64)
    return _Layer(layer, sums, bias=bias, unit=unit, neurons=neurons, coding=coding)


def _over_map(values: npt.NDArray[Any]) -> Tensor:
    """Numbers of a layer, of its channels or of its map so that they broadcast over (C, H, W), in float64."""
    tensor = torch.from_numpy(np.array(values, dtype=np.float64))
    return tensor[:, None, None] if tensor.ndim == 1 else tensor


def straight_through(rounding: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What `rounding` makes of x, with the gradient of x."""
    return _Passed.apply(x, rounding)  # type: ignore[no-untyped-call,no-any-return]


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor, rounding: Any) -> Tensor:
        result: Tensor = rounding(x)
        return result

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _wrapped(sums: Tensor) -> Tensor:
    """Sums as the 24 bits of u hold them, 6 of them below one unit."""
    wrapped = torch.where(sums > FLOAT_BOUND, sums - 2 * FLOAT_BOUND, sums)
    return torch.where(wrapped <= -FLOAT_BOUND, sums + 2 * FLOAT_BOUND, wrapped)
