"""Runs random processes of Lava with stock models and with ours, and compares all they send and hold; run as a program.

python tests/lava/stock_and_fast.py FIRST LAST      one line a seed; exit code 1 where anything differs

Each seed is a chain of a source, Conv or Dense or Sparse, LIFReset, a second synapse and a second LIFReset. Their sums and
spikes are recorded at every step, and their variables read at the end.
"""

from __future__ import annotations

import sys

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.process import LIFReset
from lava.proc.sparse.process import Sparse
from scipy.sparse import csr_matrix

from toolchain.simulate.models import FAST

STEPS = 9


def conv(rng, shape, bits):
    groups = int(rng.choice([1, 1, shape[2]]))
    block = int(rng.choice([1, 1, 2]))
    kernel, stride, padding = (
        tuple((block * rng.integers(low, high, 2)).tolist()) for low, high in ((1, 4), (1, 3), (0, 3))
    )
    kernel = tuple(min(k, n + 2 * p) // block * block for k, n, p in zip(kernel, shape, padding, strict=False))
    dilation = (1, 1)
    if block == 1:
        dilation = tuple(
            1 + int(rng.random() < 0.4 and 2 * (k - 1) < n + 2 * p)
            for k, n, p in zip(kernel, shape, padding, strict=False)
        )
    high = int(rng.choice([6, 127, 20_000]))
    weight = rng.integers(
        -high, high + 1, (groups * rng.integers(1, 4), *(k // block for k in kernel), shape[2] // groups)
    )
    weight[rng.random(weight.shape) < rng.choice([0, 0.9])] = 0
    weight = weight.repeat(block, axis=1).repeat(block, axis=2)
    return Conv(
        weight=weight,
        input_shape=shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        num_message_bits=bits,
    )


def matrix(rng, kind, inputs, bits):
    weight = rng.integers(
        *[(-128, 128), (0, 200), (-200, 1)][rng.choice(3, p=[0.8, 0.1, 0.1])], (rng.integers(1, 9), inputs)
    )
    weight[rng.random(weight.shape) < rng.choice([0, 0.8])] = 0
    weight[0, 0] = 3 if weight.max() > 0 else -3
    settings = {
        "weight_exp": int(rng.choice([0, 0, 2, -2, 9])),
        "num_weight_bits": int(rng.choice([8, 5])),
        "num_message_bits": bits,
    }
    return kind(weights=csr_matrix(weight) if kind is Sparse else weight, **settings)


def neurons(rng, shape):
    leaky = rng.random() < 0.25
    per_channel = rng.integers(0, 120, shape[-1]) * int(rng.choice([1, 60]))
    return LIFReset(
        shape=shape,
        du=int(rng.choice([4095, 1000])) if leaky else 4095,
        dv=int(rng.choice([0, 300])) if leaky else 0,
        vth=int(rng.choice([1, 20, 400, 131_071])) if rng.random() < 0.5 else per_channel,
        bias_mant=rng.integers(-40, 41, shape) * int(rng.choice([0, 1, 800])),
        bias_exp=int(rng.choice([0, 6])),
        reset_interval=4,
        reset_offset=int(rng.integers(0, 6)),
    )


def chain(seed):
    """The source of a random chain, its ports to record, and its variables to read."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 8)), int(rng.integers(2, 8)), int(rng.integers(1, 4)))
    bits = int(rng.choice([0, 8, 8]))
    low, high = [(0, 2), (-256, 256), (0, 40_000)][rng.integers(3)]
    frames = rng.integers(low, high, (*shape, STEPS)) * (rng.random((*shape, STEPS)) < 0.5)
    frames[..., 1:3] = frames[..., :1]  # messages that stay are computed once
    first_is_conv = rng.random() < 0.7
    if not first_is_conv:
        frames = frames.reshape(-1, STEPS)
    source = Source(data=frames)
    synapse = (
        conv(rng, shape, bits) if first_is_conv else matrix(rng, [Dense, Sparse][rng.integers(2)], len(frames), bits)
    )
    first = neurons(rng, synapse.a_out.shape)
    source.s_out.connect(synapse.s_in)
    synapse.a_out.connect(first.a_in)
    if first_is_conv and rng.random() < 0.5:
        second = conv(rng, first.s_out.shape, 0)
        first.s_out.connect(second.s_in)
    else:
        second = matrix(rng, [Dense, Sparse][rng.integers(2)], int(np.prod(first.s_out.shape)), 0)
        out = first.s_out.transpose([2, 1, 0]).flatten() if first_is_conv else first.s_out
        out.connect(second.s_in)
    last = neurons(rng, second.a_out.shape)
    second.a_out.connect(last.a_in)
    ports = {"1st sums": synapse.a_out, "1st spikes": first.s_out, "2nd sums": second.a_out, "2nd spikes": last.s_out}
    variables = {"1st u": first.u, "1st v": first.v, "2nd u": last.u, "2nd v": last.v}
    return source, ports, variables, f"{type(synapse).__name__}, {type(second).__name__}"


def run(seed, models):
    """What a chain sends and holds with these models."""
    source, ports, variables, name = chain(seed)
    sinks = {label: Sink(shape=port.shape, buffer=STEPS) for label, port in ports.items()}
    for label, port in ports.items():
        port.connect(sinks[label].a_in)
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
    source.run(condition=RunSteps(num_steps=STEPS), run_cfg=config)
    found = {label: sink.data.get() for label, sink in sinks.items()}
    found |= {label: variable.get() for label, variable in variables.items()}
    source.stop()
    return found, name


def main(first, last):
    different = 0
    for seed in range(first, last):
        (stock, name), (fast, _) = run(seed, None), run(seed, FAST)
        wrong = [label for label in stock if not np.array_equal(stock[label], fast[label])]
        rates = " ".join(f"{stock[label].mean():.2f}" for label in ("1st spikes", "2nd spikes"))
        sums = " ".join(f"{np.abs(stock[label]).max():.0f}" for label in ("1st sums", "2nd sums"))
        sys.stdout.write(f"{seed}: {name}; rates {rates}; sums to {sums}; {', '.join(wrong) or 'the same'}\n")
        sys.stdout.flush()
        different += bool(wrong)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
