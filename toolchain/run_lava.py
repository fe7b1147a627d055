"""Runs network.net on stock Lava, with nothing of rsnn-deploy, and compares the logits with samples.npz.

    python run_lava.py            # Python 3.10 with lava-nc 0.10.0 and lava-dl 0.6.0

Exit code 0: every logit as expected; 1: not.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
from lava.lib.dl.netx import hdf5
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source


def main() -> int:
    """Print each sample's logits as Lava computes them; return the exit code."""
    here = Path(__file__).resolve().parent
    with h5py.File(here / "network.net", "r") as file:
        meta = json.loads(bytes(file["meta/json"][()]))
    steps = meta["timesteps"]
    samples = np.load(here / "samples.npz", allow_pickle=False)
    messages, expected = samples["messages"].astype(np.int32), samples["logits"]

    net = hdf5.Network(
        net_config=str(here / "network.net"),
        input_message_bits=meta["input"]["bits"],
        reset_interval=steps,
        reset_offset=1,
    )
    print(net)
    # netx wants (W, H, C, time), or a flat vector where the first layer is dense; frame k * T + t is sample k at step t.
    frames = messages.transpose(3, 2, 1, 0) if len(net.inp.shape) == 3 else messages.reshape(len(messages), -1).T
    source = Source(data=frames.repeat(steps, axis=-1))
    readout = net.layers[-1]
    # The last T columns of what the readout's synapses sent, in a ring of length T: their sum is one sample's logits.
    sink = Sink(shape=readout.synapse.a_out.shape, buffer=steps)
    source.s_out.connect(net.inp)
    readout.synapse.a_out.connect(sink.a_in)
    bias = np.broadcast_to(np.asarray(readout.neuron.bias_mant.init), expected.shape[1:])

    config = Loihi2SimCfg(select_tag="fixed_pt")
    # Each layer adds one step of delay: the pipeline is full after as many steps as there are layers.
    source.run(condition=RunSteps(num_steps=len(net)), run_cfg=config)
    wrong = 0
    try:
        for index, label in enumerate(samples["labels"]):
            source.run(condition=RunSteps(num_steps=steps), run_cfg=config)
            logits = sink.data.get().astype(np.int64).sum(axis=-1) + steps * bias
            same = np.array_equal(logits, expected[index])
            wrong += not same
            verdict = "as expected" if same else f"EXPECTED {expected[index].tolist()}"
            print(f"sample {index}: class {logits.argmax()} (label {label}), logits {logits.tolist()} {verdict}")
    finally:
        source.stop()
    print(f"{len(expected) - wrong} of {len(expected)} samples as expected")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
