"""Figures of one spiking network on test images: accuracies image by image, spikes, and the additions of eq. 12."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from toolchain import nets
from toolchain.spiking import IF
from toolchain.train import pixels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.data import Split
    from toolchain.nets import Net


def activity(net: Net, mask: Mapping[str, Tensor], split: Split, batch: int = 250) -> dict[str, Any]:
    """Return spikes and additions an image of each layer of neurons, and their sums.

    Equation: additions = sum over neurons of psi * spikes over all steps (eq. 12); the first layer's input is not spikes.
    """
    layers = {name: layer for name, layer in net.body.named_children() if isinstance(layer, IF)}
    totals = {name: torch.zeros(0) for name in layers}

    def watch(name: str):
        def hook(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            steps = output.reshape(net.timesteps, -1, *output.shape[1:]).sum(dim=(0, 1), dtype=torch.float64)
            totals[name] = steps if not totals[name].numel() else totals[name] + steps

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for images in torch.split(pixels(split.images), batch):
                net(images)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name in layers:
        rates = totals[name] / len(split)
        additions = (psi(net, mask, name, rates.shape) * rates).sum()
        found[name] = {"spikes": float(rates.sum()), "additions": float(additions)}
    sums = {key: sum(layer[key] for layer in found.values()) for key in ("spikes", "additions")}
    return {**sums, "layers": found, "n": len(split)}


def psi(net: Net, mask: Mapping[str, Tensor], name: str, shape: torch.Size) -> Tensor:
    """Return the kept synapses that leave each neuron of a layer, through a pool divided by its area.

    Equation: the gradient of sum(layer(x, mask)) with respect to x. Shapes: (C, H, W), or (features,), as `shape`.
    """
    body = list(net.body.named_children())
    place = next(index for index, (other, _) in enumerate(body) if other == name)
    x = torch.zeros((1, *shape), dtype=torch.float64, requires_grad=True)
    y = x
    for other, layer in body[place + 1 :]:
        match layer:
            case nn.Conv2d() | nn.Linear():
                kept = mask.get(f"{other}.weight", torch.ones_like(layer.weight)).double()
                if isinstance(layer, nn.Linear):
                    y = nn.functional.linear(y, kept)
                else:
                    y = nn.functional.conv2d(y, kept, None, layer.stride, layer.padding, layer.dilation, layer.groups)
                return torch.autograd.grad(y.sum(), x)[0][0]
            case _:
                y = layer(y)
    raise AssertionError("a layer of neurons is followed by one of synapses")


def restored(path):
    """Return the network of a model file, and the model."""
    from toolchain import store

    model = store.load(path)
    return nets.restore(model), model
