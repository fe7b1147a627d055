"""The executable specification: one network, step by step, in numpy int64, as slow and as plain as it can be.

Every other backend is tested against this file, and this file against Lava. Its equation stands in `toolchain.ir`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from toolchain.ir import AnyLayer, Conv, Network, Neuron, Readout
from toolchain.trace import Trace

Ints = np.ndarray[Any, np.dtype[np.int64]]
LIMIT = 1 << 23  # u and v are 24 bit: u wraps past LIMIT, v saturates at LIMIT - 1


def run(network: Network, images: np.ndarray[Any, np.dtype[np.uint8]], *, record: bool = False) -> Trace:
    """Return what the network does on uint8 images (samples, C, H, W); with `record`, every spike too."""
    signal = np.repeat(network.input.encode(images)[:, None].astype(np.int64), network.timesteps, axis=1)
    spikes, tallies = [], []
    for layer, source, shape in network.wired():
        drive = synapses(layer, signal.reshape(-1, *source)).reshape(*signal.shape[:2], *shape)
        if not isinstance(layer, Readout):
            signal, tally = neurons(*network.driven(layer, drive))
            spikes.append(signal.astype(bool))
            tallies.append(tally)
    active, wraps, saturations = np.array(tallies).transpose(2, 0, 1)
    return Trace(
        backend="reference",
        layers=tuple(layer.name for layer in network.layers),
        logits=drive.sum(axis=1)[:, :, 0, 0] + network.timesteps * network.readout.bias.astype(np.int64),
        counts=tuple(spike.sum(axis=1, dtype=np.int32) for spike in spikes),
        spikes=tuple(spikes) if record else None,
        active=active,
        wraps=wraps,
        saturations=saturations,
    )


def synapses(layer: AnyLayer, signal: Ints) -> Ints:
    """Return a = W * sum_pool(signal). Shapes: (n, C, H, W) -> (n, Cout, Hout, Wout)."""
    (n, channels, height, width), q = signal.shape, layer.pool
    pooled = signal.reshape(n, channels, height // q, q, width // q, q).sum(axis=(3, 5))
    if not isinstance(layer, Conv):
        return np.asarray(pooled.reshape(n, layer.weight.shape[1]) @ layer.weight.T.astype(np.int64))[:, :, None, None]
    _, rows, columns = layer.output_shape((channels, height, width))
    (sy, sx), (py, px), (dy, dx) = layer.stride, layer.padding, layer.dilation
    padded = np.pad(pooled, ((0, 0), (0, 0), (py, py), (px, px)))
    grouped = padded.reshape(n, layer.groups, channels // layer.groups, *padded.shape[2:])
    weight = layer.dense_weight.astype(np.int64).reshape(layer.groups, -1, *layer.dense_weight.shape[1:])
    total = np.zeros((n, *weight.shape[:2], rows, columns), dtype=np.int64)
    for i, j in np.ndindex(*layer.weight.shape[2:]):
        window = grouped[..., i * dy :: sy, j * dx :: sx][..., :rows, :columns]
        total += np.einsum("goc,ngcyx->ngoyx", weight[..., i, j], window)
    return (total.reshape(n, layer.n_channels, rows, columns) + LIMIT) % (2 * LIMIT) - LIMIT


def neurons(neuron: Neuron, drive: Ints) -> tuple[Ints, Ints]:
    """Return spikes (0 or 1) and [active, wraps, saturations] of each step. Shapes: a drive a (samples, T, C, H, W)."""
    level = 64 * (neuron.theta.astype(np.int64).reshape(-1, 1, 1) - 1)
    bias = neuron.bias_map
    u = v = np.zeros_like(drive[:, 0])
    spikes, tally = np.zeros_like(drive), np.zeros((drive.shape[1], 3), dtype=np.int64)
    for t in range(drive.shape[1]):
        exact = decay(u, neuron.i_decay) + 64 * drive[:, t]
        current = exact.astype(np.int32).astype(np.int64)  # Lava adds in 32 bit
        u = np.where(current > LIMIT, current - 2 * LIMIT, np.where(current <= -LIMIT, current + 2 * LIMIT, current))
        voltage = decay(v, neuron.v_decay) + u + 64 * bias
        v = np.clip(voltage, 1 - LIMIT, LIMIT - 1)
        spikes[:, t], v = v > level, np.where(v > level, 0, v)
        tally[t] = [np.count_nonzero(x) for x in (drive[:, t] + bias, u != exact, voltage <= -LIMIT)]
    return spikes, tally


def decay(state: Ints, amount: int) -> Ints:
    """Return state * (4096 - amount) / 4096, rounded towards zero."""
    return np.asarray(np.sign(state) * (np.abs(state) * (4096 - amount) >> 12))
