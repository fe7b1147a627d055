"""Each way of summing synapses gives Lava's sums, so that whichever the rule takes is right."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain.simulate import kernels


def drawn(seed):
    """A convolution and a signal for it: groups, strides, dilations, blocks; small sums, wide ones and ones that wrap."""
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 2, 4]))
    blocks = tuple(rng.choice([1, 1, 2, 3], 2).tolist())
    pairs = {
        name: rng.integers(low, high, 2) for name, low, high in (("kernel", 1, 5), ("stride", 1, 4), ("padding", 0, 3))
    }
    kernel, stride, padding = (tuple((pair * blocks).tolist()) for pair in pairs.values())
    dilation = tuple(rng.integers(1, 3) if block == 1 else 1 for block in blocks)
    shape = tuple(d * (k - 1) + int(extra) for d, k, extra in zip(dilation, kernel, rng.integers(1, 6, 2), strict=True))
    high = int(rng.choice([8, 128, 1 << 12, 1 << 15]))
    weight = rng.integers(-high, high, (2 * groups, *pairs["kernel"], 3), dtype=np.int32)
    weight[rng.random(weight.shape) < rng.choice([0.0, 0.5, 0.95])] = 0
    weight = weight.repeat(blocks[0], axis=1).repeat(blocks[1], axis=2)
    signal = rng.random((*shape, 3 * groups)) < rng.choice([0.02, 0.3, 1.0])
    if rng.random() < 0.5:
        signal = signal * rng.integers(-256 if rng.random() < 0.5 else 0, 256, signal.shape, dtype=np.int32)
    return weight, signal, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}, blocks


def convolution(weight, signal, *, stride, padding, dilation, groups):
    """A convolution (flipped kernel) in int64, one product after the other."""
    padded = np.pad(signal.astype(np.int64), ((padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    out, columns, rows, channels = weight.shape
    width, height = (
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(padded.shape, dilation, (columns, rows), stride, strict=False)
    )
    total = np.zeros((width, height, out), dtype=np.int64)
    for x, y, o, i, j in np.ndindex(width, height, out, columns, rows):
        source = padded[x * stride[0] + i * dilation[0], y * stride[1] + j * dilation[1]]
        first = o // (out // groups) * channels
        total[x, y, o] += weight[o, columns - 1 - i, rows - 1 - j].astype(np.int64) @ source[first : first + channels]
    # Lava casts to int32 before it wraps; these sums stay within.
    return (total + (1 << 23)) % (1 << 24) - (1 << 23)


@pytest.mark.parametrize("seed", range(60))
def test_every_way_is_lavas_convolution(seed):
    weight, signal, geometry, blocks = drawn(seed)
    convolve = kernels.Convolution(weight=weight, **geometry)
    assert all(found % block == 0 for found, block in zip(convolve.pool, blocks, strict=True))
    expected = convolution(weight, signal, **geometry)
    assert np.array_equal(convolve(signal), expected)
    windows = convolve.windows(signal)
    for way in convolve.products.ways(windows)[0]:
        sums = convolve.products.sums(way, windows).astype(np.int64).reshape(expected.shape)
        assert np.array_equal(kernels.wrapped(sums), expected), way


def test_the_draws_take_every_way_in_every_type():
    taken = set()
    for seed in range(60):
        weight, signal, geometry, _ = drawn(seed)
        convolve = kernels.Convolution(weight=weight, **geometry)
        taken |= set(convolve.products.ways(convolve.windows(signal))[0])
    integers = {(name, kind) for name in ("synapses", "spikes") for kind in (np.int16, np.int32)}
    assert taken == integers | {("matrix", np.float32), ("matrix", np.float64)}


def test_silence_sums_to_zero():
    weight, signal, geometry, _ = drawn(0)
    assert not kernels.Convolution(weight=weight, **geometry)(np.zeros_like(signal)).any()


@pytest.mark.parametrize(("extent", "blocks"), [(8, 2), (9, 2), (10, 4)])
def test_a_spread_kernel_is_summed_by_blocks_even_where_they_do_not_divide_the_map(extent, blocks):
    rng = np.random.default_rng(extent)
    weight = rng.integers(-9, 10, (3, 2, 2, 4), dtype=np.int32).repeat(blocks, axis=1).repeat(blocks, axis=2)
    signal = rng.random((extent, extent, 4)) < 0.4
    geometry = {"stride": (blocks,) * 2, "padding": (blocks,) * 2, "dilation": (1, 1), "groups": 1}
    convolve = kernels.Convolution(weight=weight, **geometry)
    assert convolve.pool == (blocks, blocks)
    assert convolve.windows(signal).kernel == (2, 2)
    assert np.array_equal(convolve(signal), convolution(weight, signal, **geometry))


def test_a_kernel_that_only_nearly_repeats_is_left_as_it_is():
    weight = np.ones((2, 4, 4, 3), dtype=np.int32)
    weight[1, 3, 3, 2] = 2
    geometry = {"stride": (4, 4), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    assert kernels.Convolution(weight=weight, **geometry).pool == (1, 1)


def test_the_rule_follows_the_spikes_and_the_mask():
    rng = np.random.default_rng(0)

    def taken(density, activity):
        weight = rng.integers(-20, 21, (128, 3, 3, 128), dtype=np.int32)
        weight[rng.random(weight.shape) >= density] = 0
        geometry = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
        convolve = kernels.Convolution(weight=weight, **geometry)
        ways, _ = convolve.products.ways(convolve.windows(rng.random((8, 8, 128)) < activity))
        return min(ways, key=ways.get)[0]

    assert taken(density=1.0, activity=1.0) == "matrix"
    assert taken(density=0.05, activity=1.0) == "synapses"
    assert taken(density=1.0, activity=0.05) == "spikes"
