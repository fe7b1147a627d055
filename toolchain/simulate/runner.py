"""Runs one netx file on Lava's CPU simulation, in the process that a run has for itself."""

from __future__ import annotations

import functools
import multiprocessing.process
import os
import signal
import sys
import time
import traceback
from multiprocessing import shared_memory
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from lava.lib.dl.netx import hdf5
from lava.magma.compiler import compiler  # noqa: F401  Lava imports it, and networkx, late: better once than in each run
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.magma.runtime.message_infrastructure.multiprocessing import MultiProcessing
from lava.proc.dense.process import Dense

from toolchain.simulate.models import FAST
from toolchain.simulate.processes import Recorder, Source
from toolchain.simulate.record import Layer, describe
from toolchain.simulate.supervisor import encode

if TYPE_CHECKING:
    from collections.abc import Callable

    Report = Callable[..., None]

_REASON_MAX = 600  # a report must fit a pipe's atomic write, or two processes' reports could mix
_REPORTED = 70  # exit code of a process that has said why
_CHUNK_S = 0.5
_POLL_S = 0.01
CHANNEL_SLOTS = 2  # of Lava's 64: exact, as fast, and a thirtieth of the shared memory
_COMPILE = {"pypy_channel_size": CHANNEL_SLOTS}


class RefusedError(Exception):
    """The request cannot be run; nothing of Lava was started."""


def main(request: dict[str, Any], report_to: int) -> None:
    """Run the request, report how it went, and end this process."""

    def report(event: str, **facts: Any) -> None:
        if "reason" in facts:
            facts["reason"] = facts["reason"][:_REASON_MAX]
        os.write(report_to, encode({"event": event, **facts}))

    try:
        run(request, report)
    except RefusedError as refusal:
        report("refused", reason=str(refusal))
    except BaseException as error:  # noqa: BLE001  whatever Lava raises, somebody waits for the news
        traceback.print_exc()
        report("failed", reason=f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: Lava's own clean-up at exit can hang.
    os._exit(0)


def run(request: dict[str, Any], report: Report) -> None:
    """Write the files of all layers and samples into the request's directory, as `record` has them."""
    name_shared_memory(request["name"])
    samples, timesteps, directory = request["samples"], request["timesteps"], Path(request["directory"])
    messages = np.load(request["messages"], mmap_mode="r")
    names, driven = _layer_names(Path(request["net"]), messages.shape[1:])
    lag = int(not driven)  # steps that a frame takes to the first layer: a source is a process of its own
    try:
        network = hdf5.Network(request["net"], input_message_bits=9, reset_interval=timesteps, reset_offset=lag)
    except Exception as error:
        traceback.print_exc()
        raise RefusedError(f"netx cannot build {request['net']} ({type(error).__name__}: {error})") from error
    bias = _bias(network)
    network.net_config.f.close()  # netx never does, and an open file cannot be rewritten
    process_names = {}
    if not driven:
        source = Source(shape=network.inp.shape, path=request["messages"], timesteps=timesteps)
        source.out.connect(network.inp)
        process_names[source.id] = "source"
    fast = request["kernels"] == "fast"
    layers: list[Layer] = []
    for index, (name, block) in enumerate(zip(names, network.layers, strict=True)):
        readout = index == len(names) - 1
        port = block.synapse.a_out if readout else block.neuron.s_out
        layer = Layer(
            name=name,
            index=index,
            shape=tuple(int(extent) for extent in port.shape),
            kind="sums" if readout else "spikes" if request["record"] else "counts",
            # Frame j leaves the source at step j + 1 and layer l (from 1) handles it at j + 1 + l; biases are there at once.
            first=index + 1 + lag,
            timesteps=timesteps,
            samples=samples,
            directory=str(directory),
        )
        layers.append(layer)
        if fast:
            block.neuron.proc_params["record"] = layer
        else:
            recorder = Recorder(layer)
            port.connect(recorder.inp)
            process_names[recorder.id] = f"{name} recorder"
        process_names[block.neuron.id] = f"{name} neurons"
        if index or not driven:
            process_names[block.synapse.id] = f"{name} {'conv' if len(port.shape) == 3 else 'dense'}"
    if len(layers[-1].shape) != 1:
        raise RefusedError(f"the last layer of {request['net']} is no dense layer, so it has no logits")
    describe(directory, layers, bias)
    report("started", limit_s=_allowed_s(_expected_s(network, fast=fast), timesteps + len(layers)))
    _watch(process_names, report)
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=FAST if fast else None)
    _stream(
        functools.partial(_run_steps, network, config),
        functools.partial(_drive, network.layers[0], messages) if driven else None,
        layers,
        report,
        depth=len(layers) - 1 + lag,
        ahead_bytes=request["ahead_bytes"],
    )
    network.stop()
    report("done")


def name_shared_memory(name: str) -> None:
    """Make everything this process puts into /dev/shm start with `name`."""
    prefix = f"/{name}-"
    vars(shared_memory).update(_SHM_NAME_PREFIX=prefix, _SHM_SAFE_NAME_LENGTH=len(prefix) + 16)
    vars(multiprocessing.process.current_process())["_config"]["semprefix"] = f"/{name}"


def _layer_names(path: Path, shape: tuple[int, ...]) -> tuple[list[str], bool]:
    """Return the groups of the layers with neurons, and whether biases drive the first of them, an input block.

    Raises RefusedError for what netx would skip or misread.
    """
    try:
        with h5py.File(path, "r") as file:
            kinds = [file[f"layer/{index}/type"][()] for index in range(len(file["layer"]))]
            expected = tuple(file["layer/0/shape"][()].tolist())
            driven = "neuron" in file["layer/0"]
    except (OSError, KeyError, AttributeError) as error:
        raise RefusedError(f"{path} is not a netx file ({error})") from error
    kinds = [bytes(np.asarray(kind).reshape(-1)[0]).decode() for kind in kinds]
    unknown = sorted({kind for kind in kinds[1:] if kind not in {"conv", "flatten", "dense"}})
    if unknown:
        raise RefusedError(f"{path} has layers of type {', '.join(unknown)}, which netx skips or cannot run")
    if kinds[0] != "input":
        raise RefusedError(f"layer/0 of {path} is no input")
    if (*expected, 1, 1)[:3] != shape:
        raise RefusedError(f"{path} takes {'biases' if driven else 'messages'} of shape {expected}, got {shape}")
    with_neurons = {"conv", "dense", "input"} if driven else {"conv", "dense"}
    return [f"layer/{index}" for index, kind in enumerate(kinds) if kind in with_neurons], driven


def _bias(network: Any) -> list[int]:
    """Return the readout's bias; empty where the file has none."""
    last = network.net_config["layer"][len(network.net_config["layer"]) - 1]
    return [int(value) for value in last["bias"].reshape(-1)] if "bias" in last.keys() else []  # noqa: SIM118  no dict


def _expected_s(network: Any, *, fast: bool) -> float:
    """Return the time that a step is expected to take on a slow machine.

    Source: measured on one core: stock Conv takes 30 us a pair of channels and 15 ns a product, matrix products 2 ns;
    a Lava process needs 1 ms a step.
    """
    seconds = 0.0
    for block in network.layers:
        seconds += 3e-3
        if not hasattr(block, "synapse"):  # an input block: setting its biases takes 30 us each, at most at every step
            seconds += 30e-6 * int(np.prod(block.neuron.s_out.shape))
            continue
        synapse, out = block.synapse, int(np.prod(block.synapse.a_out.shape))
        if isinstance(synapse, Dense):
            seconds += 5e-9 * out * int(np.prod(synapse.s_in.shape))
        else:
            kernels, *kernel, channels = synapse.weight.shape
            products = out * int(np.prod(kernel)) * channels
            seconds += 2e-9 * products if fast else 30e-6 * kernels * channels + 15e-9 * products
    return seconds


def _allowed_s(step_s: float, steps: int) -> float:
    """Return how long some steps may take before the run counts as hung: two minutes, and ten times the time expected."""
    return 120.0 + 10.0 * step_s * steps


def _run_steps(network: Any, config: Any, steps: int) -> None:
    network.run(RunSteps(num_steps=steps), run_cfg=config, compile_config=_COMPILE)


def _drive(block: Any, biases: Any, sample: int) -> None:
    """Set the first layer's biases for a sample. Lava sets a variable element by element, about 30 us each."""
    bias = block.neuron.bias_mant
    values = biases[sample].transpose() if len(bias.shape) == 3 else biases[sample].reshape(-1)
    if sample:
        bias.set(np.ascontiguousarray(values, dtype=np.int32))
    else:  # there is no runtime yet
        bias.init = np.ascontiguousarray(values, dtype=np.int32)


def _stream(
    run_steps: Callable[[int], None],
    feed: Callable[[int], None] | None,
    layers: list[Layer],
    report: Report,
    *,
    depth: int,
    ahead_bytes: int,
) -> None:
    """Run all samples back to back, S * T steps and `depth` for the last to pass through.

    Pauses about twice a second, at the end of a sample, to report how many have passed through, and while too much waits to be
    read: files of `ahead_bytes`. feed: called before each sample begins, which makes every sample a pause.
    """
    samples, timesteps, readout = layers[-1].samples, layers[-1].timesteps, layers[-1]
    ahead = max(1, ahead_bytes // sum(layer.n_bytes for layer in layers))
    begun, done, at_once = 0, 0, 1
    while begun < samples:
        while readout.path(done - ahead).exists():
            time.sleep(_POLL_S)
        if feed:
            feed(begun)
        count = min(at_once, samples - begun)
        steps = count * timesteps + (depth if begun + count == samples else 0)
        began = time.monotonic()
        run_steps(steps)
        step_s = (time.monotonic() - began) / steps
        if begun and not feed:  # the first chunk also builds
            at_once = min(ahead, max(1, int(_CHUNK_S / (step_s * timesteps))))
        begun += count
        done = samples if begun == samples else max(0, (begun * timesteps - depth) // timesteps)
        report("progress", done=done, limit_s=_allowed_s(step_s, at_once * timesteps + depth))


def _watch(names: dict[int, str], report: Report) -> None:
    """Make sure that a Lava process that raises or dies is reported: Lava itself would wait for ever."""
    watched: dict[int, str] = {}
    build_actor = MultiProcessing.build_actor

    def build(self: Any, _target: Any, builder: Any, exception_q: Any = None) -> Any:
        model = getattr(builder, "proc_model", None)
        name = f"{names.get(builder._model_id, 'process')} ({model.__name__})" if model else "runtime service"  # noqa: SLF001
        process = build_actor(self, functools.partial(_guarded, name, report), builder, exception_q)
        watched[process.pid] = name
        return process

    def look(*_: Any) -> None:
        for process, name in watched.items():
            try:
                ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:  # Lava has already waited for it
                continue
            if ended and ended.si_status not in {0, _REPORTED}:
                how = "was killed by " + signal.Signals(ended.si_status).name
                if ended.si_code == os.CLD_EXITED:
                    how = f"ended with code {ended.si_status}"
                report("failed", reason=f"process {name} {how}")
                os._exit(_REPORTED)

    MultiProcessing.build_actor = build
    signal.signal(signal.SIGCHLD, look)


def _guarded(name: str, report: Report, *, builder: Any, exception_q: Any) -> None:
    """Do what Lava's `target_fn` does, but report an exception and end instead of leaving the others waiting."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        actor = builder.build()
        exception_q.put(None)
        actor.start()
    except BaseException as error:  # noqa: BLE001  as above
        traceback.print_exc()
        sys.stderr.flush()
        report("failed", reason=f"process {name} failed: {type(error).__name__}: {error}")
        os._exit(_REPORTED)
