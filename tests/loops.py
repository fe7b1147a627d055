"""Compares the emulator's loops over neurons with the reference on drives no small network causes: at the floor of v, and at theta to the last bit."""

from __future__ import annotations

import numpy as np
import torch

from toolchain.emulate import reference
from toolchain.ir import Dense, Neuron

STEPS, SAMPLES = 7, 3
LIMIT = 1 << 17
"""|a| from which u wraps"""


def faults(emulate, kernels):
    """Yield what is wrong with the loops of an emulator's package, in words; kernels `torch` or `compiled`."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        neuron, shape = _neuron(rng)
        drive = _drive(rng, neuron, (STEPS, SAMPLES, *shape))
        frames = torch.from_numpy(drive).float()
        fired = emulate.neurons.fire(neuron, frames, STEPS, LIMIT - 1, kernels=kernels)
        yield from (f"frames {seed}: {what}" for what in _wrong(neuron, drive, fired))
        held = np.broadcast_to(drive[:1], drive.shape)
        fired = emulate.neurons.fire(neuron, frames[:1], STEPS, LIMIT - 1, kernels=kernels)
        yield from (f"held frames {seed}: {what}" for what in _wrong(neuron, held, fired))
        if kernels == "compiled":
            fired = emulate.compiled.fire_held(neuron, frames[:1], STEPS)
            yield from (f"held lanes {seed}: {what}" for what in _wrong(neuron, held, fired))
            yield from (f"lanes {seed}: {what}" for what in _lanes(emulate, rng))


def _neuron(rng):
    channels, height, width = (int(n) for n in rng.integers(1, 5, 3))
    theta = rng.integers(1, 6, channels) if rng.random() < 0.5 else np.array(rng.choice([1, 5, 1000, LIMIT]))
    bias = rng.integers(-3, 4, (channels, height, width) if rng.random() < 0.5 else channels)
    return Neuron(theta=theta, bias=bias), (channels, height, width)


def _drive(rng, neuron, shape):
    # From the floor, -2^17 + 1/64, to v = theta - 1 + 1/64 it takes 2^17 + theta - 1, which is split in two.
    theta = int(neuron.theta.reshape(-1)[0])
    half = LIMIT // 2
    values = [-LIMIT + 1, LIMIT - 1, -half - 1, half, half - 1, half + theta - 1, theta, theta - 1, 0, 0, 1, -1]
    return np.clip(rng.choice(values, shape), -LIMIT + 1, LIMIT - 1)


def _lanes(emulate, rng):
    """Return what a sparse layer does wrong whose weights are wider than a layer's may be."""
    neuron = Neuron(theta=rng.integers(1, 4, 5), bias=rng.integers(-2, 3, 5))
    layer = Dense(name="lanes", weight=np.ones((5, 6), dtype=int), neuron=neuron)
    weights = rng.choice([-LIMIT + 9, -LIMIT // 2, LIMIT // 2, LIMIT // 2 - 1, LIMIT // 2 + 1, 1, 2], (5, 6))
    events = rng.integers(0, 2, (6, STEPS * SAMPLES)) * (rng.permutation(6 * STEPS * SAMPLES).reshape(6, -1) % 3 == 0)
    drive = (weights @ events).reshape(5, STEPS, SAMPLES).transpose(1, 2, 0)[..., None, None]
    kept = np.abs(drive).max(axis=(0, 1, 3, 4)) < LIMIT
    weights = np.where(kept[:, None], weights, 0)
    drive = np.where(kept[None, None, :, None, None], drive, 0)
    ready = emulate.sparse.prepare(layer, (6, 1, 1), 6)
    fired = _with(ready, weights).fire(torch.from_numpy(events.astype(np.uint8)).reshape(6, 1, 1, -1), STEPS)
    return _wrong(neuron, drive, fired)


def _with(ready, weights):
    fields = {name: getattr(ready, name) for name in type(ready).__slots__}
    return type(ready)(**{**fields, "weights": weights.reshape(-1).astype(np.float32)})


def _wrong(neuron, drive, fired):
    expected, tally = reference.neurons(neuron, drive.transpose(1, 0, 2, 3, 4).astype(np.int64))
    pairs = {
        "spikes": (expected.astype(bool), fired.recorded()),
        "counts": (expected.sum(axis=1), fired.counts),
        "sums": (expected.sum(axis=0), fired.sums),
        "tally": (tally.T, fired.tally),
    }
    return [name for name, (ours, theirs) in pairs.items() if not np.array_equal(ours, theirs.numpy())]
