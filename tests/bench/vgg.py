"""Random masked integer VGGs of any size, whose layers all spike: networks of the true shape without a training.

A trained network's weights would be no faster and no slower. What counts is shape, sparsity and activity, so each layer's theta is
set from the membranes its own input causes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from toolchain import emulate
from toolchain.ir import THETA_MAX, Conv, Dense, Input, Layer, Network, Neuron, Readout

if TYPE_CHECKING:
    import numpy.typing as npt

    Images = npt.NDArray[np.uint8]
    Shape = tuple[int, int, int]

LAYERS: dict[int, tuple[tuple[int | str, ...], tuple[int, ...]]] = {
    11: ((64, "A", 128, 256, "A", 512, 512, 512, "A", 512, 512), (4096, 4096)),
    16: ((64, 64, "A", 128, 128, "A", 256, 256, 256, "A", 512, 512, 512, "A", 512, 512, 512), (256, 256)),
}
"""Convolutions ("A" is an average pool) and hidden linear layers of each VGG, as the method has them for 32x32 images"""
RATE = 0.05, 0.30
"""Least and greatest share of neuron-steps in which a layer may spike"""
_OFFSET = (125, 123, 114)
_BIAS_MAX = 4095
_CALIBRATION_IMAGES = 4
_LEAST_FAN_IN = 3
"""Weights that a neuron keeps on average, however sparse: a small layer would fall silent"""


def build(
    depth: int, *, sparsity: float = 0.9, width: float = 1.0, timesteps: int = 8, rate: float = 0.12, seed: int = 0
) -> Network:
    """Return a VGG of 8 bit weights, a share `sparsity` of them zero in every layer that is not tiny, whose neurons spike at about `rate`.

    width multiplies every layer but the readout. Raises ValueError if a layer does not spike within RATE.
    """
    rng = np.random.default_rng(seed)
    signal = torch.from_numpy(_encoded(images(_CALIBRATION_IMAGES, seed=seed + 1))).float()[None]
    layers: list[Layer] = []
    convs, hidden = layout(depth, width)
    pool = 1
    for item in convs:
        if item == "A":
            pool = 2
            continue
        weight = _weight(rng, (item, signal.shape[2], 3, 3), sparsity)
        layer: Layer = Conv(
            name=f"conv{len(layers) + 1}", weight=weight, neuron=_silent(item), padding=(1, 1), pool=pool
        )
        layer, signal = firing(layer, signal, timesteps, rate)
        layers.append(layer)
        pool = 1
    for number, features in enumerate(hidden, start=1):
        weight = _weight(rng, (features, signal[0, 0].numel()), sparsity)
        layer, signal = firing(
            Dense(name=f"linear{number}", weight=weight, neuron=_silent(features)), signal, timesteps, rate
        )
        layers.append(layer)
    weight = _weight(rng, (10, signal[0, 0].numel()), sparsity)
    readout = Readout(name="readout", weight=weight, bias=np.zeros(10, dtype=int))
    network = Network(input=_input(), layers=tuple(layers), readout=readout, timesteps=timesteps)
    verify(network, images(_CALIBRATION_IMAGES, seed=seed + 1))
    return network


def layout(depth: int, width: float) -> tuple[tuple[int | str, ...], tuple[int, ...]]:
    """Return the convolutions and hidden layers of a VGG, widths multiplied."""
    convs, hidden = LAYERS[depth]
    return (
        tuple(item if isinstance(item, str) else max(1, round(item * width)) for item in convs),
        tuple(max(1, round(item * width)) for item in hidden),
    )


def images(n: int, *, seed: int = 0) -> Images:
    """Return n coloured 32x32 images of soft spots with some noise. Shape: (n, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(seed)
    soft = F.interpolate(torch.rand(n, 3, 8, 8, generator=generator), size=32, mode="bilinear")
    noisy = soft + 0.1 * torch.randn(n, 3, 32, 32, generator=generator)
    return (255 * noisy).clamp(0, 255).to(torch.uint8).numpy()


def rates(network: Network, shown: Images) -> list[float]:
    """Return the share of neuron-steps in which each hidden layer spikes."""
    trace = emulate.run(network, shown)
    return [float(counts.mean()) / network.timesteps for counts in trace.counts]


def dense_twin(network: Network) -> Network:
    """Return the network with the smallest weight in place of every zero: the same shape and nothing to skip."""

    def full(layer: Any) -> Any:
        return replace(layer, weight=np.where(layer.weight == 0, 1, layer.weight))

    return replace(network, layers=tuple(map(full, network.layers)), readout=full(network.readout))


def _input() -> Input:
    return Input(shape=(3, 32, 32), offset=np.array(_OFFSET))


def _encoded(shown: Images) -> npt.NDArray[np.int32]:
    return _input().encode(shown)


def _weight(rng: np.random.Generator, shape: tuple[int, ...], sparsity: float) -> npt.NDArray[np.int32]:
    # Normal weights lose their smallest to a mask by magnitude; what stays fills the 8 bits.
    values = rng.standard_normal(shape, dtype=np.float32)
    magnitude = np.abs(values)
    scale = 127 / magnitude.max()
    whole = np.where(magnitude * scale < 0.5, np.sign(values), np.rint(values * scale))
    pruned = min(round(sparsity * whole.size), whole.size - _LEAST_FAN_IN * shape[0])
    if pruned > 0:
        whole.reshape(-1)[np.argpartition(magnitude, pruned - 1, axis=None)[:pruned]] = 0
    return whole.astype(np.int32)


def _silent(channels: int) -> Neuron:
    return neurons(THETA_MAX, np.zeros(channels, dtype=int))


def firing(layer: Layer, signal: torch.Tensor, timesteps: int, rate: float) -> tuple[Layer, torch.Tensor]:
    """Return the layer with bias and theta set, and its spikes, relayed ones behind.

    The bias takes the mean drive of each channel away, as a batch norm does, and theta is the one at which the layer spikes at `rate`.
    Shapes: signal (T or 1, samples, C, H, W) -> (T, samples, Cout, Hout, Wout).
    """
    steps, samples, *source = signal.shape
    weight = torch.from_numpy(layer.weight.astype(np.float64))
    merged = F.avg_pool2d(signal.reshape(steps * samples, *source), layer.pool, divisor_override=1).double()
    if isinstance(layer, Conv):
        drive = F.conv2d(merged[:, : weight.shape[1]], weight, stride=layer.stride, padding=layer.padding)
    else:
        drive = F.linear(merged.flatten(1), weight)[:, :, None, None]
    drive = drive.reshape(steps, samples, *drive.shape[1:]).float()  # whole numbers below 2^24
    bias = drive.mean(dim=(0, 1, 3, 4)).round().clamp(-_BIAS_MAX, _BIAS_MAX).neg()
    driven = drive + bias[:, None, None]
    low, high = 1, THETA_MAX
    while low < high:  # the least theta at which the layer does not spike too often
        middle = (low + high) // 2
        if _spikes(driven, middle, timesteps).mean() > rate:
            low = middle + 1
        else:
            high = middle
    spikes, n_relays = _spikes(driven, low, timesteps), 0
    if isinstance(layer, Conv) and layer.n_relays:
        (first, last), (sy, sx), n_relays = layer.relays, layer.stride, layer.n_relays
        spikes = torch.cat([spikes, signal[:, :, first:last, ::sy, ::sx]], dim=2)
    return replace(layer, neuron=neurons(low, bias.numpy().astype(np.int64), n_relays)), spikes


def neurons(theta: int, bias: npt.NDArray[Any], n_relays: int = 0) -> Neuron:
    """Return the neurons of a layer, with relays behind them."""
    if not n_relays:
        return Neuron(theta=np.array(theta), bias=bias)
    thetas = np.concatenate([np.full(len(bias), theta), np.ones(n_relays, dtype=int)])
    return Neuron(theta=thetas, bias=np.concatenate([bias, np.zeros(n_relays, dtype=int)]))


def _spikes(driven: torch.Tensor, theta: int, timesteps: int) -> torch.Tensor:
    v = torch.zeros_like(driven[0])
    spikes = []
    for t in range(timesteps):
        v = v + driven[t % len(driven)]
        spikes.append((v >= theta).float())
        v = v * (1 - spikes[-1])
    return torch.stack(spikes)


def verify(network: Network, shown: Images) -> None:
    """Raise ValueError if a layer does not spike within RATE."""
    for layer, rate in zip(network.layers, rates(network, shown), strict=True):
        if not RATE[0] <= rate <= RATE[1]:
            raise ValueError(
                f"{layer.name} spikes in {rate:.1%} of its neuron-steps, not in {RATE[0]:.0%} to {RATE[1]:.0%}"
            )
