"""A part of a network that has branches: layers that hear the sum of several before them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SPIKES = ""
"""Source of the layers that hear what the part itself is given."""


class Branched(nn.Module):
    """Convolutions and neurons from the spikes of one layer to those of another, with skip connections between them.

    Equation: out[n] = layer_n(sum of out[s] over the sources s of n); the part's output is that of its last layer.
    layers, sources: by name, behind their own sources; the last layer is of neurons, or an Identity that gives the sum of spikes.

    Shapes: (B, C, H, W) -> (B, C', H', W'); in mode `snn` with T * B for B.
    """

    def __init__(self, layers: Mapping[str, nn.Module], sources: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.names = tuple(layers)
        self.layers = nn.ModuleList(layers.values())  # by number: names of other libraries need not be torch's
        self.sources = dict(sources)

    def named_layers(self) -> Iterator[tuple[str, nn.Module]]:
        """Every layer with its name, in order."""
        return zip(self.names, self.layers, strict=True)

    def forward(self, x: Tensor) -> Tensor:
        """The spikes of the last layer."""
        return self.through(x, lambda _name, layer, *heard: layer(functools.reduce(torch.add, heard)))

    def through(self, x: Tensor, run: Callable[..., Tensor]) -> Tensor:
        """The output of the last layer, where each layer's is `run(name, layer, *what it hears)`."""
        given = {SPIKES: x}
        for name, layer in self.named_layers():
            x = given[name] = run(name, layer, *(given[source] for source in self.sources[name]))
        return x
