"""The search for a layer's scale.

At the scale of its greatest weight, everything in a layer fits its width. A smaller scale clips the greatest values to make
the others finer: worth it where few are great, as behind a batch norm whose channel was almost silent in training. A larger
one makes room in the accumulator. The scale taken is the one with the fewest spikes that differ from the float SNN's on
calibration images, among those at which nothing overflows that matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from torch import nn

from toolchain.errors import RangeError
from toolchain.ir import Conv, Dense, Input, Layer, Network, Neuron, Readout
from toolchain.quantize.leak import v_decay
from toolchain.quantize.ranges import ACCUMULATOR, Bounds, bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from toolchain.quantize.folded import Folded
    from toolchain.trace import Trace

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int32]
    Bools = npt.NDArray[np.bool_]

ROOM = (1, 2, 3)
"""Doublings of the scale that are tried."""
FINE = (0.84, 0.92, 0.96, 0.98, 1.02, 1.04, 1.08, 1.16)
"""Factors tried around the best doubling or halving."""


class Run(Protocol):
    """Something that runs an integer network on uint8 images (samples, C, H, W)."""

    def __call__(self, network: Network, images: npt.NDArray[np.uint8], *, record: bool) -> Trace:
        """Return the trace, with every spike where `record` is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """What a layer's integers may be."""

    weight_bits: int
    bias_max: int
    theta_max: int

    @property
    def weight_max(self) -> int:
        """Greatest weight; the least is its negative."""
        return (1 << (self.weight_bits - 1)) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What quantizing one layer meant.

    scale: what one weight unit stands for, one number or one per channel; rounded_away: trained weights that became 0;
    clipped: weights and biases beyond their width, that became its greatest or least; bounds: proven from the weights.
    On the calibration images, and None for the readout: spikes_differing, the share of spikes unlike the float SNN's, relays
    left out; wraps and saturations, neuron-steps (see `Trace`). errors: of a weight composed of several, by the source's name,
    the norm of what rounding changed over the norm of its part.
    """

    scale: tuple[float, ...]
    rounded_away: int
    bounds: Bounds
    clipped: int = 0
    spikes_differing: float | None = None
    wraps: int | None = None
    saturations: int | None = None
    errors: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How a candidate layer is tried: behind the layers before it, on images whose float spikes are known.

    Shapes: images uint8 (samples, C, H, W); expected (samples, T, C, H, W), the spikes of the layer tried.
    """

    source: Input
    before: tuple[Layer, ...]
    timesteps: int
    run: Run
    images: npt.NDArray[np.uint8]
    expected: Bools

    def network(self, candidate: Layer) -> Network:
        """Return the network that ends with the candidate; a network needs a readout, so it gets one that reads nothing."""
        shape = self.source.shape
        for layer in (*self.before, candidate):
            shape = layer.output_shape(shape)
        nothing = np.zeros((1, math.prod(shape)), dtype=np.int32)
        readout = Readout(name="nothing", weight=nothing, bias=np.zeros(1, dtype=np.int32))
        return Network(input=self.source, layers=(*self.before, candidate), readout=readout, timesteps=self.timesteps)


def hidden_layer(layer: Folded, widths: Widths, probe: Probe, *, per_channel: bool) -> tuple[Layer, LayerFacts]:
    """Return the layer at the best scale, and what that meant. Raises RangeError where it overflows at every scale."""
    whole = _whole_scale(layer, widths, per_channel=per_channel)
    tried: dict[float, tuple[Layer, LayerFacts]] = {}

    def try_(factor: float) -> None:
        if factor not in tried:
            tried[factor] = _candidate(
                layer, np.maximum(whole * factor, _threshold_scale(layer, widths)), widths, probe
            )

    def best() -> float | None:
        fitting = [factor for factor, (_, facts) in tried.items() if _fits(facts, constant_drive=not probe.before)]
        return min(fitting, key=lambda factor: (tried[factor][1].spikes_differing, abs(math.log(factor))), default=None)

    for power in range(-_halvings(layer, whole, widths), max(ROOM) + 1):
        try_(2.0**power)
    coarse = best()
    if coarse is None:
        raise _overflow(layer, tried[2.0 ** max(ROOM)][1])
    for factor in FINE:
        try_(coarse * factor)
    return tried[best() or coarse]


def at_scale(layer: Folded, widths: Widths, probe: Probe, scale: Sequence[float]) -> tuple[Layer, LayerFacts]:
    """Return the layer at a scale that is given, () or (C,), and what that meant. Raises RangeError where it overflows."""
    given = np.asarray(scale if len(scale) > 1 else scale[0], dtype=np.float64)
    found, facts = _candidate(layer, np.maximum(given, _threshold_scale(layer, widths)), widths, probe)
    if not _fits(facts, constant_drive=not probe.before):
        raise _overflow(layer, facts)
    return found, facts


def readout(layer: Folded, widths: Widths, scale: Sequence[float] | None = None) -> tuple[Readout, float]:
    """Return the readout at the scale of its greatest weight, or the one given, and that scale."""
    unit = float(_whole_scale(layer, widths, per_channel=False)) if scale is None else scale[0]
    weight, _ = _rounded(layer.weight, np.asarray(unit), widths.weight_max)
    bias, _ = _rounded(layer.bias, np.asarray(unit), widths.bias_max)
    found = Readout(
        name=layer.name,
        weight=weight,
        bias=bias,
        pool=layer.pool,
        weight_bits=widths.weight_bits,
    )
    return found, unit


def _whole_scale(layer: Folded, widths: Widths, *, per_channel: bool) -> Floats:
    """Return the least scale at which no weight or bias is clipped. Shapes: () or (C,)."""

    def greatest(values: Floats) -> Floats:
        return np.asarray(np.abs(values).max(axis=tuple(range(1, values.ndim)) if per_channel else None))

    scale = np.maximum(greatest(layer.weight) / widths.weight_max, greatest(layer.bias) / widths.bias_max)
    return np.asarray(np.where(scale > 0, scale, np.maximum(_threshold_scale(layer, widths), 1e-30)))


def _threshold_scale(layer: Folded, widths: Widths) -> float:
    """Return the least scale at which theta fits; unlike a weight it must not be clipped."""
    return (layer.threshold or 0.0) / widths.theta_max


def _halvings(layer: Folded, whole: Floats, widths: Widths) -> int:
    """Return how often the scale can be halved before half of the weights are clipped."""
    kept = np.abs(layer.weight[layer.weight != 0])
    if whole.ndim or not kept.size:  # channels have their own scales: nothing to trade
        return 0
    return max(0, math.floor(math.log2(float(whole) * widths.weight_max / float(np.median(kept)))))


def _candidate(layer: Folded, scale: Floats, widths: Widths, probe: Probe) -> tuple[Layer, LayerFacts]:
    weight, clipped_weights = _rounded(layer.weight, scale, widths.weight_max)
    bias, clipped_biases = _rounded(layer.bias, scale, widths.bias_max)
    # A threshold that float32 noise put above an integer is that integer.
    theta = np.maximum(np.ceil((layer.threshold or 0.0) / scale * (1 - 1e-6)), 1).astype(np.int32)
    neuron = Neuron(theta=theta, bias=bias, v_decay=v_decay(layer))
    candidate = _layer(layer, weight, neuron, widths.weight_bits)
    network = probe.network(candidate)
    trace = probe.run(network, probe.images, record=True)
    assert trace.spikes is not None
    assert trace.wraps is not None
    assert trace.saturations is not None
    return candidate, LayerFacts(
        scale=tuple(np.atleast_1d(scale).tolist()),
        rounded_away=int(np.count_nonzero(layer.mask & (weight == 0))),
        clipped=clipped_weights + clipped_biases,
        bounds=bounds(network, len(probe.before)),
        spikes_differing=float(np.mean(trace.spikes[-1][:, :, : len(weight)] != probe.expected)),
        wraps=int(trace.wraps[-1].sum()),
        saturations=int(trace.saturations[-1].sum()),
        errors=errors(layer, weight, scale),
    )


def _rounded(values: Floats, scale: Floats, greatest: int) -> tuple[Ints, int]:
    """Return the values in units of the scale, and how many of them were clipped."""
    per_channel = scale.reshape(-1, *[1] * (values.ndim - 1)) if scale.ndim else scale
    exact = np.rint(values / per_channel)
    return np.clip(exact, -greatest, greatest).astype(np.int32), int(np.count_nonzero(np.abs(exact) > greatest))


def errors(layer: Folded, weight: Ints, scale: Floats) -> dict[str, float]:
    """Return, by the source's name, the norm of what rounding changed over the norm of that part of a composed weight."""
    per_channel = scale.reshape(-1, 1, 1, 1)
    ends = [*(at for _, at in layer.parts[1:]), layer.weight.shape[1]]
    found = {}
    for (name, first), last in zip(layer.parts, ends, strict=True) if layer.parts else ():
        exact = layer.weight[:, first:last]
        size = float(np.linalg.norm(exact))
        found[name] = float(np.linalg.norm(weight[:, first:last] * per_channel - exact)) / size if size else 0.0
    return found


def _layer(layer: Folded, weight: Ints, neuron: Neuron, weight_bits: int) -> Layer:
    if isinstance(layer.module, nn.Linear):
        return Dense(name=layer.name, weight=weight, neuron=neuron, pool=layer.pool, weight_bits=weight_bits)
    relays = layer.relays[1] - layer.relays[0]
    if relays:
        theta = np.broadcast_to(neuron.theta, len(weight))
        rest = np.ones(relays, dtype=np.int32), np.zeros(relays, dtype=np.int32)
        theta, bias = np.concatenate([theta, rest[0]]), np.concatenate([neuron.bias, rest[1]])
        neuron = replace(neuron, theta=theta, bias=bias)
    return Conv(
        name=layer.name,
        weight=weight,
        neuron=neuron,
        relays=layer.relays,
        stride=_pair(layer.module.stride),
        padding=_pair(layer.module.padding),
        dilation=_pair(layer.module.dilation),
        groups=layer.module.groups,
        pool=layer.pool,
        weight_bits=weight_bits,
    )


def _fits(facts: LayerFacts, *, constant_drive: bool) -> bool:
    """Return whether nothing overflowed that matters.

    Where the drive is the same at every step, as in the first layer, v saturates only in neurons that never spike anyway.
    The sum of a convolution may wrap at 24 bits before any neuron could count it, so that must be proven.
    """
    no_sum_wraps = max(map(abs, facts.bounds.synaptic)) < 64 * ACCUMULATOR
    return no_sum_wraps and not facts.wraps and (constant_drive or not facts.saturations)


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
