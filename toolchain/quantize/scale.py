"""The search for a layer's scale.

At the scale of its greatest weight, everything in a layer fits its width. A smaller scale clips the greatest values to make
the others finer: worth it where few are great, as behind a batch norm whose channel was almost silent in training. A larger
one makes room in the accumulator. The scale taken is the one with the fewest spikes that differ from the float SNN's on
calibration images, among those at which nothing overflows that matters.

Narrow weights lose more: there each layer, or each channel where it has a scale of its own, also takes the threshold beside v_th / s
that costs the fewest spikes, and the share of a unit from which a small weight is kept as one unit; a readout the scale and the share at
which its answers are nearest the float network's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import product
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
NARROW_BITS = 5
"""Widest weights whose threshold and small weights are searched too: wider ones lose next to nothing."""
FINER = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.25)
THETAS = (0.7, 0.8, 0.9, 1.1, 1.25)
CUTS = (0.2, 0.35, 0.5)
ROUNDS = 2


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
        """Greatest weight; the least is its negative. Of one bit, a weight's sign is what it holds."""
        return max((1 << (self.weight_bits - 1)) - 1, 1)

    @property
    def cuts(self) -> tuple[float, ...]:
        """Shares of a unit tried, from which a weight is not 0; one bit has no 0."""
        return CUTS if self.weight_bits > 1 else (0.0,)

    @property
    def narrow(self) -> bool:
        """Whether thresholds and small weights are searched."""
        return self.weight_bits <= NARROW_BITS


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
        """Return the network that ends with the candidate."""
        return without_readout(self.source, (*self.before, candidate), self.timesteps)


def without_readout(source: Input, layers: tuple[Layer, ...], timesteps: int) -> Network:
    """Return a network of hidden layers; one needs a readout, so it gets one that reads nothing."""
    shape = source.shape
    for layer in layers:
        shape = layer.output_shape(shape)
    nothing = np.zeros((1, math.prod(shape)), dtype=np.int32)
    readout = Readout(name="nothing", weight=nothing, bias=np.zeros(1, dtype=np.int32))
    return Network(input=source, layers=layers, readout=readout, timesteps=timesteps)


def hidden_layer(layer: Folded, widths: Widths, probe: Probe, *, per_channel: bool) -> tuple[Layer, LayerFacts]:
    """Return the layer at the best scale, and what that meant. Raises RangeError where it overflows at every scale."""
    whole = _whole_scale(layer, widths, per_channel=per_channel)
    tried: dict[float, _Tried] = {}

    def try_(factor: float) -> None:
        if factor not in tried:
            tried[factor] = _tried(layer, _Choice(scale=whole * factor), widths, probe)

    def best() -> float | None:
        fitting = [factor for factor, found in tried.items() if found.fits]
        return min(fitting, key=lambda factor: (tried[factor].differing.mean(), abs(math.log(factor))), default=None)

    for power in range(-_halvings(layer, whole, widths), max(ROOM) + 1):
        try_(2.0**power)
    coarse = best()
    if coarse is None:
        raise _overflow(layer, tried[2.0 ** max(ROOM)].facts)
    for factor in FINE:
        try_(coarse * factor)
    found = tried[best() or coarse]
    if widths.narrow:
        found = _refined(layer, found, widths, probe, per_channel=per_channel)
    return found.layer, found.facts


def _refined(layer: Folded, found: _Tried, widths: Widths, probe: Probe, *, per_channel: bool) -> _Tried:
    """Return what is best of scale, small weights and threshold, one after the other, twice: of each channel, or of the layer.

    Channels of a layer do not hear each other, so that what suits each of them is known from runs in which all differ.
    """
    for _ in range(ROUNDS):
        for name, values in (("scale", FINER), ("cut", widths.cuts), ("theta", THETAS)):
            now = getattr(found.choice, name)
            others = [np.broadcast_to(value, now.shape) if name == "cut" else now * value for value in values]
            tries = [
                found,
                *(_tried(layer, replace(found.choice, **{name: other}), widths, probe) for other in others),
            ]
            fitting = [each for each in tries if each.fits]
            if per_channel:
                best = np.argmin([each.differing for each in fitting], axis=0)
                stacked = np.stack([getattr(each.choice, name) for each in fitting])
                mixed = np.take_along_axis(stacked, best[None], axis=0)[0]
                fitting = [found, _tried(layer, replace(found.choice, **{name: mixed}), widths, probe)]
            found = min((each for each in fitting if each.fits), key=lambda each: float(each.differing.mean()))
    return found


def at_scale(layer: Folded, widths: Widths, probe: Probe, scale: Sequence[float]) -> tuple[Layer, LayerFacts]:
    """Return the layer at a scale that is given, () or (C,), and what that meant. Raises RangeError where it overflows."""
    given = np.asarray(scale if len(scale) > 1 else scale[0], dtype=np.float64)
    found = _tried(layer, _Choice(scale=given), widths, probe)
    if not found.fits:
        raise _overflow(layer, found.facts)
    return found.layer, found.facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a readout is to say of calibration images.

    Shapes: heard (samples, features), spikes over all steps, pooled; logits (samples, classes), the float network's.
    """

    heard: Floats
    logits: Floats
    timesteps: int

    def lost(self, weight: Ints, bias: Ints, unit: float) -> float:
        """Return the mean KL divergence of a readout's answers from the float network's. Units: nats an image."""
        found = (self.heard @ weight.T + self.timesteps * bias) * (unit / self.timesteps)
        wanted = _log_shares(self.logits)
        return float((np.exp(wanted) * (wanted - _log_shares(found))).sum(axis=1).mean())


def _log_shares(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def readout(
    layer: Folded, widths: Widths, answers: Answers, scale: Sequence[float] | None = None
) -> tuple[Readout, float]:
    """Return the readout at the scale of its greatest weight, of narrow weights the best, or the one given, and that scale."""
    whole = float(_whole_scale(layer, widths, per_channel=False)) if scale is None else scale[0]
    units = [whole * factor for factor in (1.0, *FINER)] if widths.narrow and scale is None else [whole]
    cuts = widths.cuts if widths.weight_bits == 1 or len(units) > 1 else (0.5,)

    def numbers(unit: float, cut: float) -> tuple[Ints, Ints]:
        weight, _ = _rounded(layer.weight, np.asarray(unit), widths.weight_max, np.asarray(cut))
        return weight, _rounded(layer.bias, np.asarray(unit), widths.bias_max)[0]

    unit, cut = min(product(units, cuts), key=lambda pair: answers.lost(*numbers(*pair), pair[0]))
    weight, bias = numbers(unit, cut)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """How a layer is rounded: its scale; the share of a unit from which a weight is not 0; its threshold over v_th. Shapes: () or (C,)."""

    scale: Floats
    cut: Floats
    theta: Floats

    def __init__(self, *, scale: Floats, cut: Floats | None = None, theta: Floats | None = None) -> None:
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "cut", np.full(scale.shape, 0.5) if cut is None else cut)
        object.__setattr__(self, "theta", np.ones(scale.shape) if theta is None else theta)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """A layer as it was rounded, and what that did. Shape: differing (C,), the share of each channel's spikes unlike the float SNN's."""

    choice: _Choice
    layer: Layer
    facts: LayerFacts
    differing: Floats
    fits: bool


def _tried(layer: Folded, choice: _Choice, widths: Widths, probe: Probe) -> _Tried:
    scale = np.maximum(choice.scale, _threshold_scale(layer, widths))
    weight, clipped_weights = _rounded(
        layer.weight, scale, widths.weight_max, choice.cut if widths.weight_bits > 1 else np.zeros(())
    )
    bias, clipped_biases = _rounded(layer.bias, scale, widths.bias_max)
    # A threshold that float32 noise put above an integer is that integer.
    theta = np.ceil((layer.threshold or 0.0) / scale * choice.theta * (1 - 1e-6))
    theta = np.clip(theta, 1, widths.theta_max).astype(np.int32)
    neuron = Neuron(theta=theta, bias=bias, v_decay=v_decay(layer))
    candidate = _layer(layer, weight, neuron, widths.weight_bits)
    network = probe.network(candidate)
    trace = probe.run(network, probe.images, record=True)
    assert trace.spikes is not None
    assert trace.wraps is not None
    assert trace.saturations is not None
    unlike = trace.spikes[-1][:, :, : len(weight)] != probe.expected
    facts = LayerFacts(
        scale=tuple(np.atleast_1d(scale).tolist()),
        rounded_away=int(np.count_nonzero(layer.mask & (weight == 0))),
        clipped=clipped_weights + clipped_biases,
        bounds=bounds(network, len(probe.before)),
        spikes_differing=float(np.mean(unlike)),
        wraps=int(trace.wraps[-1].sum()),
        saturations=int(trace.saturations[-1].sum()),
        errors=errors(layer, weight, scale),
    )
    return _Tried(
        choice=replace(choice, scale=scale),
        layer=candidate,
        facts=facts,
        differing=np.mean(unlike, axis=(0, 1, 3, 4)),
        fits=_fits(facts, constant_drive=not probe.before),
    )


def _rounded(values: Floats, scale: Floats, greatest: int, cut: Floats | None = None) -> tuple[Ints, int]:
    """Return the values in units of the scale, those of a unit from `cut` on as a whole one, and how many were clipped."""

    def over(numbers: Floats) -> Floats:
        return numbers.reshape(-1, *[1] * (values.ndim - 1)) if numbers.ndim else numbers

    units = values / over(scale)
    exact = np.rint(units)
    if cut is not None:
        exact = np.where((exact == 0) & (np.abs(units) > over(cut)), np.sign(units), exact)
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
