"""Times single steps of one network on Lava, with stock models, with ours, and with ours recording; a program of `bench.lava`.

python -m bench.steps_on_lava NETWORK MESSAGES T FOLDER ROUNDS        prints one JSON object

All three run in this process's children, in turns, once the pipeline is full.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from lava.lib.dl.netx import hdf5
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg

from toolchain.simulate import runner
from toolchain.simulate.models import FAST
from toolchain.simulate.processes import Source
from toolchain.simulate.record import Layer

SUBJECTS = ("stock", "fast", "fast, recording")


def network(subject, net, messages, timesteps, folder):
    """A function that runs some steps of a network of its own."""
    built = hdf5.Network(net, input_message_bits=9, reset_interval=timesteps, reset_offset=1)
    source = Source(shape=built.inp.shape, path=messages, timesteps=timesteps)
    source.out.connect(built.inp)
    if subject == "fast, recording":
        samples = len(np.load(messages, mmap_mode="r"))
        for index, block in enumerate(built.layers):
            block.neuron.proc_params["record"] = Layer(
                name=f"{index}",
                index=index,
                shape=tuple(map(int, block.neuron.s_out.shape)),
                kind="spikes" if index < len(built.layers) - 1 else "sums",
                first=index + 2,
                timesteps=timesteps,
                samples=samples,
                directory=folder,
            )
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=None if subject == "stock" else FAST)
    slots = {"pypy_channel_size": runner.CHANNEL_SLOTS}
    return built, lambda steps: built.run(RunSteps(num_steps=steps), run_cfg=config, compile_config=slots)


def shared_bytes(name):
    return sum(path.stat().st_size for path in Path("/dev/shm").glob(f"*{name}*"))


def main(net, messages, timesteps, folder, rounds):
    timesteps, rounds = int(timesteps), int(rounds)
    name = Path(folder).name
    runner.name_shared_memory(name)
    result = {"start_s": {}, "shared_bytes": {}, "processes": {}, "step_s": {subject: [] for subject in SUBJECTS}}
    built, runs = {}, {}
    before = 0
    for subject in SUBJECTS:
        began = time.perf_counter()
        built[subject], runs[subject] = network(subject, net, messages, timesteps, folder)
        runs[subject](1)
        result["start_s"][subject] = time.perf_counter() - began
        result["shared_bytes"][subject], before = shared_bytes(name) - before, shared_bytes(name)
        runs[subject](len(built[subject].layers) + timesteps)
    for number in range(rounds):
        for subject in reversed(SUBJECTS) if number % 2 else SUBJECTS:
            began = time.perf_counter()
            runs[subject](1)
            result["step_s"][subject].append(time.perf_counter() - began)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the bench ends what is left: Lava's own end may hang


if __name__ == "__main__":
    main(*sys.argv[1:])
