"""The emulator against float forwards and Lava

Networks are random masked VGGs (`tests/bench/vgg.py`), and a wide ResNet (`wide.py`), whose layers all spike in about 12 % of their steps. T float forwards are what the same network costs
as an ANN in evaluation mode, shown T times: convolution, batch norm, ReLU and average pool, channels last, in batches of 16. The time of an
emulator is without making it ready, which its own row shows. Lava's is that of one image of many back to back: T steps with the
pipeline full, start left out.

A layer of few weights runs in lanes: each nonzero weight adds one row of spikes, those of all steps of all images, to another. Which layers do
is measured when the emulator is made; the second plot shows where the two ways meet.
"""

from __future__ import annotations

import functools
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import networks
import numpy as np
import torch
from bench import harness, vgg, wide

from toolchain import emulate, export, nets, recipe, simulate
from toolchain.emulate import compiled, neurons, sparse, synapses
from toolchain.errors import BackendError
from toolchain.ir import Conv, Input, Network, Neuron, Readout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = 8
IMAGES = 32
ANN_BATCH = 16
SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
SIZES = {"a VGG-16 of 1/8 width": (16, 0.125), "VGG-11": (11, 1.0), "VGG-16": (16, 1.0)}
DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
LAYERS = ((64, 32), (128, 16), (256, 8), (512, 4))
"""Channels and width of the map of the layers whose crossover is measured"""


def rows() -> Iterator[harness.Row]:
    """Yield the comparison of each size, then what the emulator's time depends on."""
    for name, (depth, width) in SIZES.items():
        yield from compared(name, depth, width)
    yield from residual()
    yield from by_sparsity()
    if compiled.available():
        yield from by_crossover()
    yield from by_timesteps()
    yield from by_batch()
    yield from counting()


def compared(name: str, depth: int, width: float) -> Iterator[harness.Row]:
    """Yield the emulator, T float forwards and Lava on one network, dense and at 90 and 99 % sparsity."""
    made = {sparsity: vgg.build(depth, sparsity=sparsity, width=width, timesteps=T) for sparsity in (0.9, 0.99)}
    variants = {"dense": vgg.dense_twin(made[0.9]), "90 % sparse": made[0.9], "99 % sparse": made[0.99]}
    subjects = {kind: emulation(network) for kind, network in variants.items()}
    timings = harness.race({**subjects, "float": forwards(depth, width, T)})
    against = f"{T} float forwards"
    yield timings["float"].row(
        case=f"{name}, T {T}",
        subject=f"{against} (torch)",
        unit="ms/image",
        per=IMAGES,
        memory_bytes=harness.peak_bytes(forwards, depth, width, T),
    )
    for kind in variants:
        yield timings[kind].row(
            case=f"{name}, {kind}, T {T}",
            subject="emulator",
            unit="ms/image",
            per=IMAGES,
            memory_bytes=harness.peak_bytes(prepared, depth, width, kind),
            ratio=timings[kind].ratio(timings["float"]),
            against=against,
            target="at most 1.3, goal 1.2" if name == "VGG-16" else "",
        )
    yield harness.race({"": lambda: emulate.Emulator(made[0.9])}, rounds=3)[""].row(
        case=f"{name}, 90 % sparse", subject="emulator, made ready", unit="s"
    )
    yield from on_lava(name, made[0.9], timings["90 % sparse"].median / IMAGES)


def residual() -> Iterator[harness.Row]:
    """Yield the emulator on a wide ResNet, whose composed kernels are repeated and whose spikes are relayed, against T float forwards."""
    network = wide.build(timesteps=T)
    timings = harness.race({"emulator": emulation(network), "float": passes(wide.float_net(), T)}, rounds=3)
    against = f"{T} float forwards"
    yield timings["float"].row(case=f"WRN-28-4, T {T}", subject=f"{against} (torch)", unit="ms/image", per=IMAGES)
    yield timings["emulator"].row(
        case=f"WRN-28-4, 90 % sparse, T {T}",
        subject="emulator",
        unit="ms/image",
        per=IMAGES,
        ratio=timings["emulator"].ratio(timings["float"]),
        against=against,
        target="at most 2.2",
    )


def on_lava(name: str, network: Network, ours: float) -> Iterator[harness.Row]:
    """Yield Lava's time per image with stock and fast kernels, and how many times the emulator's that is."""
    found = {}
    for kernels in ("stock", "fast"):
        try:
            found[kernels] = T * lava_step(network, kernels)
        except BackendError as error:
            yield harness.Row(
                case=f"{name}, 90 % sparse, T {T}",
                subject=f"Lava, {kernels}",
                value=float("nan"),
                unit="s/image",
                note=str(error),
            )
            continue
        yield harness.Row(
            case=f"{name}, 90 % sparse, T {T}",
            subject=f"Lava, {kernels} kernels",
            value=found[kernels],
            unit="s/image",
            ratio=found[kernels] / ours,
            against="the emulator",
            target="at least 1,000" if (name, kernels) == ("VGG-16", "stock") else "",
        )


def lava_step(network: Network, kernels: str) -> float:
    """Return the seconds of one step of all processes: what more samples add to a run, T of each being one."""
    short = replace(network, timesteps=1)
    few, more = 1, 3 if kernels == "stock" else 31
    messages = short.input.encode(vgg.images(more))
    with tempfile.TemporaryDirectory() as folder, simulate.Session() as session:
        path = Path(folder) / "network.net"
        path.write_bytes(export.pack(networks.deployed(short)))

        def seconds(samples: int, kernels: str = kernels) -> float:
            start = time.perf_counter()
            session.run(path, messages[:samples], timesteps=1, kernels=kernels, record=False)
            return time.perf_counter() - start

        seconds(few, "fast")  # the session has imported Lava
        return (seconds(more) - seconds(few)) / (more - few)


def by_sparsity() -> Iterator[harness.Row]:
    """Yield the time of a VGG-16 by its sparsity, against its dense self."""
    made = {sparsity: vgg.build(16, sparsity=sparsity, timesteps=T) for sparsity in SPARSITIES}
    timings = harness.race({sparsity: emulation(network) for sparsity, network in made.items()}, rounds=3)
    targets = {0.9: "less than 1", 0.99: "at most 1/3"}
    for sparsity, timing in timings.items():
        yield timing.row(
            case=f"VGG-16, {sparsity:.0%} sparse, T {T}",
            subject="emulator",
            unit="ms/image",
            per=IMAGES,
            ratio=timing.ratio(timings[0.0]),
            against="its dense self",
            target=targets.get(sparsity, ""),
            facts={"sparsity": sparsity},
        )


def by_crossover() -> Iterator[harness.Row]:
    """Yield how single layers take lanes, against a convolution, by the share of their weights that is not zero."""
    rng = np.random.default_rng(0)
    for channels, side in LAYERS:
        for density in DENSITIES:
            weight = rng.integers(1, 60, (channels, channels, 3, 3)) * (
                rng.random((channels, channels, 3, 3)) < density
            )
            neuron = Neuron(theta=np.array(500), bias=np.zeros(channels, dtype=int))
            layer = Conv(name="layer", weight=weight, neuron=neuron, padding=(1, 1))
            network = single(layer, (channels, side, side))
            in_lanes, in_frames = layer_subjects(network)
            timings = harness.race({"lanes": in_lanes, "frames": in_frames}, rounds=3)
            yield timings["lanes"].row(
                case=f"one layer, {channels} channels, {side}x{side}, {density:.0%} of the weights",
                subject="in lanes",
                unit="ms",
                ratio=timings["lanes"].ratio(timings["frames"]),
                against="a convolution",
                facts={"channels": channels, "density": density},
            )


def single(layer: Conv, source) -> Network:
    """Return a network whose second layer is the given one."""
    channels, height, width = source
    first = Conv(
        name="first",
        weight=np.ones((channels, 1, 1, 1), dtype=int),
        neuron=Neuron(theta=np.array(1), bias=np.zeros(channels, dtype=int)),
    )
    readout = Readout(name="readout", weight=np.ones((1, channels * height * width), dtype=int), bias=np.array([0]))
    return Network(
        input=Input(shape=(1, height, width), offset=np.array([0])), layers=(first, layer), readout=readout, timesteps=T
    )


def layer_subjects(network: Network):
    """Return one batch through the second layer in lanes, and as a convolution."""
    layer, source, shape = list(network.wired())[1]
    with synapses.plain_sums():
        dense = synapses.prepare(layer, source, network, torch.device("cpu"))
    lanes = sparse.prepare(layer, source, dense.bound)
    spikes = (torch.rand(16 * T, *source) < 0.12).float().contiguous(memory_format=torch.channels_last)
    in_lanes = spikes.to(torch.uint8).permute(1, 2, 3, 0).contiguous()

    def frames() -> None:
        with synapses.plain_sums():
            drive = dense.drive(spikes).reshape(T, 16, *shape)
            neurons.fire(layer.neuron, drive, T, dense.bound, kernels="compiled")

    return lambda: lanes.fire(in_lanes, T), frames


def by_timesteps() -> Iterator[harness.Row]:
    """Yield the time of a VGG-16 by T."""
    made = {steps: vgg.build(16, sparsity=0.9, timesteps=steps) for steps in (1, 2, 4, 8, 16)}
    timings = harness.race({steps: emulation(network) for steps, network in made.items()}, rounds=3)
    for steps, timing in timings.items():
        yield timing.row(
            case=f"VGG-16, 90 % sparse, T {steps}", subject="emulator", unit="ms/image", per=IMAGES, facts={"T": steps}
        )


def by_batch() -> Iterator[harness.Row]:
    """Yield the time of a VGG-16 by the images of a batch."""
    network = vgg.build(16, sparsity=0.9, timesteps=T)
    timings = harness.race({batch: emulation(network, batch=batch) for batch in (1, 2, 4, 8, 16, 32)}, rounds=3)
    for batch, timing in timings.items():
        yield timing.row(
            case=f"VGG-16, 90 % sparse, T {T}, batches of {batch}",
            subject="emulator",
            unit="ms/image",
            per=IMAGES,
            facts={"batch": batch},
        )


def counting() -> Iterator[harness.Row]:
    """Yield what counting the activity of each layer and step costs."""
    network = vgg.build(16, sparsity=0.9, timesteps=T)
    for kind, variant in (("dense", vgg.dense_twin(network)), ("90 % sparse", network)):
        timings = harness.race({"with": emulation(variant), "without": emulation(variant, activity=False)})
        yield timings["with"].row(
            case=f"VGG-16, {kind}, T {T}",
            subject="emulator, activity counted",
            unit="ms/image",
            per=IMAGES,
            ratio=timings["with"].ratio(timings["without"]),
            against="not counted",
            target="less than 1.2",
        )


def emulation(network: Network, **settings):
    """Return a run of IMAGES images on an emulator that is ready."""
    emulator, shown = emulate.Emulator(network), vgg.images(IMAGES)
    return lambda: emulator.run(shown, **settings)


def prepared(depth: int, width: float, kind: str):
    """Return the run of a variant of `compared`, for another process to measure."""
    network = vgg.build(depth, sparsity=0.99 if kind.startswith("99") else 0.9, width=width, timesteps=T)
    return emulation(vgg.dense_twin(network) if kind == "dense" else network)


def forwards(depth: int, width: float, steps: int):
    """Return T forwards of IMAGES images through the float network of the same shape, in batches."""
    convs, hidden = vgg.layout(depth, width)
    return passes(nets.build(recipe.ModelSettings(layers=convs, hidden=hidden), (3, 32, 32), 10).eval(), steps)


def passes(net: nets.Net, steps: int):
    """Return so many forwards of IMAGES images through a float network without spikes, in batches."""
    net = net.to(memory_format=torch.channels_last)
    shown = torch.from_numpy(vgg.images(IMAGES)).float().div(255).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            for batch in shown.split(ANN_BATCH):
                for _ in range(steps):
                    net(batch)

    return run


def plots(found: Sequence[harness.Row]) -> Iterator[tuple[str, object]]:
    """Yield time by sparsity, crossover of single layers, and time by T and by batch."""
    draw = functools.partial(lines, found)
    yield "time by sparsity", draw("sparsity", "share of zero weights", "ms/image", None)
    yield (
        "lanes against a convolution",
        draw("density", "share of nonzero weights", "time of a convolution", "channels"),
    )
    yield "time by T", draw("T", "T", "ms/image", None)
    yield "time by batch", draw("batch", "images of a batch", "ms/image", None)


def lines(found: Sequence[harness.Row], x: str, x_name: str, y_name: str, group: str | None):
    """Return a figure of the rows that have the fact x; with a group, of their ratios, a line each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    points = [row for row in found if x in row.facts]
    for value in dict.fromkeys(row.facts[group] if group else 0.0 for row in points):
        line = [row for row in points if not group or row.facts[group] == value]
        heights = [row.ratio if group else row.value for row in line]
        axes.plot([row.facts[x] for row in line], heights, "o-", label=f"{value:g} {group}")
    if group:
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.legend()
    axes.set(xlabel=x_name, ylabel=y_name, ylim=(0, None))
    return figure
