"""Random networks with skip connections: the chain of relays spikes where the network does, in every neuron and step."""

from __future__ import annotations

import numpy as np
import residual
import torch
from torch import nn

from toolchain import nets, quantize, spiking
from toolchain.nets.branched import SPIKES
from toolchain.spiking import IF

SEEDS = range(24)
T = 4


def part(rng, channels):
    """A part whose layers of neurons hear some of those before, at strides of their own, and whose last hears all that nobody did."""
    layers, sources = {}, {}
    sent = {SPIKES: (channels, 1)}  # of each layer of neurons, its channels and the stride it has come to

    def neurons(name, heard, stride, out):
        ends = []
        for source in heard:
            width, before = sent[source]
            step = stride // before
            if step == 1 and width == out and rng.random() < 0.3:
                ends.append(source)
                continue
            side = 3 if source == list(sent)[-1] or (step == 1 and rng.random() < 0.5) else 1
            ends.append(f"{name}_{len(layers)}")
            layers[ends[-1]] = nn.Conv2d(width, out, side, step, side // 2)
            sources[ends[-1]] = (source,)
            if rng.random() < 0.3:
                scale = nn.Conv2d(out, out, 1, groups=out, bias=False)
                layers[f"{ends[-1]}_scale"], sources[f"{ends[-1]}_scale"] = scale, (ends[-1],)
                ends[-1] += "_scale"
        layers[name], sources[name] = IF(leak=float(rng.choice([0, 0.25]))), tuple(ends)
        sent[name] = out, stride

    for index in range(rng.integers(1, 6)):
        latest, *others = reversed(sent)
        stride = min(4, sent[latest][1] * int(rng.choice([1, 1, 1, 2])))
        heard = [latest, *(other for other in others if rng.random() < 0.4)]
        neurons(f"spiking{index}", heard, stride, int(rng.choice([sent[latest][0], 3, 5])))
    found = {source for heard in sources.values() for source in heard}
    neurons("last", [name for name in reversed(sent) if name not in found], stride, 4)
    return nets.Branched(layers, sources), 8 // stride


def network(seed):
    """A network around such a part, with random weights and thresholds."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    branched, side = part(rng, 4)
    body = nn.Sequential()
    for name, layer in (
        ("stem", nn.Conv2d(2, 4, 3, padding=1)),
        ("first", IF()),
        ("branched", branched),
        ("pool", nn.AvgPool2d(side)),
        ("flatten", nn.Flatten()),
        ("readout", nn.Linear(4, 3)),
    ):
        body.add_module(name, layer)
    with torch.no_grad():
        for weight in body.parameters():
            if weight.ndim == 4:
                weight.normal_(0.05, 0.4)
        for layer in spiking.neurons(body):
            layer.v_th.uniform_(0.3, 0.9)
    made = nets.Net(body, input_shape=residual.SHAPE, mean=(0.4, 0.5), std=(0.25, 0.3))
    spiking.configure(made, mode="snn", timesteps=T)
    return made.eval().double()


def test_the_chain_of_relays_spikes_where_the_network_with_branches_does():
    relaying = spiking_at_all = 0
    for seed in SEEDS:
        made, images = network(seed), residual.images(3, seed=seed)
        source, layers = quantize.fold(made, residual.SHAPE, {})
        found = residual.chain_spikes(layers, source.encode(images), T)
        for layer, ours, theirs in zip(layers, found, quantize.float_spikes(made, images), strict=False):
            assert np.array_equal(ours[:, :, : len(layer.weight)], theirs), (seed, layer.name)
            spiking_at_all += 0.02 < theirs.mean() < 0.98
        relaying += any(layer.relays[1] for layer in layers)
    assert relaying > len(SEEDS) / 2
    assert spiking_at_all > 4 * len(SEEDS)
