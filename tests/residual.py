"""Random small residual SNNs, and the chains they are lowered to, run in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from toolchain import nets, spiking
from toolchain.spiking import IF

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolchain.quantize.folded import Folded

SHAPE = (2, 8, 8)
PLAN = ((6, 1), (6, 1), (8, 2))
"""Channels and stride of each block: three, one of which carries the stream on, behind a stem of 4 channels"""


def net(seed: int = 0, plan: Sequence[tuple[int, int]] = PLAN, *, stem: int = 4, timesteps: int = 4) -> nets.Net:
    """Return a spiking network of residual blocks with random weights, statistics, thresholds and learned sums."""
    torch.manual_seed(seed)
    body = nn.Sequential()
    body.add_module("conv1", nn.Conv2d(SHAPE[0], stem, 3, padding=1, bias=False))
    source, side = stem, SHAPE[1]
    for number, (channels, stride) in enumerate(plan, start=1):
        body.add_module(f"block{number}", nets.Block(source, channels, stride))
        source, side = channels, side // stride
    body.add_module("bn1", nn.BatchNorm2d(source))
    body.add_module("act1", IF())
    body.add_module("pool1", nn.AvgPool2d(side))
    body.add_module("flatten", nn.Flatten())
    body.add_module("readout", nn.Linear(source, 3))
    made = nets.Net(body, input_shape=SHAPE, mean=(0.4, 0.5), std=(0.25, 0.3))
    with torch.no_grad():
        for module in body.modules():
            match module:
                case nn.BatchNorm2d():
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0.2, 0.3)
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.5, 2)
                case nets.Block():
                    module.mix.copy_(torch.rand(2) + 0.3)
                case IF():
                    module.v_th.uniform_(0.2, 0.8)
    spiking.configure(made, mode="snn", timesteps=timesteps)
    return made.eval()


def images(n: int = 6, seed: int = 1, shape: tuple[int, int, int] = SHAPE):
    """Return uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def chain_spikes(layers: Sequence[Folded], messages, timesteps: int):
    """Return the spikes of every layer of a chain in float64, relays included. Shapes: (samples, T, C, H, W) each."""
    signal = torch.from_numpy(messages.astype(np.float64)).repeat(timesteps, 1, 1, 1)
    found = []
    for layer in layers[:-1]:
        weight = torch.from_numpy(layer.weight)
        drive = F.conv2d(
            signal[:, : weight.shape[1]], weight, None, layer.module.stride, layer.module.padding, layer.module.dilation
        )
        bias = torch.from_numpy(layer.bias)
        drive = drive + (bias if bias.ndim == 3 else bias[:, None, None])
        v = torch.zeros_like(drive[: len(messages)])
        spikes = []
        for now in drive.split(len(messages)):
            v = v + now
            spikes.append((v >= layer.threshold).double())
            v = v * (1 - spikes[-1]) * (1 - layer.leak)
        sy, sx = layer.module.stride
        relayed = signal[:, slice(*layer.relays), ::sy, ::sx] if layer.relays[1] else signal[:, :0, ::sy, ::sx]
        signal = torch.cat([torch.cat(spikes), relayed], dim=1)
        found.append(signal.unflatten(0, (timesteps, -1)).transpose(0, 1).numpy() > 0)
    return found


def representable(seed: int = 0) -> nets.Net:
    """Return the network of `net` with weights that are whole numbers of 8 bits once composed, and thresholds half-way between."""
    made = net(seed).double()
    rng = np.random.default_rng(seed)
    blocks = [module for module in made.body if isinstance(module, nets.Block)]
    with torch.no_grad():
        made.mean[:], made.std[:] = 128 / 255, 1 / 255  # a message is one unit
        for name, module in made.body.named_modules():
            match module:
                case nn.BatchNorm2d():
                    module.eps = 0.0
                    module.weight.fill_(1)
                    module.running_var.fill_(1)
                    module.running_mean.fill_(0)
                    module.bias.copy_(torch.from_numpy(rng.integers(-20, 40, len(module.bias))))
                case nn.Conv2d():
                    # Of what a second block composes, its own kernel counts twice as much as the first one's.
                    most = 63 if name == "block2.conv2" else 127
                    weight = rng.integers(-most, most + 1, module.weight.shape)
                    weight.reshape(-1)[0] = most
                    module.weight.copy_(torch.from_numpy(weight))
                case IF():
                    unit = {"block2.act1": 0.5, "block3.act1": 0.25, "act1": 0.5}.get(name, 1.0)
                    level = 9_000 if name == "block1.act1" else int(rng.integers(150, 260))
                    module.v_th.fill_((level + 0.5) * unit)
        for block in blocks:
            block.mix.fill_(0.5)
    return made
