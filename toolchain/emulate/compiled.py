"""Calls the compiled loops of `kernels`, sharing a layer out among threads. numba, which compiles them, is optional."""

from __future__ import annotations

import functools
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from toolchain.emulate.fired import Fired

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from toolchain.ir import Neuron, Shape

    Floats = npt.NDArray[np.float32]
    Tally = npt.NDArray[np.int64]


@functools.cache
def available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


@dataclass(frozen=True, slots=True)
class Lanes:
    """What a layer's neurons did, in C, H, W order. Shapes: spikes uint8 (P, T * samples), counts (P, samples), sums (P, T)."""

    spikes: npt.NDArray[np.uint8]
    counts: Floats
    sums: Floats


def fire(neuron: Neuron, drive: Tensor, steps: int, *, activity: bool) -> Fired:
    """Return what neurons do on a drive float32 (T or 1, samples, C, H, W) of the CPU."""
    from toolchain.emulate import kernels

    held, samples, channels, height, width = drive.shape
    size = height * width * channels
    driven = drive.permute(0, 1, 3, 4, 2).contiguous().reshape(held, samples, size).numpy()
    level, bias = _patterns(neuron, channels, size, kernels.BLOCK)
    spikes = np.empty((steps, samples, size), dtype=np.float32)
    counts = np.zeros((samples, size), dtype=np.float32)
    sums = np.zeros((steps if activity else 0, size), dtype=np.float32)

    def part(first: int, last: int, tally: Tally) -> None:
        kernels.fire(driven, level, bias, spikes, counts, sums, tally, activity, first, last)

    tally = _share(part, size, steps, unit=kernels.BLOCK)

    def shaped(values: Floats) -> Tensor:
        return torch.from_numpy(values).reshape(*values.shape[:-1], height, width, channels).movedim(-1, -3)

    return Fired(shaped(spikes), shaped(counts), shaped(sums), tally)


def fire_held(neuron: Neuron, drive: Tensor, steps: int) -> Fired:
    """Return in lanes what neurons do whose drive, float32 (1, samples, C, H, W), is the same at every step."""
    from toolchain.emulate import kernels

    samples, *shape = drive.shape[1:]
    held = drive[0].permute(1, 2, 3, 0).reshape(-1, samples).contiguous().numpy()
    channels, height, width = shape
    level, bias = (
        per_neuron(values, (channels, height, width)) for values in (neuron.per_channel(channels) - 1, neuron.bias)
    )

    def part(first: int, last: int, out: Lanes, tally: Tally) -> None:
        kernels.fire_lanes(held, level, bias, steps, out.spikes, out.counts, out.sums, tally, first, last)

    return fire_lanes(part, (channels, height, width), steps, samples)


def fire_lanes(part: Callable[[int, int, Lanes, Tally], None], shape: Shape, steps: int, samples: int) -> Fired:
    """Return in lanes what `part`, which does a range of neurons, did to all of them."""
    size = int(np.prod(shape))
    out = Lanes(
        spikes=np.empty((size, steps * samples), dtype=np.uint8),
        counts=np.zeros((size, samples), dtype=np.float32),
        sums=np.zeros((size, steps), dtype=np.float32),
    )
    tally = _share(lambda first, last, tally: part(first, last, out, tally), size, steps)
    spikes, counts, sums = (
        torch.from_numpy(values).reshape(*shape, -1) for values in (out.spikes, out.counts, out.sums)
    )
    return Fired(spikes, counts.movedim(-1, 0), sums.movedim(-1, 0), tally)


def per_neuron(values: npt.NDArray[np.int32], shape: Shape) -> Floats:
    """Return theta or bias of each neuron of a layer, in C, H, W order."""
    spread = values[:, None, None] if values.ndim == 1 else values
    return np.broadcast_to(spread, shape).reshape(-1).astype(np.float32)


def _patterns(neuron: Neuron, channels: int, size: int, block: int) -> tuple[Floats, Floats]:
    """Return theta - 1 and bias, channels innermost: (K,) each, repeated over the neurons; K is all of them for a bias map."""
    level, bias = neuron.per_channel(channels) - 1, neuron.bias
    if bias.ndim == 3:
        return np.resize(level, size).astype(np.float32), np.moveaxis(bias, 0, -1).reshape(-1).astype(np.float32)
    length = min(size, channels * max(1, block // channels))
    return np.resize(level, length).astype(np.float32), np.resize(bias, length).astype(np.float32)


def _share(part: Callable[[int, int, Tally], None], total: int, steps: int, *, unit: int = 1) -> Tensor:
    """Every thread has done its part of range(total), cut at multiples of `unit`; returns the tally (3, T) of all of them."""
    units = -(-total // unit)
    threads = max(1, min(torch.get_num_threads(), units))
    cuts = [min(total, unit * (units * k // threads)) for k in range(threads + 1)]
    tallies = np.zeros((threads, 2, steps), dtype=np.int64)
    waiting = [_pool().submit(part, cuts[k], cuts[k + 1], tallies[k]) for k in range(1, threads)]
    part(cuts[0], cuts[1], tallies[0])
    for one in waiting:
        one.result()
    active, saturations = tallies.sum(axis=0)
    return torch.from_numpy(np.stack([active, np.zeros_like(active), saturations]))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="emulate")
