"""Small networks whose cores, words, synapses and energies a hand can compute."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain import profile
from toolchain.ir import Conv, Dense, Input, Network, Neuron, Readout
from toolchain.trace import Trace

if TYPE_CHECKING:
    from toolchain.ir import Layer

LOIHI1, LOIHI2 = profile.load("loihi1"), profile.load("loihi2")


def neuron(channels, theta=100):
    return Neuron(theta=np.asarray(theta), bias=np.zeros(channels, dtype=np.int64))


def conv(name, weight, *, pool=1, theta=100, **options):
    weight = np.asarray(weight)
    return Conv(name=name, weight=weight, neuron=neuron(len(weight), theta), pool=pool, **options)


def readout(sources, *, pool=1, classes=10):
    return Readout(name="out", weight=np.ones((classes, sources), dtype=int), bias=np.zeros(classes, int), pool=pool)


def network(shape, *layers: Layer, last, timesteps=8):
    offset = np.full(shape[0], 128)
    return Network(input=Input(shape=shape, offset=offset), layers=layers, readout=last, timesteps=timesteps)


def conv_case(*, pool=1, weight=None):
    """Two source channels of 4x4 cells (one layer makes them) -> conv 3x3, padding 1, 4 channels of 4x4 -> 10 classes."""
    side = 4 * pool
    first = conv("first", np.ones((2, 1, 1, 1), dtype=int))
    weight = np.ones((4, 2, 3, 3), dtype=int) if weight is None else weight
    second = conv("second", weight, pool=pool, padding=(1, 1))
    return network((1, side, side), first, second, last=readout(4 * 16))


def dense_case(weight):
    """80 pixels, one neuron each -> a dense layer -> 10 classes."""
    first = conv("first", np.ones((1, 1, 1, 1), dtype=int))
    dense = Dense(name="dense", weight=np.asarray(weight), neuron=neuron(len(weight)))
    return network((1, 8, 10), first, dense, last=readout(len(weight)))


def half_zeros():
    """80 x 80 weights of which every source keeps 40: a chessboard."""
    return (np.add.outer(np.arange(80), np.arange(80)) % 2).astype(int)


def vgg11(density=1.0):
    """VGG-11 with five pools and one dense layer 512 -> 10: maps 32, 16, 8, 8, 4, 4, 2, 2, and uniform random masks."""
    rng = np.random.default_rng(0)

    def weights(*shape: int):
        return (rng.random(shape) < density).astype(np.int8)

    layers, sources = [], 3
    for index, (channels, pool) in enumerate(
        [(64, 1), (128, 2), (256, 2), (256, 1), (512, 2), (512, 1), (512, 2), (512, 1)]
    ):
        layers.append(conv(f"conv{index + 1}", weights(channels, sources, 3, 3), pool=pool, padding=(1, 1)))
        sources = channels
    last = Readout(name="fc", weight=weights(10, 512), bias=np.zeros(10, int), pool=2)
    return network((3, 32, 32), *layers, last=last)


def limited(chip, **limits):
    """The profile with some limits of a core changed; `cores` is the chip's."""
    cores = limits.pop("cores", chip.chip.cores.value)
    names = {entry.name for entry in fields(chip.core)}
    assert set(limits) <= names
    core = replace(
        chip.core,
        **{
            name: replace(getattr(chip.core, name) or LOIHI2.core.layers, value=value) for name, value in limits.items()
        },
    )
    return replace(chip, core=core, chip=replace(chip.chip, cores=replace(chip.chip.cores, value=cores)))


def trace(net, counts, *, active=None, samples=1):
    """A trace in which each neuron of hidden layer k spikes counts[k] times an image."""
    shapes = net.shapes[:-1]
    return Trace(
        backend="by hand",
        layers=tuple(layer.name for layer in net.layers),
        logits=np.zeros((samples, net.shapes[-1][0]), dtype=np.int64),
        counts=tuple(
            np.broadcast_to(np.asarray(n, dtype=np.int32), (samples, *shape)).copy()
            for n, shape in zip(counts, shapes, strict=True)
        ),
        active=None if active is None else np.asarray(active, dtype=np.int64),
    )


def unrolled(layer, source, nonzero=None):
    """Every connection of a layer one by one. Shape: (neurons, neurons of the source), counts of synapses."""
    nonzero = layer.weight != 0 if nonzero is None else nonzero
    channels, height, width = source
    q = layer.pool
    cells = np.arange(channels * height * width).reshape(source)
    rows, cols = height // q, width // q
    if not isinstance(layer, Conv):
        matrix = np.zeros((len(layer.weight), cells.size), dtype=int)
        for o, i in np.argwhere(nonzero):
            c, y, x = np.unravel_index(i, (channels, rows, cols))
            matrix[o, cells[c, y * q : y * q + q, x * q : x * q + q].ravel()] += 1
        return matrix
    out = layer.output_shape(source)
    neurons = np.arange(np.prod(out)).reshape(out)
    matrix = np.zeros((neurons.size, cells.size), dtype=int)
    inside, outside = layer.weight.shape[1], layer.weight.shape[0] // layer.groups
    for o, i, ky, kx in np.argwhere(nonzero):
        c = o // outside * inside + i
        for r in range(out[1]):
            for s in range(out[2]):
                y = r * layer.stride[0] - layer.padding[0] + layer.dilation[0] * ky
                x = s * layer.stride[1] - layer.padding[1] + layer.dilation[1] * kx
                if 0 <= y < rows and 0 <= x < cols:
                    matrix[neurons[o, r, s], cells[c, y * q : y * q + q, x * q : x * q + q].ravel()] += 1
    return matrix


def coefficient(held, name, times):
    """The table of coefficients with one of them multiplied, or, with None, unknown."""
    known = getattr(held, name)
    if times is None:
        return replace(held, **{name: replace(known, value=None, status="unknown")})
    several = isinstance(known.value, tuple)
    value = tuple(times * each for each in known.value) if several else times * known.value
    return replace(held, **{name: replace(known, value=value)})
