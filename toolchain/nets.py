"""Networks as plain modules: one that is both the ANN and the SNN, built from a recipe or restored from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from toolchain import spiking
from toolchain.errors import ConfigError, FormatError
from toolchain.spiking import IF, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from toolchain.recipe import ModelSettings
    from toolchain.store import Model

Shape = tuple[int, int, int]
"""(channels, height, width)"""


class Net(nn.Module):
    """A chain of layers behind a normalisation, which is ReLU network or spiking network as its IF layers' mode says.

    `body` holds Conv2d, BatchNorm2d, IF, AvgPool2d, Flatten and Linear, by name. In mode `snn` the image is shown at each
    of T steps, and the logits are the mean over steps of the last layer's output; what precedes the first IF layer is the
    same at every step and computed once, so that its batch statistics are those of B images.

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
        self._first = next(index for index, layer in enumerate(body) if isinstance(layer, IF))

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
        layers = list(self.body)
        x = (images - self.mean[:, None, None]) / self.std[:, None, None]
        for layer in layers[: self._first]:
            x = layer(x)
        if self.mode == "snn":
            x = x.repeat(self.timesteps, *[1] * (x.ndim - 1))
        for layer in layers[self._first :]:
            x = layer(x)
        return x.reshape(self.timesteps, len(images), -1).mean(dim=0) if self.mode == "snn" else x


def build(
    settings: ModelSettings,
    input_shape: Shape,
    n_classes: int,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    generator: torch.Generator | None = None,
) -> Net:
    """A freshly initialised network in mode `ann`: kaiming normal (fan out) weights, zero biases, BN (1, 0).

    Raises: ConfigError where a pool does not divide its map.
    """
    body = nn.Sequential()
    with torch.random.fork_rng(devices=[]):  # torch's layers draw initial weights, which are not kept
        for name, layer in _layers(settings, input_shape, n_classes):
            body.add_module(name, layer)
    _initialise(body, generator)
    mean = (0.0,) * input_shape[0] if mean is None else mean
    std = (1.0,) * input_shape[0] if std is None else std
    return Net(body, input_shape=input_shape, mean=mean, std=std)


def _layers(settings: ModelSettings, input_shape: Shape, n_classes: int) -> Iterator[tuple[str, nn.Module]]:
    channels, height, width = input_shape
    n_convs = n_pools = 0
    for item in settings.layers:
        if isinstance(item, int):
            n_convs += 1
            padding = settings.kernel // 2
            yield f"conv{n_convs}", nn.Conv2d(channels, item, settings.kernel, padding=padding, bias=False)
            yield f"bn{n_convs}", nn.BatchNorm2d(item)
            yield f"act{n_convs}", IF()
            channels = item
        else:
            n_pools += 1
            if height % 2 or width % 2:
                fault = (
                    f"a 2x2 pool does not divide the {height}x{width} map after conv{n_convs}; crop or pad the images"
                )
                raise ConfigError(where="model.layers", faults=(fault,))
            yield f"pool{n_pools}", nn.AvgPool2d(2)
            height, width = height // 2, width // 2
    yield "flatten", nn.Flatten()
    features = channels * height * width
    for number, wide in enumerate(settings.hidden, start=1):
        yield f"linear{number}", nn.Linear(features, wide)
        yield f"act{n_convs + number}", IF()
        features = wide
    yield "readout", nn.Linear(features, n_classes)


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
    layers = {name for name, layer in net.body.named_children() if isinstance(layer, nn.Conv2d | nn.Linear)}
    return {name: weight for name, weight in net.body.named_parameters() if name.removesuffix(".weight") in layers}


def apply_mask(net: Net, mask: Mapping[str, Tensor]) -> None:
    """Every masked weight of `net` is zero."""
    with torch.no_grad():
        weights = prunable(net)
        for name, kept in mask.items():
            weights[name].masked_fill_(~kept, 0.0)


def _initialise(body: nn.Sequential, generator: torch.Generator | None) -> None:
    with torch.no_grad():
        for layer in body:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                fan_out = layer.weight.shape[0] * layer.weight[0, 0].numel()
                layer.weight.normal_(0.0, (2.0 / fan_out) ** 0.5, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
