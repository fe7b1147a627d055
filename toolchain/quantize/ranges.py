"""Bounds of a layer's sums and states that hold for every image, proven from its weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir import Conv, Network, Readout

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

ACCUMULATOR = 1 << 17
"""a and v in weight units: u and v have 24 bits, 6 of them below one unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Least and greatest synaptic sum a and state v (for a readout, least and greatest logit), in weight units."""

    synaptic: tuple[int, int]
    state: tuple[int, int]

    @property
    def no_wrap(self) -> bool:
        """Whether u cannot wrap, whatever the image."""
        return self.synaptic[0] > -ACCUMULATOR and self.synaptic[1] < ACCUMULATOR

    @property
    def safe(self) -> bool:
        """Whether u cannot wrap nor v saturate at its lower end; at the upper end it spikes all the same."""
        return self.no_wrap and self.state[0] > -ACCUMULATOR


def bounds(network: Network, index: int) -> Bounds:
    """Return the bounds of layer `index` of the chain (the readout is the last); a that of biases where those drive it.

    The greatest a takes each positive weight with its source's greatest value and each negative one with its least; the
    least a the other way round. A border only drops terms, none of which is on the wrong side of 0. v falls for at most T
    steps, and rises from just below theta. A leak only shrinks states towards 0; a leaky current sums over steps.
    Relays reach 1 and are left out.
    """
    layer = network.chain[index]
    layer = layer.own if isinstance(layer, Conv) else layer
    weight = layer.weight.astype(np.int64).reshape(len(layer.weight), -1)
    low, high = _source_range(network, index, weight.shape)
    greatest = (np.maximum(weight, 0) * high + np.minimum(weight, 0) * low).sum(axis=1)
    least = (np.maximum(weight, 0) * low + np.minimum(weight, 0) * high).sum(axis=1)
    steps = network.timesteps
    bias = (layer.bias if isinstance(layer, Readout) else layer.neuron.bias).astype(np.int64).reshape(len(weight), -1)
    if network.is_driven(layer):
        least, greatest = _biases(network, least + bias.min(axis=1), greatest + bias.max(axis=1))
        bias = np.zeros_like(bias)
    if isinstance(layer, Readout):
        state = steps * (least + bias[:, 0]), steps * (greatest + bias[:, 0])
    else:
        repeats = 1 if layer.neuron.i_decay == 4096 else steps
        least, greatest = least * repeats, greatest * repeats
        falls = steps * np.minimum(least + bias.min(axis=1), 0)
        rises = layer.neuron.per_channel(len(weight)) - 1 + np.maximum(greatest + bias.max(axis=1), 0)
        state = falls, rises
    return Bounds(synaptic=(int(least.min()), int(greatest.max())), state=(int(state[0].min()), int(state[1].max())))


def _biases(network: Network, least: Ints, greatest: Ints) -> tuple[Ints, Ints]:
    """Return the least and greatest bias that the host makes of a channel's sums. Shapes: (C,)."""
    assert network.input.bias
    low, high = (network.input.bias.biases(sums[:, None, None])[:, 0, 0] for sums in (least, greatest))
    return low, high


def _source_range(network: Network, index: int, shape: tuple[int, ...]) -> tuple[Ints, Ints]:
    """Return the least and greatest source value behind each weight, broadcastable to the flattened weight."""
    layer = network.chain[index]
    if index:
        return np.zeros((1, 1), dtype=np.int64), np.full((1, 1), layer.pool**2)
    per_weight = []
    for bound in network.input.message_range:
        groups = layer.groups if isinstance(layer, Conv) else 1
        channels = bound.astype(np.int64).reshape(groups, -1).repeat(shape[0] // groups, axis=0)
        per_weight.append(channels.repeat(shape[1] // channels.shape[1], axis=1))
    return per_weight[0], per_weight[1]
