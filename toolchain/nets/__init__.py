"""Networks as plain modules: one that is both the ANN and the SNN, built from a recipe or restored from a checkpoint."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from toolchain import spiking
from toolchain.errors import FormatError
from toolchain.nets import chain, wide
from toolchain.nets.branched import Branched
from toolchain.nets.chain import Shape
from toolchain.nets.wide import Block

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from toolchain.recipe import ModelSettings
    from toolchain.spiking import Mode
    from toolchain.store import Model

__all__ = ["Block", "Branched", "Net", "Shape", "apply_mask", "build", "norms", "prunable", "restore"]

Precision = Literal["auto", "float32", "bfloat16"]

CHANNELS_LAST_SIDE = 16
"""Least side of a map whose channels are stored last: convolutions of smaller ones are slower so (measured on a CPU)."""


class Net(nn.Module):
    """Layers behind a normalisation, which are a ReLU network or a spiking network as their IF layers' mode says.

    `body` holds Conv2d, BatchNorm2d, IF, AvgPool2d, Flatten, Dropout, Linear, residual blocks and branched parts, by name. In mode `snn`
    the image is shown at each of T steps, and the logits are the mean over steps of the last layer's output; what precedes
    the first IF layer is the same at every step and computed once, so that its batch statistics are those of B images. What
    follows the last one is linear, but for a dropout in training, and takes the mean over steps of its spikes.

    Shapes: mean and std (C,); images float (B, C, H, W) in [0, 1] -> logits (B, classes).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Sequential, *, input_shape: Shape, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.body = body
        self.input_shape = input_shape
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.precision: Precision = "auto"
        spiking.neurons(body)[0].constant = True
        self._n_spiking = 1 + max(index for index, layer in enumerate(body) if spiking.neurons(layer))

    @property
    def mode(self) -> Mode:
        """`ann` or `snn`; `spiking.configure` sets it."""
        return spiking.neurons(self)[0].mode

    @property
    def timesteps(self) -> int:
        """Steps an image in mode `snn`; `spiking.configure` sets it."""
        return spiking.neurons(self)[0].timesteps

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        x = _contiguous((images - self.mean[:, None, None]) / self.std[:, None, None])
        with _rounded(self.precision, images.device):
            layers, spikes = list(self.body), self.mode == "snn"
            for layer in layers[: self._n_spiking]:
                x = _passed(layer, x)
            rest = layers[self._n_spiking :]
            linear = not any(isinstance(layer, nn.Dropout) and layer.training for layer in rest)
            x = self._mean(x) if spikes and linear else x
            for layer in rest:
                x = _passed(layer, x)
        x = x.float() if x.dtype == torch.bfloat16 else x
        return x if linear or not spikes else self._mean(x)

    def _mean(self, x: Tensor) -> Tensor:
        """The mean over steps. Shapes: (T * B, ...) -> (B, ...)."""
        return x.reshape(self.timesteps, -1, *x.shape[1:]).mean(dim=0)


def _passed(layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer makes of `x`, in the memory format that suits the next."""
    passed: Tensor = layer(x)
    return _contiguous(passed) if isinstance(layer, nn.AvgPool2d) else passed


def _rounded(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Inside, convolutions and linear layers multiply in bfloat16 if the precision says so, or leaves it to the device.

    `auto` means GPUs that have it: a CPU's bfloat16 is slower than its float32 unless it multiplies matrices (AMX).
    """
    if precision == "auto":
        wanted = device.type == "cuda" and torch.cuda.is_bf16_supported()  # type: ignore[no-untyped-call]
    else:
        wanted = precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def _contiguous(x: Tensor) -> Tensor:
    """`x` in the memory format its convolutions are fastest in: large maps with their channels last, small ones first."""
    last = x.ndim == 4 and min(x.shape[2:]) >= CHANNELS_LAST_SIDE
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def build(
    settings: ModelSettings,
    input_shape: Shape,
    n_classes: int,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    generator: torch.Generator | None = None,
) -> Net:
    """A freshly initialised network in mode `ann`: normal weights, zero biases, BN (1, 0).

    Raises: ConfigError where a pool or stride does not divide its map.
    """
    body = nn.Sequential()
    with torch.random.fork_rng(devices=[]):  # torch's layers draw initial weights, which are not kept
        for name, layer in _layers(settings, input_shape, n_classes):
            body.add_module(name, layer)
    _initialise(body, generator)
    mean = (0.0,) * input_shape[0] if mean is None else mean
    std = (1.0,) * input_shape[0] if std is None else std
    net = Net(body, input_shape=input_shape, mean=mean, std=std)
    net.precision = settings.precision
    return net


def _layers(settings: ModelSettings, input_shape: Shape, n_classes: int) -> Iterator[tuple[str, nn.Module]]:
    if settings.architecture == "wrn":
        return wide.layers(settings.depth, settings.width, input_shape, n_classes)
    return chain.layers(chain.plan(settings), input_shape, n_classes)


def restore(model: Model) -> Net:
    """The network of a checkpoint, in evaluation mode, spiking if its stage is. Raises FormatError, ConfigError."""
    net = build(model.recipe.model, model.input_shape, model.n_classes, mean=model.mean, std=model.std)
    expected = {name: tuple(tensor.shape) for name, tensor in net.body.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in model.state.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            wanted, got = (str(shapes.get(name, "nothing")) for shapes in (expected, found))
            raise FormatError(path=model.path, reason=f"{name}: its recipe asks for {wanted}, it holds {got}")
    if extra := model.mask.keys() - prunable(net).keys():
        raise FormatError(path=model.path, reason=f"it has a mask for {min(extra)}, which is never pruned")
    net.body.load_state_dict(dict(model.state))
    spiking.configure(net, mode=model.mode, timesteps=model.timesteps)
    return net.eval()


def prunable(net: Net) -> dict[str, nn.Parameter]:
    """The weights a mask may prune, by their name in `net.body`: those of convolutions and linear layers."""
    layers = {name for name, layer in net.body.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    return {name: weight for name, weight in net.body.named_parameters() if name.removesuffix(".weight") in layers}


def norms(net: Net) -> list[nn.BatchNorm2d]:
    """Every batch norm of a network, in order."""
    return [layer for layer in net.body.modules() if isinstance(layer, nn.BatchNorm2d)]


def apply_mask(net: Net, mask: Mapping[str, Tensor]) -> None:
    """Every masked weight of `net` is zero."""
    with torch.no_grad():
        weights = prunable(net)
        for name, kept in mask.items():
            weights[name].masked_fill_(~kept, 0.0)


def _initialise(body: nn.Sequential, generator: torch.Generator | None) -> None:
    """Weights are normal: of convolutions with variance 2 / fan out, of linear layers 1 / (3 fan in), as torch's own have it.

    By its fan out, a last layer of thousands of inputs would start with logits so great that training silences channels.
    """
    with torch.no_grad():
        for layer in body.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                inputs = layer.weight[0].numel()
                fan_out = layer.weight.shape[0] * layer.weight[0, 0].numel()
                variance = 2 / fan_out if isinstance(layer, nn.Conv2d) else 1 / (3 * inputs)
                layer.weight.normal_(0.0, variance**0.5, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
