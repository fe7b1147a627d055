"""Lava with stock kernels and with fast ones, step by step in turns, each in a process a layer and neuron group.

A step is a run of one step once the pipeline is full, so it holds what starting and pausing Lava's runtime costs; the stock models
take no account of zeros, so their time depends on the shape alone. Recording keeps every spike of every layer as bits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from bench import vgg
from bench.harness import Row, Timing
from networks import deployed

from toolchain import deployment, emulate, export, resources, simulate
from toolchain.simulate import supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ROUNDS = 20
SAMPLES = 40
VERIFIED = 10
SPEED_UP = {"VGG-16, 90 % sparse": "at least 120 (goal 150)"}


def rows() -> Iterator[Row]:
    """Yield the step times, start-ups and shared memory of three networks, and the time that proving a VGG-16 takes."""
    for case, network, images in cases():
        with tempfile.TemporaryDirectory(prefix="rsnn-bench-") as name:
            folder = Path(name)
            (folder / "network.net").write_bytes(export.pack(deployed(network)))
            messages = network.input.encode(images)
            np.save(folder / "messages.npy", messages.repeat(-(-SAMPLES // len(messages)), axis=0))
            found = measured(folder, network.timesteps)
            yield from told(case, found)
            if "VGG-16" in case:
                yield proven(case, network, images, folder / "network.net")


def cases():
    with tempfile.TemporaryDirectory() as name:
        settings = deployment.Settings(profile="loihi2", samples=VERIFIED)
        deployment.export(resources.model_path("digits-cnn"), settings, Path(name) / "out", log=lambda _line: None)
        folder = deployment.open_folder(Path(name) / "out")
        yield "digits-cnn", folder.deployment.network, folder.images
    for depth in (11, 16):
        yield f"VGG-{depth}, 90 % sparse", vgg.build(depth), vgg.images(VERIFIED)


def measured(folder: Path, timesteps: int):
    """What the program of single steps found; nothing of it is left."""
    files = str(folder / "network.net"), str(folder / "messages.npy")
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    with subprocess.Popen(
        [sys.executable, "-m", "bench.steps_on_lava", *files, str(timesteps), str(folder), str(ROUNDS)],
        cwd=ROOT,
        env={**os.environ, **single, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        try:
            line = next((line for line in process.stdout if line.startswith("{")), None)
            process.wait()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            supervisor.remove_shared_memory(folder.name)
    if line is None:
        raise RuntimeError(f"the program of single steps ended with {process.returncode}")
    return json.loads(line)


def told(case: str, found) -> Iterator[Row]:
    """Yield the rows of what was found."""
    step = {subject: Timing(seconds=tuple(seconds)) for subject, seconds in found["step_s"].items()}
    fast = step["fast"]
    yield fast.row(case=case, subject="Lava, fast kernels", unit="ms/step", note=f"median of {ROUNDS} steps")
    yield step["stock"].row(
        case=case,
        subject="Lava, stock kernels",
        unit="ms/step",
        ratio=step["stock"].ratio(fast),
        against="Lava, fast kernels",
        target=SPEED_UP.get(case, ""),
    )
    yield step["fast, recording"].row(
        case=case,
        subject="Lava, fast kernels, every spike recorded",
        unit="ms/step",
        ratio=step["fast, recording"].ratio(fast),
        against="Lava, fast kernels",
        target="below 2" if "VGG-16" in case else "",
    )
    for subject in ("stock", "fast"):
        yield Row(
            case=case,
            subject=f"Lava, {subject} kernels: network read, processes started, first step",
            unit="s",
            value=found["start_s"][subject],
            memory_bytes=found["shared_bytes"][subject],
            target="at most 30 s; shared memory below 64 MB" if "VGG-16" in case else "",
            note="memory: in /dev/shm",
        )


def proven(case: str, network, images, path: Path) -> Row:
    """How long it takes to prove all layers of some images, from Lava's import to the last comparison."""
    began = time.perf_counter()
    names = [layer.name for layer in network.layers]
    emulator, done, different = emulate.Emulator(network), 0, 0
    with simulate.Session() as session:
        for part in session.stream(
            path, network.input.encode(images), timesteps=network.timesteps, kernels="fast", layers=names
        ):
            own = emulator.run(images[done : done + part.n_samples], record=True)
            different += sum(np.count_nonzero(a != b) for a, b in zip(own.spikes, part.spikes, strict=True))
            done += part.n_samples
    if different or done < len(images):
        raise RuntimeError(f"{done} of {len(images)} images, {different} spikes differ")
    return Row(
        case=case,
        subject=f"Lava, fast kernels: {done} images proven in every layer and step, Lava's import included",
        unit="s",
        value=time.perf_counter() - began,
        target="at most 300 s",
    )
