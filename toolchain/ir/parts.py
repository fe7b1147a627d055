"""What of a layer is placed by itself: the channels of its weight, and its relays, as a convolution with a group a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir import AnyLayer, Conv, Neuron

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.ir import Network, Shape

Range = tuple[int, int]
"""First and one past last"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a layer, itself a layer.

    Attributes: index, of the whole layer in the chain; heard, the channels of the whole source layer that are this part's source;
    channels, which of the whole layer's channels are this part's; source and shape, the part's own.
    """

    index: int
    layer: AnyLayer
    heard: Range
    channels: Range
    source: Shape
    shape: Shape

    @property
    def name(self) -> str:
        """The layer's name, or that of its relays."""
        return self.layer.name


def parts(network: Network) -> Iterator[Part]:
    """Yield the parts of all layers in order: most have one."""
    for index, (layer, source, shape) in enumerate(network.wired()):
        if not isinstance(layer, Conv) or not layer.n_relays:
            yield Part(
                index=index, layer=layer, heard=(0, source[0]), channels=(0, shape[0]), source=source, shape=shape
            )
            continue
        own, map_ = len(layer.weight), shape[1:]
        yield Part(
            index=index,
            layer=layer.own,
            heard=(0, layer.weight.shape[1]),
            channels=(0, own),
            source=(layer.weight.shape[1], *source[1:]),
            shape=(own, *map_),
        )
        yield Part(
            index=index,
            layer=relaying(layer),
            heard=layer.relays,
            channels=(own, shape[0]),
            source=(layer.n_relays, *source[1:]),
            shape=(layer.n_relays, *map_),
        )


def relay_name(name: str) -> str:
    """Return what the relays of a layer are called."""
    return f"{name} relays"


def relaying(layer: Conv) -> Conv:
    """Return the relays of a layer as a 1x1 convolution that sends each channel on."""
    n = layer.n_relays
    ones = np.ones(n, dtype=np.int32)
    return Conv(
        name=relay_name(layer.name),
        weight=ones[:, None, None, None],
        neuron=Neuron(theta=ones, bias=np.zeros(n, dtype=np.int32)),
        stride=layer.stride,
        groups=n,
        weight_bits=layer.weight_bits,
    )
