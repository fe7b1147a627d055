"""Runs nengo-loihi's emulator for `nengo_dense`, in an environment of its own: python nengo_child.py WEIGHTS STEPS

Each line read runs the steps once more and is answered by `done`.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np


def main(path: str, steps: str) -> None:
    """Two on-chip layers, driven by one that fires on the host, have run as often as lines were read."""
    warnings.simplefilter("ignore")
    import nengo
    import nengo_loihi

    with np.load(path) as file:
        weights = list(file.values())
    width = len(weights[0])
    with nengo.Network(seed=0) as model:
        nengo_loihi.add_params(model)
        kind = nengo_loihi.neurons.LoihiSpikingRectifiedLinear()
        layers = [
            nengo.Ensemble(width, 1, neuron_type=kind, gain=np.ones(width), bias=bias * np.ones(width))
            for bias in (200.0, 0.0, 0.0)
        ]
        model.config[layers[0]].on_chip = False
        for source, target, weight in zip(layers, layers[1:], weights, strict=False):
            nengo.Connection(source.neurons, target.neurons, transform=weight / 128, synapse=None)
    simulator = nengo_loihi.Simulator(model, target="sim", progress_bar=False)
    for _ in sys.stdin:
        simulator.run_steps(int(steps))
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
