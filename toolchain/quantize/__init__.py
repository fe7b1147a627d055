"""The border: a float SNN becomes an integer Network.

Normalisation, batch norm and pools are folded into weights, bias and threshold (`fold`). Then each layer is divided by one
scale s (one per output channel, if asked) and rounded::

    w_int = round(w / s)      b_int = round(b / s)      theta = ceil(v_th / s)

so that ``sum w_int + b_int >= theta`` is the float neuron's ``u >= v_th`` up to the rounding. The profile's weight bits, bias and
theta set the least scale; from there the scale is searched upwards for the fewest spikes that differ from the float SNN's on
calibration images, among those that overflow nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from toolchain.errors import RangeError, UnsupportedError
from toolchain.ir import WEIGHT_BITS_MAX, Conv, Dense, Input, Layer, Network, Neuron, Readout
from toolchain.quantize.fold import Folded, fold
from toolchain.quantize.ranges import ACCUMULATOR, Bounds, bounds
from toolchain.spiking import IF

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from toolchain.nets import Net
    from toolchain.trace import Trace

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

__all__ = ["Bounds", "LayerFacts", "Limits", "Quantized", "bounds", "fold", "quantize"]

FACTORS = (1.0, 1.01, 1.02, 1.04, 1.06, 1.09, 1.12, 1.16, 1.2, 1.25, 1.35, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Scales tried, as multiples of the least one: small steps move the rounding, large ones make room in the accumulator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a profile allows a layer's integers to be."""

    weight_bits: int
    bias_max: int
    theta_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What quantizing one layer meant.

    scale: what one weight unit stands for, one number or one per channel; rounded_away: trained weights that became 0;
    spikes_differing: share of the calibration spikes unlike the float SNN's; bounds: proven from the weights; wraps and
    saturations: neuron-steps on the calibration images that did (see `Trace`). None for the readout.
    """

    scale: tuple[float, ...]
    rounded_away: int
    spikes_differing: float | None
    bounds: Bounds
    wraps: int | None
    saturations: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """An integer network, the trained masks of its layers, and what was lost on the way."""

    network: Network
    masks: dict[str, Bools]
    facts: dict[str, LayerFacts]


def quantize(
    net: Net,
    *,
    timesteps: int,
    masks: Mapping[str, Bools],
    images: npt.NDArray[np.uint8],
    run: Callable[..., Trace],
    limits: Limits,
    weight_bits: int = 8,
    theta: Literal["layer", "channel"] = "layer",
) -> Quantized:
    """Return the integer network of a float SNN, its scales chosen on uint8 calibration images (samples, C, H, W).

    masks: per layer name, True for a synapse; a layer without one has its nonzero weights. `run(network, images,
    record=True)` runs an integer network. Raises UnsupportedError for a layer that cannot be deployed and RangeError where
    no scale keeps a layer inside the limits.
    """
    _check_bits(weight_bits, limits)
    source, folded = fold(net, images.shape[1:], masks)
    layers: list[Layer] = []
    facts: dict[str, LayerFacts] = {}
    for layer, expected in zip(folded[:-1], float_spikes(net, images), strict=True):
        least = _least_scale(layer, weight_bits, limits, per_channel=theta == "channel")
        best: LayerFacts | None = None
        for factor in FACTORS:
            candidate = _hidden(layer, least * factor, weight_bits)
            network = _prefix(source, [*layers, candidate], timesteps)
            facts_now = _facts(layer, network, len(layers), least * factor, (run, images, expected))
            if _fits(facts_now, constant_drive=not layers) and (
                best is None or _differing(facts_now) < _differing(best)
            ):
                best, chosen = facts_now, candidate
        if best is None:
            raise _overflow(layer, facts_now)
        layers.append(chosen)
        facts[layer.name] = best
    scale = _least_scale(folded[-1], weight_bits, limits, per_channel=False)
    readout = _readout(folded[-1], scale, weight_bits)
    network = Network(input=source, layers=tuple(layers), readout=readout, timesteps=timesteps)
    facts[readout.name] = _facts(folded[-1], network, len(layers), scale, None)
    return Quantized(network=network, masks={layer.name: layer.mask for layer in folded}, facts=facts)


def float_spikes(net: Net, images: npt.NDArray[np.uint8]) -> list[Bools]:
    """Return the float SNN's spikes of each IF layer on uint8 images. Shapes: (samples, T, C, H, W) each."""
    recorded: list[Bools] = []

    def record(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        spikes = output.reshape(-1, len(images), *output.shape[1:]).transpose(0, 1)
        while spikes.ndim < 5:
            spikes = spikes[..., None]
        recorded.append((spikes > 0).cpu().numpy())

    training = net.training
    hooks = [module.register_forward_hook(record) for module in net.body if isinstance(module, IF)]
    try:
        net.eval()
        with torch.no_grad():
            net(torch.tensor(images).to(net.mean) / 255)
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return recorded


def _check_bits(weight_bits: int, limits: Limits) -> None:
    most = min(WEIGHT_BITS_MAX, limits.weight_bits)
    if weight_bits > most:
        raise RangeError(
            where="weights", quantity="bits", used=weight_bits, limit=most, remedy=f"Use --weight-bits {most} or fewer"
        )
    if weight_bits < 2:
        raise UnsupportedError(where="weights", reason="1 bit holds no two signs", remedy="Use --weight-bits 2 or more")


def _least_scale(layer: Folded, weight_bits: int, limits: Limits, *, per_channel: bool) -> Floats:
    """Return the least scale at which weights, bias and theta fit their widths. Shapes: () or (C,)."""

    def greatest(values: Floats) -> Floats:
        return np.asarray(np.abs(values).max(axis=tuple(range(1, values.ndim)) if per_channel else None))

    weight = greatest(layer.weight) / ((1 << (weight_bits - 1)) - 1)
    bias = greatest(layer.bias) / limits.bias_max
    scale = np.maximum(np.maximum(weight, bias), (layer.threshold or 0.0) / limits.theta_max)
    return np.asarray(np.where(scale > 0, scale, 1.0))


def _rounded(values: Floats, scale: Floats) -> npt.NDArray[np.int32]:
    per_channel = scale.reshape(-1, *[1] * (values.ndim - 1)) if scale.ndim else scale
    return np.rint(values / per_channel).astype(np.int32)


def _hidden(layer: Folded, scale: Floats, weight_bits: int) -> Layer:
    # A threshold that float32 noise put above an integer is that integer.
    theta = np.maximum(np.ceil((layer.threshold or 0.0) / scale * (1 - 1e-6)), 1).astype(np.int32)
    neuron = Neuron(theta=theta, bias=_rounded(layer.bias, scale))
    weight = _rounded(layer.weight, scale)
    if isinstance(layer.module, nn.Linear):
        return Dense(name=layer.name, weight=weight, neuron=neuron, pool=layer.pool, weight_bits=weight_bits)
    return Conv(
        name=layer.name,
        weight=weight,
        neuron=neuron,
        stride=_pair(layer.module.stride),
        padding=_pair(layer.module.padding),
        dilation=_pair(layer.module.dilation),
        groups=layer.module.groups,
        pool=layer.pool,
        weight_bits=weight_bits,
    )


def _readout(layer: Folded, scale: Floats, weight_bits: int) -> Readout:
    weight, bias = _rounded(layer.weight, scale), _rounded(layer.bias, scale)
    return Readout(name=layer.name, weight=weight, bias=bias, pool=layer.pool, weight_bits=weight_bits)


def _prefix(source: Input, layers: list[Layer], timesteps: int) -> Network:
    """Return the network of these hidden layers; a network needs a readout, so it gets one that reads nothing."""
    shape = source.shape
    for layer in layers:
        shape = layer.output_shape(shape)
    nothing = np.zeros((1, int(np.prod(shape))), dtype=np.int32)
    readout = Readout(name="nothing", weight=nothing, bias=np.zeros(1, dtype=np.int32))
    return Network(input=source, layers=tuple(layers), readout=readout, timesteps=timesteps)


def _facts(
    folded: Folded,
    network: Network,
    index: int,
    scale: Floats,
    measure: tuple[Callable[..., Trace], npt.NDArray[np.uint8], Bools] | None,
) -> LayerFacts:
    """Return the facts of layer `index`; measured on images against the expected spikes where `measure` gives them."""
    differing = wraps = saturations = None
    if measure:
        run, images, expected = measure
        trace = run(network, images, record=True)
        if trace.spikes and trace.wraps is not None and trace.saturations is not None:
            differing = float(np.mean(trace.spikes[-1] != expected))
            wraps, saturations = int(trace.wraps[-1]), int(trace.saturations[-1])
    return LayerFacts(
        scale=tuple(np.atleast_1d(scale).tolist()),
        rounded_away=int(np.count_nonzero(folded.mask & (network.chain[index].weight == 0))),
        spikes_differing=differing,
        bounds=bounds(network, index),
        wraps=wraps,
        saturations=saturations,
    )


def _fits(facts: LayerFacts, *, constant_drive: bool) -> bool:
    """Return whether nothing overflowed that matters.

    Where the drive is the same at every step, as in the first layer, v saturates only in neurons that never spike anyway.
    The sum of a convolution may wrap at 24 bits before any neuron could count it, so that must be proven.
    """
    no_sum_wraps = max(map(abs, facts.bounds.synaptic)) < 64 * ACCUMULATOR
    return no_sum_wraps and not facts.wraps and (constant_drive or not facts.saturations)


def _differing(facts: LayerFacts) -> float:
    return 1.0 if facts.spikes_differing is None else facts.spikes_differing


def _overflow(layer: Folded, facts: LayerFacts) -> RangeError:
    return RangeError(
        where=layer.name,
        quantity="accumulator may reach",
        used=max(map(abs, (*facts.bounds.synaptic, *facts.bounds.state))),
        limit=ACCUMULATOR,
        remedy=f"Prune {layer.name} further, use fewer weight bits, or train with smaller weights and biases",
    )


def _pair(value: object) -> tuple[int, int]:
    match value:
        case (int(y), int(x)):
            return y, x
        case int():
            return value, value
    raise TypeError(value)
