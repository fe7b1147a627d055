"""Random masked integer WRNs, their residual blocks a chain with relays, whose layers all spike: of the true shape without a training.

As those of `vgg`, but for the masks and composed kernels, which come from a float network by the fold that deploys a trained one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from bench import vgg
from torch import nn

from toolchain import nets, quantize, recipe
from toolchain.ir import THETA_MAX, Conv, Network, Readout

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.ir import Layer
    from toolchain.quantize.folded import Folded

SHAPE = (3, 32, 32)
_CALIBRATION_IMAGES = 4


def build(
    depth: int = 28, *, width: int = 64, sparsity: float = 0.9, timesteps: int = 8, rate: float = 0.12
) -> Network:
    """Return a WRN of 8 bit weights, a share `sparsity` of each layer's zero, whose own neurons spike at about `rate`.

    width: channels of the first group of blocks. Raises ValueError if a layer does not spike within `vgg.RATE`.
    """
    net = float_net(depth, width)
    with torch.no_grad():
        for weight in nets.prunable(net).values():
            pruned = round(sparsity * weight.numel())
            weight.view(-1)[weight.abs().view(-1).argsort()[:pruned]] = 0
    source, folded = quantize.fold(net, SHAPE, {})
    shown = vgg.images(_CALIBRATION_IMAGES, seed=1)
    signal = torch.from_numpy(source.encode(shown)).float()[None]
    layers: list[Layer] = []
    for layer in folded[:-1]:
        made, signal = vgg.firing(_silent(layer), signal, timesteps, rate)
        layers.append(made)
    last = folded[-1]
    readout = Readout(name=last.name, weight=_whole(last), bias=np.zeros(len(last.weight), dtype=int), pool=last.pool)
    network = Network(input=source, layers=tuple(layers), readout=readout, timesteps=timesteps)
    vgg.verify(network, shown)
    return network


def float_net(depth: int = 28, width: int = 64) -> nets.Net:
    """Return a WRN with random weights for 10 classes, in evaluation mode."""
    settings = recipe.ModelSettings(architecture="wrn", depth=depth, width=width)
    made = nets.build(settings, SHAPE, 10, mean=(0.5,) * 3, std=(0.25,) * 3, generator=torch.Generator().manual_seed(0))
    return made.eval()


def _silent(layer: Folded) -> Conv:
    assert isinstance(layer.module, nn.Conv2d)
    (sy, sx), (py, px) = layer.module.stride, layer.module.padding
    neuron = vgg.neurons(THETA_MAX, np.zeros(len(layer.weight), dtype=int), layer.relays[1] - layer.relays[0])
    return Conv(
        name=layer.name, weight=_whole(layer), neuron=neuron, stride=(sy, sx), padding=(py, px), relays=layer.relays
    )


def _whole(layer: Folded) -> npt.NDArray[np.int32]:
    scaled = layer.weight * (127 / np.abs(layer.weight).max())
    # A synapse that a mask kept stays one, however small.
    whole = np.where(np.abs(scaled) < 0.5, np.sign(scaled), np.rint(scaled))
    return whole.astype(np.int32)
