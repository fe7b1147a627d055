"""Placing and checking: seconds and memory by the size of the network

Twelve 3x3 convolutions with 5 million weights, 90 % of them zero, on ever larger maps, placed on loihi2 and checked. The cost follows
neurons, and tiles times nonzero weights; the unrolled connections, which it does not follow, stand beside it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from bench import harness

from toolchain import check, counts, mapping, profile
from toolchain.ir import Conv, Input, Network, Neuron, Readout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from toolchain.placement import Mapping

CHANNELS = (64, 64, 128, 128, 192, 192, 256, 256, 256, 320, 320, 320)
POOLS = (1, 1, 2, 1, 2, 1, 1, 2, 1, 1, 2, 1)
SIDES = (32, 64, 128, 208)
DENSITY = 0.1
TARGET = "under 20 s and 2 GB at 10 million neurons"


def network(side: int) -> Network:
    """Twelve convolutions on maps of `side` x `side`, halved four times. Their kernels have 5 million weights."""
    rng = np.random.default_rng(0)
    layers, sources = [], 3
    for index, (channels, pool) in enumerate(zip(CHANNELS, POOLS, strict=True)):
        weight = (rng.random((channels, sources, 3, 3)) < DENSITY).astype(np.int8)
        neuron = Neuron(theta=np.array(100), bias=np.zeros(channels, dtype=np.int64))
        layers.append(Conv(name=f"conv{index + 1}", weight=weight, neuron=neuron, padding=(1, 1), pool=pool))
        sources = channels
    last = (rng.random((10, sources)) < DENSITY).astype(np.int8)
    readout = Readout(name="out", weight=last, bias=np.zeros(10, dtype=np.int64), pool=side // 16)
    image = Input(shape=(3, side, side), offset=np.full(3, 128))
    return Network(input=image, layers=tuple(layers), readout=readout, timesteps=8)


def rows() -> Iterator[harness.Row]:
    """A row a network and verb: seconds, and by how much memory grows at most."""
    for side in SIDES:
        net = network(side)
        n_neurons = sum(int(np.prod(shape)) for shape in net.shapes)
        unrolled = sum(counts.n_synapses(layer, source, layer.weight) for layer, source, _ in net.wired())
        placed = placing(side)()
        for subject, verb in (("place", placing), ("check", checking)):
            timing = harness.race({subject: verb(side)}, rounds=3)[subject]
            yield timing.row(
                case=f"{n_neurons / 1e6:.2g} million neurons, {unrolled / 1e6:,.0f} million unrolled connections, {placed.n_cores:,} cores",
                subject=subject,
                unit="s",
                memory_bytes=harness.peak_bytes(verb, side),
                target=TARGET if side == SIDES[-1] else "",
                facts={"neurons": n_neurons, "unrolled": unrolled},
            )


def placing(side: int) -> Callable[[], Mapping]:
    """Return what places the network."""
    return functools.partial(mapping.place, network(side), profile.load("loihi2"), max_chips=1000)


def checking(side: int) -> Callable[[], object]:
    """Return what checks the placed network. Raises AssertionError where a limit is exceeded."""
    net, chip = network(side), profile.load("loihi2")
    placed = mapping.place(net, chip, max_chips=1000)

    def verb() -> None:
        if violations := check.check(net, placed, chip).violations:
            raise AssertionError(f"{len(violations)} limits exceeded")

    return verb


def plots(found: Sequence[harness.Row]) -> Iterator[tuple[str, object]]:
    """Yield seconds by neurons."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    for subject in ("place", "check"):
        points = [row for row in found if row.subject == subject]
        axes.plot([row.facts["neurons"] / 1e6 for row in points], [row.value for row in points], "o-", label=subject)
    axes.legend()
    axes.set(xlabel="million neurons", ylabel="s", xlim=(0, None), ylim=(0, None))
    yield "time by neurons", figure
