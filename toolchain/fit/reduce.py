"""A network with a layer that has fewer weights, or narrower ones: its integers, its cores, and what it does to the answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain import emulate, mapping, quantize
from toolchain.errors import CapacityError
from toolchain.ir import Conv, Dense, Input, Network, Neuron, Readout

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.ir import AnyLayer, Layer, Shape
    from toolchain.nets import Net
    from toolchain.placement import Core
    from toolchain.profile import HardwareProfile
    from toolchain.quantize import Quantized
    from toolchain.quantize.folded import Folded
    from toolchain.trace import Trace

    Bools = npt.NDArray[np.bool_]
    Floats = npt.NDArray[np.float64]

ANY_CHIPS = 1 << 20
"""More chips than any network needs: cores are counted, whatever the chips"""
_CLIPS = (1.0, 1.25, 1.6, 2.0)
"""How much finer than its greatest weight asks for a narrower layer's scale may be"""


def importances(net: Net, made: Quantized, images: npt.NDArray[np.uint8]) -> dict[str, Floats]:
    """Return how much every weight of each layer matters, by the layer's name. Raises UnsupportedError."""
    _, folded = quantize.fold(net, images.shape[1:], made.masks)
    active = activity(made.network, emulate.run(made.network, images), images)
    return {layer.name: importance(layer, mean) for layer, mean in zip(folded, active, strict=True)}


def importance(layer: Folded, activity: Floats) -> Floats:
    """Return |weight| times the mean drive of its source, batch norm folded in. Shapes: as the weight.

    activity: mean of what each source sends in a step, pooled, (C, H, W); a kernel's weights share their channel's.
    """
    if layer.weight.ndim == 4:
        groups = activity.shape[0] // layer.weight.shape[1]
        per_group = activity.mean(axis=(1, 2)).reshape(groups, -1)
        rows = per_group.repeat(layer.weight.shape[0] // groups, axis=0)
        return np.asarray(np.abs(layer.weight) * rows[:, :, None, None])
    return np.asarray(np.abs(layer.weight) * activity.reshape(-1))


def activity(network: Network, trace: Trace, images: npt.NDArray[np.uint8]) -> list[Floats]:
    """Return the mean magnitude of what reaches each layer in a step, after its pool. Shapes: (C, H, W) each."""
    sent = np.abs(network.input.encode(images)).mean(axis=0)
    spikes = [counts.mean(axis=0) / network.timesteps for counts in trace.counts]
    found = []
    for layer, mean in zip(network.chain, [sent, *spikes], strict=True):
        channels, height, width = mean.shape
        q = layer.pool
        found.append(mean.reshape(channels, height // q, q, width // q, q).sum(axis=(2, 4)))
    return found


def grown(mask: Bools, values: Floats, keep: int) -> Bools:
    """Return the `keep` most important weights of a mask; of equal ones the first. Shapes: as the mask."""
    order = np.argsort(np.where(mask, -values, np.inf), axis=None, kind="stable")
    kept = np.zeros(mask.size, dtype=bool)
    kept[order[:keep]] = True
    return kept.reshape(mask.shape) & mask


def narrowed(layer: AnyLayer, bits: int) -> tuple[AnyLayer, float]:
    """Return the layer with weights of so many bits, and what its unit is in units of before; the scale clips least badly."""
    if bits >= layer.weight_bits:
        return layer, 1.0
    most = (1 << (bits - 1)) - 1
    weight = layer.weight.astype(np.float64)
    whole = most / max(1, np.abs(weight).max())

    def rounded(scale: float) -> Floats:
        return np.asarray(np.clip(np.rint(weight * scale), -most, most))

    scale = min(
        (whole * clip for clip in _CLIPS), key=lambda scale: float(((rounded(scale) / scale - weight) ** 2).sum())
    )
    weights = rounded(scale).astype(np.int32)
    if isinstance(layer, Readout):
        bias = np.rint(layer.bias * scale).astype(np.int32)
        return replace(layer, weight=weights, weight_bits=bits, bias=bias), 1 / scale
    theta = np.maximum(np.ceil(layer.neuron.theta * scale), 1).astype(np.int32)
    neuron = replace(layer.neuron, theta=theta, bias=np.rint(layer.neuron.bias * scale).astype(np.int32))
    return replace(layer, weight=weights, weight_bits=bits, neuron=neuron), 1 / scale


def with_layer(network: Network, index: int, layer: AnyLayer) -> Network:
    """Return the network with another layer in that place of its chain."""
    chain = [*network.chain]
    chain[index] = layer
    *hidden, readout = chain
    assert isinstance(readout, Readout)
    layers = tuple(layer for layer in hidden if not isinstance(layer, Readout))
    return Network(input=network.input, layers=layers, readout=readout, timesteps=network.timesteps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How sure a network is of each class, on images. Shapes: shares (samples, classes); images uint8 (samples, C, H, W)."""

    images: npt.NDArray[np.uint8]
    shares: Floats
    unit: float

    @classmethod
    def of(cls, network: Network, images: npt.NDArray[np.uint8], unit: float) -> Answers:
        """unit: what one unit of the readout's weights stands for."""
        logits = emulate.run(network, images).logits
        return cls(images=images, shares=_softmax(logits * unit / network.timesteps), unit=unit)

    def damage(self, network: Network, unit: float) -> float:
        """Return the mean KL divergence of another network's answers from these. Units: nats an image; unit in units of before."""
        other = _softmax(emulate.run(network, self.images).logits * self.unit * unit / network.timesteps)
        return float((self.shares * (np.log(self.shares) - np.log(other))).sum(axis=1).mean())


def _softmax(logits: Floats) -> Floats:
    exact = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(np.maximum(exact / exact.sum(axis=1, keepdims=True), 1e-12))


def pattern(layer: AnyLayer, mask: Bools, bits: int) -> AnyLayer:
    """Return the layer as a chip stores it: every kept weight is there, whatever it rounds to."""
    return replace(layer, weight=mask.astype(np.int32), weight_bits=bits)


def cost(layer: AnyLayer, source: Shape, profile: HardwareProfile) -> float:
    """Return the cores a layer fills, a core filled in part counting as such; infinite where it fits no core.

    It stands between a layer of one neuron a source and a readout of one class, so that only differences mean something.
    """
    channels = source[0]
    relay = Conv(
        name="before",
        weight=np.ones((channels, 1, 1, 1), dtype=np.int32),
        neuron=_plain(channels),
        groups=channels,
        weight_bits=2,
    )
    tested: Layer = (
        layer
        if not isinstance(layer, Readout)
        else Dense(
            name=layer.name,
            weight=layer.weight,
            neuron=_plain(len(layer.weight)),
            pool=layer.pool,
            weight_bits=layer.weight_bits,
        )
    )
    out = tested.output_shape(source)
    last = Readout(name="after", weight=np.zeros((1, math.prod(out)), dtype=np.int32), bias=np.zeros(1, dtype=np.int32))
    network = Network(
        input=Input(shape=source, offset=np.zeros(channels, dtype=np.int32)),
        layers=(relay, tested),
        readout=last,
        timesteps=1,
    )
    try:
        placed = mapping.place(network, profile, max_chips=ANY_CHIPS)
    except CapacityError as error:
        if error.layer == layer.name:
            return math.inf
        raise
    return sum(_filled(core, profile) for core in placed.cores if core.layer == layer.name)


def _plain(channels: int) -> Neuron:
    return Neuron(theta=np.array(1), bias=np.zeros(channels, dtype=np.int32))


def _filled(core: Core, profile: HardwareProfile) -> float:
    """The share of the core's scarcest resource that is used."""
    limits, fill = profile.core, profile.core.max_fill.value
    used = [
        (core.n_neurons, limits.neurons),
        (core.synapse_words, limits.synapse_words),
        (core.axons_in, limits.axons_in),
    ]
    used += [(core.axons_out, limits.axons_out)] if limits.axons_out else []
    return max(amount / (limit.value * fill) for amount, limit in used)
