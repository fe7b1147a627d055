"""One step of finetuning a spiking VGG-16 (32x32, T 8): RFGSM, TRADES, SGD.

The plain loop is what the literature's codes do: T steps one after the other through the whole network, each with its own convolutions,
batch norm and neuron, differentiated through time by autograd. Ours takes all steps of a layer at once, the first convolution once, and the
neuron as one function. Both use the same weights, loss and optimizer; in float64 their results are equal (`tests/unit/test_plain.py`).
What remains is convolutions, which both must do: three passes forward, one back to the image, and two back to all weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from bench.harness import Row, race
from plain import Loop

from toolchain import nets, recipe, spiking, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCHES = (4, 16)
TIMESTEPS = 8
ROUNDS = 3


def step(model: torch.nn.Module, batch: int) -> Callable[[], object]:
    """Return what takes one step of SGD on random images."""
    settings = recipe.from_dict({}).loss
    objective = train.snn_loss(settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(batch, 3, 32, 32, generator=generator), torch.arange(batch) % 10

    def take() -> None:
        model.train()
        optimizer.zero_grad()
        objective(model, images, labels, generator).backward()
        optimizer.step()

    return take


def network() -> nets.Net:
    """Return a spiking VGG-16 whose thresholds are low enough that every layer spikes."""
    settings = recipe.from_dict({"model": {"architecture": "vgg16"}}).model
    generator = torch.Generator().manual_seed(0)
    made = nets.build(settings, (3, 32, 32), 10, mean=(0.5,) * 3, std=(0.25,) * 3, generator=generator)
    spiking.configure(made, mode="snn", timesteps=TIMESTEPS)
    with torch.no_grad():
        for layer in spiking.neurons(made):
            layer.v_th.fill_(0.5)
    return made


def rows() -> Iterator[Row]:
    """Yield a row of each program at each batch size."""
    for batch in BATCHES:
        taken = race({"plain loop": step(Loop(network()), batch), "ours": step(network(), batch)}, rounds=ROUNDS)
        case = f"VGG-16, T {TIMESTEPS}, batch {batch}"
        yield taken["plain loop"].row(case=case, subject="plain loop", unit="s/step")
        ratio = taken["plain loop"].ratio(taken["ours"])
        yield taken["ours"].row(
            case=case,
            subject="ours",
            unit="s/step",
            ratio=ratio,
            against="plain loop",
            target="2 times as fast, better 3",
        )
