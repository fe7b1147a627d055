"""Folds what has no neurons of its own (normalisation, batch norm, average pools) into the layers that have."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from toolchain.ir import Input
from toolchain.nets import Block, Branched
from toolchain.quantize import residual
from toolchain.quantize.branched import unbranched
from toolchain.quantize.folded import Folded, normalised, opened, unsupported, vector
from toolchain.spiking import IF, V_TH_MIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from toolchain.nets import Net

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]


def fold(net: Net, shape: tuple[int, ...], masks: Mapping[str, Bools]) -> tuple[Input, list[Folded]]:
    """Return the input coding and the layers with normalisation, batch norm and average pools folded in, in float64.

    Equation: x = (p/255 - mean)/std = (m + r)/(255 std), with message m = p - offset and |r| <= 1/2 the rest of the rounded
    offset; W x + b = (W/(255 std)) m + [b + W * r/(255 std)], the bracket a map where padding cuts W at the border.
    Raises UnsupportedError, naming the submodule, for anything but Conv2d, Linear, BatchNorm2d, IF, AvgPool2d and Flatten.
    """
    mean, std = vector(net.mean), vector(net.std)
    offset = np.clip(np.rint(255 * mean), 0, 255).astype(np.int32)
    layers = _fold_chain(net, masks)
    first = layers[0]
    gain, rest = 1 / (255 * std), offset - 255 * mean
    if isinstance(first.module, nn.Conv2d):
        groups = first.module.groups
        per_output = gain.reshape(groups, -1).repeat(len(first.weight) // groups, axis=0)
        weight = first.weight * per_output[:, :, None, None]
        constant = np.broadcast_to(rest[:, None, None], shape)[None]
        correction = _convolve(constant, weight, first.module)[0]
        bias = first.bias[:, None, None] + correction
        if not any(first.module.padding):  # no border: the map is constant
            bias = bias[:, 0, 0]
    else:
        weight = first.weight * gain.repeat(shape[1] * shape[2])[None]
        bias = first.bias + weight @ rest.repeat(shape[1] * shape[2])
    layers[0] = replace(first, weight=weight, bias=bias)
    return Input(shape=(shape[0], shape[1], shape[2]), offset=offset), layers


def _fold_chain(net: Net, masks: Mapping[str, Bools]) -> list[Folded]:
    """Return the layers with batch norm and pools folded in, the input normalisation not yet."""
    layers: list[Folded] = []
    pool = 1
    given: Floats | None = None
    for name, module in net.body.named_children():
        unfinished = bool(layers) and layers[-1].threshold is None
        match module:
            case nn.Conv2d() | nn.Linear() if not unfinished:
                layers.append(_hearing(opened(name, module, pool, masks), given))
                pool, given = 1, None
            case nn.Conv2d() | nn.Linear():
                raise unsupported(layers[-1].name, f"has no spiking neurons before {name}")
            case nn.BatchNorm2d() if unfinished and isinstance(layers[-1].module, nn.Conv2d):
                layers[-1] = normalised(layers[-1], module)
            case IF() if unfinished:
                layers[-1] = replace(layers[-1], threshold=max(module.v_th.item(), V_TH_MIN), leak=module.leak)
            case Block() | Branched() if pool == 1 and layers and isinstance(layers[-1].module, nn.Conv2d):
                layers, given = _chained(name, module, layers, masks)
            case nn.AvgPool2d() if layers and not unfinished:
                pool *= _pool_of(name, module)
            case nn.Flatten() | nn.Dropout() | nn.Dropout2d() | nn.Identity():
                pass
            case _:
                raise unsupported(name, _reason(module))
    if len(layers) < 2 or layers[-1].threshold is not None or not isinstance(layers[-1].module, nn.Linear):
        raise unsupported(layers[-1].name if layers else "network", "expected a last linear layer without neurons")
    return layers


def _chained(
    name: str, module: Block | Branched, layers: list[Folded], masks: Mapping[str, Bools]
) -> tuple[list[Folded], Floats | None]:
    """Return the layers with those of a module that has branches, and a sum that it gives as of `unbranched`.

    A block begins before neurons, a part behind them.
    """
    unfinished = layers[-1].threshold is None
    match module:
        case Block() if unfinished:
            return [*layers[:-1], *residual.lowered(name, module, layers[-1], masks, image=len(layers) == 1)], None
        case Branched() if not unfinished:
            made, given = unbranched(module, len(layers[-1].weight))
            return [*layers, *made], given
    raise unsupported(name, _reason(module))


def _hearing(layer: Folded, given: Floats | None) -> Folded:
    """Return a layer as it hears a sum of spikes, by the spikes themselves. Shape: given (C of the sum, channels that are sent)."""
    if given is None:
        return layer
    if isinstance(layer.module, nn.Conv2d) and layer.module.groups > 1:
        raise unsupported(layer.name, "it hears the sum of spikes in groups; only one group can")
    by_channel = layer.weight.reshape(len(layer.weight), len(given), -1)
    weight = np.einsum("ocp,ci->oip", by_channel, given, optimize=True)
    weight = (
        weight.reshape(len(weight), given.shape[1], *layer.weight.shape[2:])
        if layer.weight.ndim == 4
        else weight.reshape(len(weight), -1)
    )
    return replace(layer, weight=weight, mask=weight != 0)


def _reason(module: nn.Module) -> str:
    match module:
        case nn.BatchNorm2d():
            return "batch norm is deployed only between a convolution and its neurons"
        case IF():
            return "spiking neurons are deployed only after a convolution or linear layer"
        case nn.AvgPool2d():
            return "an average pool is deployed only after spiking neurons"
        case Block():
            return "a residual block is deployed only behind a convolution or another block"
        case Branched():
            return "a skip connection is deployed only behind a convolution's neurons, without a pool between"
    return f"{type(module).__name__} cannot be deployed; use Conv2d, Linear, BatchNorm2d, IF, AvgPool2d or Flatten"


def _pool_of(name: str, module: nn.AvgPool2d) -> int:
    size, stride = module.kernel_size, module.stride
    sides = {*(size if isinstance(size, tuple) else (size,)), *(stride if isinstance(stride, tuple) else (stride,))}
    if len(sides) > 1 or module.padding not in (0, (0, 0)) or module.divisor_override:
        raise unsupported(name, "only square average pools without overlap, padding or own divisor can be deployed")
    return int(sides.pop())


def _convolve(image: Floats, weight: Floats, conv: nn.Conv2d) -> Floats:
    out = F.conv2d(
        torch.from_numpy(np.ascontiguousarray(image)),
        torch.from_numpy(weight),
        None,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
    )
    return np.asarray(out.numpy())
