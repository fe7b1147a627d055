"""The emulator against nengo-loihi's

Both run two dense layers of 512 neurons behind 512 spiking inputs, with the same 8 bit weights, one image at a time (nengo-loihi knows no
batches), the emulator also in batches. A step of nengo-loihi's is one of Loihi 1's, with its own rounding of weights and decays, so what
is compared is the work of a step, not the spikes. Its inputs fire on the host, as ours do in the first layer. It has an
environment of its own (`build/nengo`, Python 3.10): its pytest plugin would fail our tests, and its licence is for non-commercial use.
"""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from bench import harness

from toolchain import emulate
from toolchain.ir import Dense, Input, Network, Neuron, Readout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WIDTH, T = 512, 50
BATCH = 32
PYTHON = Path(__file__).parents[2] / "build" / "nengo" / "bin" / "python"
"""Made by `make bench`"""
THEIRS = "nengo-loihi's emulator"


def rows() -> Iterator[harness.Row]:
    """Yield the time of a step of one image; without nengo-loihi only the emulator's."""
    rng = np.random.default_rng(0)
    weights = [rng.integers(-128, 128, (WIDTH, WIDTH)) for _ in range(2)]
    subjects = {"emulator": emulation(weights, 1), f"emulator, {BATCH} images": emulation(weights, BATCH)}
    steps = {THEIRS: T, "emulator": T, f"emulator, {BATCH} images": BATCH * T}
    if PYTHON.is_file():
        with nengo_loihi(weights) as theirs:
            timings = harness.race({THEIRS: theirs, **subjects})
    else:
        timings = harness.race(subjects)
    for name, timing in timings.items():
        ratio = timing.ratio(timings[THEIRS]) * T / steps[name] if THEIRS in timings and name != THEIRS else None
        yield timing.row(
            case=f"dense layers, {WIDTH} to {WIDTH} to {WIDTH}",
            subject=name,
            unit="ms/step",
            per=steps[name],
            ratio=ratio,
            against=THEIRS if ratio else "",
            note="" if THEIRS in timings else "nengo-loihi is not installed",
        )


def emulation(weights, n_images: int):
    """Return a run of T steps of the emulator on images of WIDTH pixels."""
    quiet = np.zeros(WIDTH, dtype=int)
    thetas = 200, 4000, 4000
    layers = tuple(
        Dense(name=f"dense{k}", weight=weight, neuron=Neuron(theta=np.array(theta), bias=quiet))
        for k, (weight, theta) in enumerate(zip((np.eye(WIDTH, dtype=int), *weights), thetas, strict=True))
    )
    readout = Readout(name="readout", weight=np.ones((1, WIDTH), dtype=int), bias=np.array([0]))
    shape = 1, 1, WIDTH
    network = Network(input=Input(shape=shape, offset=np.array([0])), layers=layers, readout=readout, timesteps=T)
    emulator = emulate.Emulator(network)
    shown = np.random.default_rng(1).integers(0, 100, (n_images, *shape)).astype(np.uint8)
    return lambda: emulator.run(shown)


@contextmanager
def nengo_loihi(weights) -> Iterator[Callable[[], None]]:
    """Yield a run of T steps of nengo-loihi's emulator, in the Python that has it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        np.savez(path, *weights)
        command = [str(PYTHON), str(Path(__file__).with_name("nengo_child.py")), str(path), str(T)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

            def run() -> None:
                child.stdin.write("run\n")
                child.stdin.flush()
                if child.stdout.readline() != "done\n":
                    raise RuntimeError("nengo-loihi's process ended")

            yield run
            child.stdin.close()
