"""The spiking network as the literature writes it: T steps one after the other through the whole network of torch's own layers, by autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from toolchain import spiking
from toolchain.spiking import IF

if TYPE_CHECKING:
    from toolchain.nets import Net


class _Spike(torch.autograd.Function):
    """1[d >= 0], differentiated by a surrogate."""

    @staticmethod
    def forward(ctx, d, kind) -> Tensor:
        ctx.save_for_backward(d)
        ctx.kind = kind
        return (d >= 0).to(d.dtype)

    @staticmethod
    def backward(ctx, g) -> tuple[Tensor, None]:
        (d,) = ctx.saved_tensors
        return g * spiking.derivative(ctx.kind, d), None


class Loop(nn.Module):
    """`net`, a chain in mode `snn`, with its own parameters and buffers.

    Each step sees batch statistics of its own in training; in evaluation the logits are those of `net`.
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        net = self.net
        x = (images - net.mean[:, None, None]) / net.std[:, None, None]
        membranes: dict[IF, Tensor] = {}
        logits = 0
        for _ in range(net.timesteps):
            out = x
            for layer in net.body:
                out = _step(layer, out, membranes) if isinstance(layer, IF) else _own(layer, out)
            logits = logits + out
        return logits / net.timesteps


def _own(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's output, of a pool by torch's own, which is slower on small maps."""
    return nn.AvgPool2d.forward(layer, x) if isinstance(layer, nn.AvgPool2d) else layer(x)


def _step(layer: IF, x: Tensor, membranes: dict[IF, Tensor]) -> Tensor:
    """The neuron's spikes in one step; its membrane goes on."""
    u = membranes.get(layer, torch.zeros_like(x)) + x
    o = _Spike.apply(u - layer.v_th.clamp(min=spiking.V_TH_MIN), layer.surrogate)
    membranes[layer] = (1 - o) * u
    return o


class ByLayer(nn.Module):
    """`net`, a chain in mode `snn`, with its own parameters and buffers: layer by layer, each in a loop over steps.

    Batch norm sees all steps at once, but the first one, whose input is the same at each, sees it once: what `net` computes.
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        net = self.net
        steps = [(images - net.mean[:, None, None]) / net.std[:, None, None]]
        for layer in net.body:
            if isinstance(layer, IF):
                membranes: dict[IF, Tensor] = {}
                steps = [_step(layer, x, membranes) for x in (steps * net.timesteps if len(steps) == 1 else steps)]
            elif isinstance(layer, nn.BatchNorm2d):
                steps = list(layer(torch.cat(steps)).chunk(len(steps)))
            else:
                steps = [layer(x) for x in steps]
        return torch.stack(steps).mean(dim=0)
