"""Loops that numba compiles: whole layers of neurons in one pass, and sparse convolutions that touch no zero weight.

They release the GIL and each works on its own range of the output, so that threads share a layer out. Sums are of integers that their
type holds, so that neither the order of additions nor a fused multiply-add changes a bit. What is read and what is written never overlap.

Lanes: spikes uint8 (C, H, W, T * samples), step-major, so that one weight meets all frames of a neuron side by side.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from toolchain.emulate.reference import LIMIT

Array = np.ndarray[Any, Any]

BLOCK = 1024
"""Neurons handled together: their states stay in a processor's first cache"""
_END = np.float32(-LIMIT // 64)
_FLOOR = np.float32(-(LIMIT - 1) / 64)
_ZERO = np.float32(0)
_ONE = np.float32(1)
_WORD = np.uint64

_SUMS = {"reassoc", "contract", "nsz"}


def _jit(loop: Any) -> Any:
    try:
        return numba.njit(loop, nogil=True, cache=True, fastmath=_SUMS)
    except RuntimeError:  # there is no folder to keep it in: it is compiled anew in each process
        return numba.njit(loop, nogil=True, fastmath=_SUMS)


@_jit
def fire(
    drive: Array,
    level: Array,
    bias: Array,
    spikes: Array,
    counts: Array,
    sums: Array,
    tally: Array,
    activity: bool,
    first: int,
    last: int,
) -> None:
    """Neurons first to last of each image have fired.

    Shapes: drive (T or 1, samples, P); level (theta - 1) and bias (K,), repeated over the P neurons; spikes (T, samples, P) float32; counts
    (samples, P) float32; sums (T, P) float32 and tally (2, T), active and saturations, are added to.
    """
    held, samples, _ = drive.shape
    steps, pattern = len(spikes), len(level)
    v = np.empty(BLOCK, dtype=np.float32)
    start = first
    while start < last:
        at = start % pattern
        n = min(BLOCK, last - start, pattern - at)
        levels, offsets = level[at : at + n], bias[at : at + n]
        for sample in range(samples):
            for j in range(n):
                v[j] = _ZERO
            total = counts[sample, start : start + n]
            for t in range(steps):
                now = drive[t if held > 1 else 0, sample, start : start + n]
                out = spikes[t, sample, start : start + n]
                active = _ZERO
                saturated = _ZERO
                for j in range(n):
                    a = now[j] + offsets[j]
                    active += _ZERO if a == _ZERO else _ONE
                    u = v[j] + a
                    saturated += _ONE if u <= _END else _ZERO
                    v[j] = max(u, _FLOOR)
                for j in range(n):
                    o = _ONE if v[j] > levels[j] else _ZERO
                    out[j] = o
                    v[j] = v[j] - v[j] * o
                for j in range(n):
                    total[j] += out[j]
                if activity:
                    over = sums[t, start : start + n]
                    for j in range(n):
                        over[j] += out[j]
                    tally[0, t] += np.int64(active)
                    tally[1, t] += np.int64(saturated)
        start += n


@_jit
def fire_lanes(
    drive: Array,
    level: Array,
    bias: Array,
    steps: int,
    spikes: Array,
    counts: Array,
    sums: Array,
    tally: Array,
    first: int,
    last: int,
) -> None:
    """Neurons first to last, whose drive is the same at every step, have fired into lanes.

    Shapes: drive (P, samples); level, bias (P,); spikes uint8 (P, T * samples); counts (P, samples); sums (P, T); tally as in `fire`.
    """
    v = np.empty(drive.shape[1], dtype=np.float32)
    for row in range(first, last):
        _fire_row(drive[row], 0, level[row], bias[row], v, steps, spikes[row], counts[row], sums[row], tally)


@_jit
def convolve_and_fire(
    source: Array,
    starts: Array,
    offsets: Array,
    weights: Array,
    origins: Array,
    level: Array,
    bias: Array,
    steps: int,
    spikes: Array,
    counts: Array,
    sums: Array,
    tally: Array,
    first: int,
    last: int,
) -> None:
    """Neurons first to last of a sparse layer, counted pixel by pixel and channel by channel within one, have fired into lanes.

    Equation: a[channel, pixel] = sum over k from starts[channel] to starts[channel + 1] of weights[k] * source[origins[pixel] + offsets[k] + lane].
    Shapes: source (n,) uint8, padded lanes; level, bias (channels * pixels,) and the outputs, as in `fire_lanes`, channel by channel.
    The type of weights is that of the sums.
    """
    channels, pixels = len(starts) - 1, len(origins)
    lanes = _WORD(spikes.shape[1])
    total = np.empty(spikes.shape[1], dtype=weights.dtype)
    v = np.empty(counts.shape[1], dtype=np.float32)
    samples = counts.shape[1]
    for index in range(first, last):
        pixel, channel = index // channels, index % channels
        row = channel * pixels + pixel
        origin = origins[pixel]
        for lane in range(lanes):
            total[lane] = 0
        k, end = starts[channel], starts[channel + 1]
        while k + 4 <= end:
            w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
            a, b = origin + offsets[k], origin + offsets[k + 1]
            c, d = origin + offsets[k + 2], origin + offsets[k + 3]
            for lane in range(lanes):
                total[lane] += (
                    w0 * source[a + lane] + w1 * source[b + lane] + w2 * source[c + lane] + w3 * source[d + lane]
                )
            k += 4
        while k < end:
            w0, a = weights[k], origin + offsets[k]
            for lane in range(lanes):
                total[lane] += w0 * source[a + lane]
            k += 1
        _fire_row(total, samples, level[row], bias[row], v, steps, spikes[row], counts[row], sums[row], tally)


@_jit
def _fire_row(
    drive: Array,
    stride: int,
    level: float,
    bias: float,
    v: Array,
    steps: int,
    spikes: Array,
    counts: Array,
    sums: Array,
    tally: Array,
) -> None:
    """One neuron has fired in all samples and steps; drive[t * stride + sample] drives it."""
    samples = len(v)
    for j in range(samples):
        v[j] = _ZERO
    for t in range(steps):
        now = drive[t * stride : t * stride + samples]
        out = spikes[t * samples : (t + 1) * samples]
        active = _ZERO
        saturated = _ZERO
        for j in range(samples):
            a = np.float32(now[j]) + bias
            active += _ZERO if a == _ZERO else _ONE
            u = v[j] + a
            saturated += _ONE if u <= _END else _ZERO
            v[j] = max(u, _FLOOR)
        fired = _ZERO
        for j in range(samples):
            o = _ONE if v[j] > level else _ZERO
            fired += o
            out[j] = np.uint8(o)
            v[j] = v[j] - v[j] * o
        for j in range(samples):
            counts[j] += out[j]
        sums[t] = fired
        tally[0, t] += np.int64(active)
        tally[1, t] += np.int64(saturated)
