"""Conversion: the sparse ANN becomes a spiking network with calibrated thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from toolchain import nets, percentiles, spiking
from toolchain.train import pixels, stream

if TYPE_CHECKING:
    from toolchain.data import Split
    from toolchain.nets import Net
    from toolchain.recipe import Recipe
    from toolchain.spiking import IF


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """The layer under calibration has its input: what follows need not be computed."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


def convert(net: Net, split: Split, recipe: Recipe) -> None:
    """`net` is spiking: thresholds calibrated, batch norm statistics re-estimated, weights and affine parameters kept.

    Layer by layer, V becomes the greatest percentile of the layer's input (not of its membrane) over the calibration
    batches, with the thresholds before it in place and batch norm on batch statistics; then all V are scaled.
    """
    settings = recipe.convert
    net.eval()
    spiking.configure(net, mode="snn", timesteps=settings.timesteps)
    order = torch.randperm(len(split), generator=stream(recipe.seed, "convert"))
    chosen = order[: settings.batch * settings.batches].numpy()
    batches = torch.split(pixels(split.images[chosen]).to(_device(net)), settings.batch)
    batches = batches[:-1] if len(batches) > 1 and len(batches[-1]) < 2 else batches
    with torch.no_grad():
        for norm in nets.norms(net):
            norm.reset_running_stats()
        for layer in spiking.neurons(net):
            greatest = max(
                percentiles.percentile([_input_of(layer, net, batch)], settings.percentile) for batch in batches
            )
            layer.v_th.fill_(max(greatest, spiking.V_TH_MIN))
        for layer in spiking.neurons(net):
            layer.v_th.mul_(settings.scale).clamp_(min=spiking.V_TH_MIN)
    spiking.configure(net, timesteps=recipe.timesteps)
    estimate_statistics(net, split, settings.batch)


def estimate_statistics(net: Net, split: Split, batch: int) -> None:
    """The batch norm statistics of `net` are the means over the training images' batches; it is in evaluation mode."""
    momenta = [(norm, norm.momentum) for norm in nets.norms(net)]
    for norm, _ in momenta:
        norm.reset_running_stats()
        norm.momentum = None  # type: ignore[assignment]  # torch's word for a cumulative mean
        norm.train()
    with torch.no_grad():
        for images in torch.split(torch.tensor(split.images), batch):
            if len(images) > 1:
                net(pixels(images).to(_device(net)))
    for norm, momentum in momenta:
        norm.momentum = momentum
    net.eval()


def _device(net: Net) -> torch.device:
    return next(net.parameters()).device


def _input_of(layer: IF, net: Net, images: Tensor) -> Tensor:
    """What reaches an IF layer, with batch norm on the statistics of this batch."""

    def stop(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise _Reached(inputs[0])

    handle = layer.register_forward_pre_hook(stop)
    for norm in nets.norms(net):
        norm.train()
    try:
        net(images)
    except _Reached as reached:
        return reached.x
    finally:
        handle.remove()
        net.eval()
    raise AssertionError("an IF layer of the body is always reached")
