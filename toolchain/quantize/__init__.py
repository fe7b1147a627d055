"""The border: a float SNN becomes an integer Network.

Normalisation, batch norm and pools are folded into weights, bias and threshold (`fold`). Then each layer is divided by one
scale s (one per output channel, if asked) and rounded::

    w_int = round(w / s)      b_int = round(b / s)      theta = ceil(v_th / s)

so that ``sum w_int + b_int >= theta`` is the float neuron's ``u >= v_th`` up to the rounding; `scale` says how s is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from toolchain.errors import ConfigError, RangeError
from toolchain.ir import WEIGHT_BITS_MAX, Layer, Network
from toolchain.quantize.drive import HOST, driven_layer
from toolchain.quantize.fold import fold
from toolchain.quantize.leak import check_leak
from toolchain.quantize.ranges import Bounds, bounds
from toolchain.quantize.scale import (
    Answers,
    LayerFacts,
    Probe,
    Widths,
    at_scale,
    hidden_layer,
    readout,
    without_readout,
)
from toolchain.spiking import neurons

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from toolchain.nets import Net
    from toolchain.quantize.scale import Run

    Bools = npt.NDArray[np.bool_]

__all__ = ["Bounds", "LayerFacts", "Limits", "Quantized", "bounds", "float_spikes", "fold", "quantize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a profile allows a layer's integers to be, and whether it takes messages: if not, biases drive the first layer."""

    weight_bits: int
    bias_max: int
    theta_max: int
    graded: bool = True


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
    run: Run,
    limits: Limits,
    weight_bits: int | Mapping[str, int] = WEIGHT_BITS_MAX,
    theta: Literal["layer", "channel"] = "layer",
    scales: Mapping[str, Sequence[float]] | None = None,
) -> Quantized:
    """Return the integer network of a float SNN, its scales chosen on uint8 calibration images (samples, C, H, W).

    masks: per layer name, True for a synapse; a layer without one has its nonzero weights. weight_bits: of every layer, or of
    those named, 8 elsewhere. scales: of layers, by name, that are not to be searched for theirs. `run(network, images, record=True)` runs an integer network. Raises UnsupportedError for a layer
    that cannot be deployed and RangeError where no scale keeps a layer inside the limits.
    """
    source, folded = fold(net, images.shape[1:], masks)
    widths = _widths([layer.name for layer in folded], weight_bits, limits)
    given = scales or {}
    layers: list[Layer] = []
    facts: dict[str, LayerFacts] = {}
    for layer, expected in zip(folded[:-1], float_spikes(net, images), strict=True):
        probe = Probe(
            source=source, before=tuple(layers), timesteps=timesteps, run=run, images=images, expected=expected
        )
        driven = not layers and not limits.graded
        allowed = HOST if driven else widths[layer.name]
        if layer.name in given and not driven:
            found, facts[layer.name] = at_scale(layer, allowed, probe, given[layer.name])
        else:
            found, facts[layer.name] = hidden_layer(layer, allowed, probe, per_channel=theta == "channel")
        if driven:
            found, source, facts[layer.name] = driven_layer(found, facts[layer.name], limits.bias_max, probe)
        sent = np.abs(source.message_range).max() if not layers and not driven else layer.pool**2
        check_leak(layer, found, int(sent))
        layers.append(found)
    answers = _answers(net, images, without_readout(source, tuple(layers), timesteps), folded[-1].pool, run)
    last, scale = readout(folded[-1], widths[folded[-1].name], answers, given.get(folded[-1].name))
    network = Network(input=source, layers=tuple(layers), readout=last, timesteps=timesteps)
    facts[last.name] = LayerFacts(
        scale=(scale,),
        rounded_away=int(np.count_nonzero(folded[-1].mask & (last.weight == 0))),
        bounds=bounds(network, len(layers)),
    )
    return Quantized(network=network, masks={layer.name: layer.mask for layer in folded}, facts=facts)


def float_spikes(net: Net, images: npt.NDArray[np.uint8]) -> list[Bools]:
    """Return the float SNN's spikes of each IF layer on uint8 images, no relays. Shapes: (samples, T, C, H, W) each."""
    recorded: list[Bools] = []

    def record(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        spikes = output.reshape(-1, len(images), *output.shape[1:]).transpose(0, 1)
        while spikes.ndim < 5:
            spikes = spikes[..., None]
        recorded.append((spikes > 0).cpu().numpy())

    training = net.training
    hooks = [module.register_forward_hook(record) for module in neurons(net.body)]
    try:
        net.eval()
        with torch.no_grad():
            net(torch.tensor(images).to(net.mean) / 255)
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return recorded


def _answers(net: Net, images: npt.NDArray[np.uint8], hidden: Network, pool: int, run: Run) -> Answers:
    """Return what the readout behind hidden layers hears of images, and what the float SNN says of them."""
    heard = run(hidden, images, record=False).counts[-1]
    samples, channels, height, width = heard.shape
    pooled = heard.reshape(samples, channels, height // pool, pool, width // pool, pool).sum(axis=(3, 5))
    training = net.training
    with torch.no_grad():
        logits = net.eval()(torch.tensor(images).to(net.mean) / 255).double().cpu().numpy()
    net.train(training)
    return Answers(heard=pooled.reshape(samples, -1).astype(np.float64), logits=logits, timesteps=hidden.timesteps)


def _widths(names: list[str], weight_bits: int | Mapping[str, int], limits: Limits) -> dict[str, Widths]:
    """Return what the integers of each layer may be. Raises ConfigError, RangeError and UnsupportedError."""
    if isinstance(weight_bits, int):
        _check_bits("weights", weight_bits, limits)
        bits = dict.fromkeys(names, weight_bits)
    else:
        if unknown := [name for name in weight_bits if name not in names]:
            fault = f"no layer is called {', '.join(unknown)}; there are {', '.join(names)}"
            raise ConfigError(where="weight bits", faults=(fault,))
        bits = {name: weight_bits.get(name, WEIGHT_BITS_MAX) for name in names}
        for name, width in bits.items():
            _check_bits(name, width, limits)
    return {
        name: Widths(weight_bits=width, bias_max=limits.bias_max, theta_max=limits.theta_max)
        for name, width in bits.items()
    }


def _check_bits(where: str, weight_bits: int, limits: Limits) -> None:
    most = min(WEIGHT_BITS_MAX, limits.weight_bits)
    if weight_bits > most:
        raise RangeError(
            where=where, quantity="bits", used=weight_bits, limit=most, remedy=f"Use --weight-bits {most} or fewer"
        )
