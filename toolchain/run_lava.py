"""Runs network.net on stock Lava, with nothing of rsnn-deploy, and compares the logits with samples.npz.

    python run_lava.py            # Python 3.10 with lava-nc 0.10.0 and lava-dl 0.6.0

Exit code 0: every logit as expected; 1: not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from lava.lib.dl.netx import hdf5
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = Loihi2SimCfg(select_tag="fixed_pt")


def main() -> int:
    """Print each sample's logits as Lava computes them; return the exit code."""
    here = Path(__file__).resolve().parent
    with h5py.File(here / "network.net", "r") as file:
        meta = json.loads(bytes(file["meta/json"][()]))
    steps = meta["timesteps"]
    samples = np.load(here / "samples.npz", allow_pickle=False)
    expected = samples["logits"]
    # The first layer is sent messages, or it is driven by biases that are set anew for each sample.
    driven = "biases" in samples.files

    net = hdf5.Network(
        net_config=str(here / "network.net"),
        input_message_bits=meta["input"]["bits"],
        reset_interval=steps,
        reset_offset=0 if driven else 1,
    )
    print(net)
    bias = np.broadcast_to(np.asarray(net.layers[-1].neuron.bias_mant.init), expected.shape[1:])
    sums = by_biases(net, samples["biases"], steps) if driven else by_messages(net, samples["messages"], steps)
    wrong = 0
    try:
        for index, (label, each) in enumerate(zip(samples["labels"], sums, strict=True)):
            logits = each + steps * bias
            same = np.array_equal(logits, expected[index])
            wrong += not same
            verdict = "as expected" if same else f"EXPECTED {expected[index].tolist()}"
            print(f"sample {index}: class {logits.argmax()} (label {label}), logits {logits.tolist()} {verdict}")
    finally:
        net.stop()
    print(f"{len(expected) - wrong} of {len(expected)} samples as expected")
    return int(wrong > 0)


def by_messages(net: Any, messages: Any, steps: int) -> Iterator[Any]:
    """Yield what the readout's synapses send in the T steps of each sample, summed up."""
    # netx wants (W, H, C, time), or a flat vector where the first layer is dense; frame k * T + t is sample k at step t.
    messages = messages.astype(np.int32)
    frames = messages.transpose(3, 2, 1, 0) if len(net.inp.shape) == 3 else messages.reshape(len(messages), -1).T
    source = Source(data=frames.repeat(steps, axis=-1))
    source.s_out.connect(net.inp)
    # The last T columns, in a ring of length T, are one sample's.
    sink = connected_sink(net, steps)
    # Each layer adds one step of delay: the pipeline is full after as many steps as there are layers.
    net.run(condition=RunSteps(num_steps=len(net)), run_cfg=CONFIG)
    for _ in messages:
        net.run(condition=RunSteps(num_steps=steps), run_cfg=CONFIG)
        yield sink.data.get().astype(np.int64).sum(axis=-1)


def by_biases(net: Any, biases: Any, steps: int) -> Iterator[Any]:
    """Yield the same, for a first layer that is an input block; all samples have run before the first is known."""
    # Biases are there at once, with no source before the first layer: one step of delay fewer.
    delay = len(net) - 1
    sink = connected_sink(net, len(biases) * steps + delay)
    first = net.layers[0].neuron.bias_mant
    for index, each in enumerate(biases.astype(np.int32)):
        values = np.ascontiguousarray(each.transpose() if len(first.shape) == 3 else each.reshape(-1))
        if index:
            first.set(values)
        else:
            first.init = values  # a variable can be set only once the network runs
        net.run(condition=RunSteps(num_steps=steps), run_cfg=CONFIG)
    net.run(condition=RunSteps(num_steps=delay), run_cfg=CONFIG)
    columns = sink.data.get().astype(np.int64)[:, delay:]
    yield from columns.reshape(len(columns), len(biases), steps).sum(axis=-1).T


def connected_sink(net: Any, columns: int) -> Any:
    """Return a ring of so many columns that holds what the readout's synapses send."""
    readout = net.layers[-1].synapse
    sink = Sink(shape=readout.a_out.shape, buffer=columns)
    readout.a_out.connect(sink.a_in)
    return sink


if __name__ == "__main__":
    sys.exit(main())
