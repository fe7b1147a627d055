"""From the float network to the integers in five steps, each of them a network that can be run, compared and attacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from toolchain import emulate, quantize
from toolchain.deployed.chain import Chain, Values
from toolchain.ir import Conv, Readout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from toolchain.ir import AnyLayer, Network
    from toolchain.nets import Net
    from toolchain.quantize.folded import Folded

    Bools = npt.NDArray[np.bool_]
    Images = npt.NDArray[np.uint8]

NAMES = ("float network", "batch norm folded", "weights quantized", "thresholds and biases quantized", "integers")
"""Float32 as trained; in float64 with all that has no neurons folded in; the integers' weights with float thresholds and
biases; all of the integers' numbers, added without end; the integers as a chip adds them, on the emulator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The five networks. folded, weights, numbers: the three between the float network and the integers."""

    net: Net
    folded: Chain
    weights: Chain
    numbers: Chain
    integers: Chain
    emulator: emulate.Emulator

    @property
    def modules(self) -> tuple[torch.nn.Module, ...]:
        """What an attack takes, in the order of NAMES."""
        return self.net, self.folded, self.weights, self.numbers, self.integers

    @property
    def names(self) -> tuple[str, ...]:
        """Of the hidden layers."""
        return tuple(layer.name for layer in self.integers.network.layers)

    def run(self, images: Images) -> list[Seen]:
        """What each of the five does on images."""
        rows = [Seen(classes=_classes(self.net, images), spikes=quantize.float_spikes(self.net, images))]
        pixels = torch.tensor(images) / 255
        for chain in (self.folded, self.weights, self.numbers):
            spikes = [record.spikes.transpose(0, 1).numpy() for record in chain.recorded(pixels)]
            rows.append(Seen(classes=_classes(chain, images), spikes=spikes))
        trace = self.emulator.run(images, record=True, activity=False)
        layers = self.integers.network.layers
        spikes = [found[:, :, : len(layer.weight)] for layer, found in zip(layers, trace.spikes or (), strict=True)]
        return [*rows, Seen(classes=trace.classes(), spikes=spikes)]

    def classes(self, images: Sequence[Images]) -> list[npt.NDArray[np.int64]]:
        """What each of the five says of images of its own."""
        *others, own = images
        said = [_classes(module, each) for module, each in zip(self.modules, others, strict=False)]
        return [*said, self.emulator.run(own, activity=False).classes()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Classes (S,) and the spikes of each hidden layer, (S, T, C, H, W), relays left out."""

    classes: npt.NDArray[np.int64]
    spikes: Sequence[Bools]


def between(net: Net, folded: Sequence[Folded], network: Network, scales: Mapping[str, Sequence[float]]) -> Steps:
    """The five steps from a spiking network, as `quantize.fold` left its layers, to integers at the given scales."""
    units = [_unit(scales[layer.name]) for layer in network.chain]
    exact = [_exact(layer, unit) for layer, unit in zip(folded, units, strict=True)]
    weights = [
        Values(weight=layer.weight.astype(np.float64), bias=values.bias, theta=values.theta)
        for layer, values in zip(network.chain, exact, strict=True)
    ]
    numbers = [_numbers(layer, network) for layer in network.chain]
    made = [Chain(network, scales, values=values) for values in (exact, weights, numbers, None)]
    emulator = emulate.Emulator(network)
    return Steps(net=net, folded=made[0], weights=made[1], numbers=made[2], integers=made[3], emulator=emulator)


def _unit(scale: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.asarray(scale if len(scale) > 1 else scale[0], dtype=np.float64)


def _exact(layer: Folded, unit: npt.NDArray[np.float64]) -> Values:
    """A folded layer in weight units, nothing rounded."""

    def over(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.asarray(values / (unit.reshape(-1, *[1] * (values.ndim - 1)) if unit.ndim else unit))

    theta = None if layer.threshold is None else np.asarray(layer.threshold / unit)
    return Values(weight=over(layer.weight), bias=over(layer.bias), theta=theta)


def _numbers(layer: AnyLayer, network: Network) -> Values:
    """An integer layer's numbers; of one that the host drives, before its division."""
    own = layer.own if isinstance(layer, Conv) else layer
    weight = own.weight.astype(np.float64)
    if isinstance(own, Readout):
        return Values(weight=weight, bias=own.bias.astype(np.float64), theta=None)
    coding = network.input.bias if network.is_driven(layer) else None
    divisor = 1 if coding is None else coding.divisor
    return Values(
        weight=weight,
        bias=own.neuron.bias.astype(np.float64),
        theta=np.asarray(own.neuron.theta * divisor, dtype=np.float64),
    )


def _classes(module: torch.nn.Module, images: Images) -> npt.NDArray[np.int64]:
    with torch.no_grad():
        logits: torch.Tensor = module(torch.tensor(images) / 255)
    return np.asarray(logits.argmax(dim=1).cpu().numpy(), dtype=np.int64)
