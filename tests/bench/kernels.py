"""The three ways of summing a convolution in a Lava process, and which of them the rule takes: its constants are fitted to this table.

One thread, as in a Lava process. The ratio is to the fastest way: the rule loses nothing where `taken` stands beside 1.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from bench.harness import Row, race
from threadpoolctl import threadpool_limits

from toolchain.simulate import kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES = ((32, 64, 64, 1), (16, 64, 128, 2), (8, 256, 256, 1), (4, 512, 512, 1), (2, 512, 512, 1))
"""Extent of the output, channels in and out, pool before"""
SPARSITIES = 0.0, 0.9, 0.99
ACTIVITY = 0.15


def rows() -> Iterator[Row]:
    """Yield the time of each way for layers of a VGG-16."""
    with threadpool_limits(1):
        for shape in SHAPES:
            for sparsity in SPARSITIES:
                yield from raced(shape, sparsity)


def raced(shape, sparsity) -> Iterator[Row]:
    """Yield the rows of one layer."""
    extent, source, out, pool = shape
    rng = np.random.default_rng(0)
    weight = rng.integers(-60, 61, (out, 3, 3, source), dtype=np.int32)
    weight[rng.random(weight.shape) < sparsity] = 0
    weight = weight.repeat(pool, axis=1).repeat(pool, axis=2)
    geometry = {"stride": (pool, pool), "padding": (pool, pool), "dilation": (1, 1), "groups": 1}
    convolve = kernels.Convolution(weight=weight, **geometry)
    signal = rng.random((extent * pool, extent * pool, source)) < ACTIVITY
    windows = convolve.windows(signal)
    ways, _ = convolve.products.ways(windows)
    taken = min(ways, key=ways.get)
    subjects = {way: (lambda way=way: convolve.products.sums(way, windows)) for way in ways}
    repeats = {way: max(1, int(5e-3 / once(subject))) for way, subject in subjects.items()}
    timings = race({way: repeated(subjects[way], repeats[way]) for way in ways})
    best = min(ways, key=lambda way: timings[way].median / repeats[way])
    pooled = ", after a pool" if pool > 1 else ""
    case = f"{source} to {out} channels at {extent}x{extent}{pooled}, {sparsity:.0%} sparse, {ACTIVITY:.0%} spikes"
    for way in ways:
        share = (timings[way].median / repeats[way]) / (timings[best].median / repeats[best])
        note = f"taken; expected {ways[way] / 1e6:.2f} ms" if way == taken else f"expected {ways[way] / 1e6:.2f} ms"
        name = f"{way[0]}, {np.dtype(way[1]).name}"
        yield timings[way].row(
            case=case, subject=name, unit="ms/frame", per=repeats[way], ratio=share, against="the fastest", note=note
        )


def once(subject) -> float:
    """How long a second call takes."""
    subject()
    began = time.perf_counter()
    subject()
    return max(time.perf_counter() - began, 1e-6)


def repeated(subject, times):
    def run():
        for _ in range(times):
            subject()

    return run
