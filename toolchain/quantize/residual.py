"""A pre-activation residual block becomes two layers of a chain, its shortcut spikes that are relayed beside them.

Within a group of blocks of one shape the stream that the shortcuts carry is linear in spikes: with h of the group's first
block and g_j, the spikes between the convolutions of block j::

    stream after block b = c0 * (stream after block b - 1) + c1 * conv2_b(g_b)     c: the block's learned weights
    stream after the first = c0 * shortcut(h) + c1 * conv2_1(g_1)                  shortcut: a 1x1 convolution

So every neuron that hears the stream hears those spikes, by one composed kernel that batch norm scales as it does any other;
and until the group's last block they are relayed, a layer a step. The first block of the next group hears the stream and its
own shortcut hears that block's h: the stream begins anew. A stride relays every second spike, at the centre of the 3x3 window.

Channels of a layer: its own, then the relays, the latest spikes first: g_b, ..., g_1, h.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from toolchain.quantize.folded import Folded, normalised, opened, unsupported, vector
from toolchain.spiking import V_TH_MIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from toolchain.nets import Block
    from toolchain.quantize.folded import Bools
    from toolchain.spiking import IF

Kind = TypeVar("Kind", bound=np.generic)


def lowered(name: str, block: Block, stream: Folded, masks: Mapping[str, Bools], *, image: bool) -> list[Folded]:
    """Return the layers of a block: h, that its input's stream drives, g between its convolutions, and its own stream, neurons to follow.

    image: whether the stream is the analog image's first convolution, which no spikes can carry on.
    Raises UnsupportedError where the block would add it to its output.
    """
    begins = block.shortcut is not None
    if image and not begins:
        reason = (
            "its shortcut carries the analog image beyond the first layer, where there are only spikes; "
            "give its group another width than the first convolution's"
        )
        raise unsupported(name, reason)
    sources = stream.weight.shape[1]
    h = _fired(normalised(stream, block.bn1), block.act1)
    g = _fired(normalised(opened(f"{name}.conv1", block.conv1, 1, masks), block.bn2), block.act2)
    own = len(h.weight)
    if begins:
        g = replace(g, relays=(0, own))
    else:
        h, g = replace(h, relays=(0, sources)), replace(g, relays=(own, own + sources))
    return [h, g, _sum(name, block, stream, masks)]


def _sum(name: str, block: Block, stream: Folded, masks: Mapping[str, Bools]) -> Folded:
    """Return the block's output as a layer that hears g and what g's layer relays."""
    mix = vector(block.mix)
    rest = opened(f"{name}.conv2", block.conv2, 1, masks)
    if block.shortcut is None:
        before, parts = stream, stream.parts
    else:
        before = opened(f"{name}.shortcut", block.shortcut, 1, masks)
        parts = ((before.name, 0),)
        like = rest.weight.shape[2:]
        before = replace(before, weight=_centred(before.weight, like), mask=_centred(before.mask, like))
    own = rest.weight.shape[1]
    return replace(
        rest,
        name=name,
        weight=np.concatenate([mix[1] * rest.weight, mix[0] * before.weight], axis=1),
        bias=mix[1] * rest.bias + mix[0] * before.bias,
        mask=np.concatenate([rest.mask, before.mask], axis=1),
        parts=((rest.name, 0), *((source, own + at) for source, at in parts)),
    )


def _fired(layer: Folded, neurons: IF) -> Folded:
    return replace(layer, threshold=max(neurons.v_th.item(), V_TH_MIN))


def _centred(kernel: npt.NDArray[Kind], like: tuple[int, ...]) -> npt.NDArray[Kind]:
    """Return a 1x1 kernel as the centre of a larger one of zeros."""
    larger: npt.NDArray[Kind] = np.zeros((*kernel.shape[:2], *like), dtype=kernel.dtype)
    larger[:, :, like[0] // 2, like[1] // 2] = kernel[:, :, 0, 0]
    return larger
