"""Somebody else's network becomes one of ours: a module of torch, with neurons of ours, SpikingJelly's or snnTorch's.

Equation: what is deployed computes, at each of T steps, every layer of the module in order on the image (p/255 - mean)/std,
the same at each step; its logits are the sums over steps of the last layer's output, be it a linear layer's or spikes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from toolchain.adopt.graph import KINDS, pieces
from toolchain.adopt.neurons import adopted, is_neuron
from toolchain.errors import ConfigError, UnsupportedError
from toolchain.ir import COUNTED_MAX, NEURONS_MAX, TIMESTEPS_MAX
from toolchain.nets import Branched, Net
from toolchain.nets.branched import SPIKES
from toolchain.nets.cut import Part
from toolchain.spiking import IF

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Shape = tuple[int, int, int]

__all__ = ["COUNTS", "Adopted", "adopt", "branched", "chain", "check_steps"]

COUNTS = "spike_counts"
"""Name of the readout that is added where the last layer spikes: its weights are the identity."""
_LAYERS = "Conv2d, Linear, BatchNorm2d, AvgPool2d, Flatten, Dropout, our IF, IFNode and Leaky"
_HINTS = {
    "MaxPool2d": "it takes the greatest of spikes, which no synapse does; train with AvgPool2d",
    "ReLU": "it does not spike; put spiking neurons in its place",
    "Flatten": "only Flatten() from the first dimension to the last can be deployed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A network of ours in mode `snn`, and the masks of its layers that are pruned by `torch.nn.utils.prune`."""

    net: Net
    masks: dict[str, Bools]


def adopt(
    module: nn.Module,
    shape: Shape,
    *,
    timesteps: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Adopted:
    """Return a network that computes what layers of a module do, weights copied, for images of shape (C, H, W).

    timesteps: steps an image, by default those of the module's own IF layers; mean, std: of each channel, in pixels of
    [0, 1], where the module expects normalised images. Raises UnsupportedError, which names the layer by its dotted path.
    """
    if isinstance(module, Net):
        return Adopted(net=module, masks={})
    ran = pieces(module)
    steps = check_steps(_timesteps(ran) if timesteps is None else timesteps)
    made: dict[str, nn.Module] = {}
    masks: dict[str, Bools] = {}

    def taken(path: str, layer: nn.Module) -> nn.Module:
        if (mask := getattr(layer, "weight_mask", None)) is not None:
            masks[path] = mask.detach().cpu().numpy() != 0
        return adopted(path, layer, steps) if is_neuron(layer) else _copied(path, layer)

    for piece in ran:
        if isinstance(piece, Part):
            layers = {path: taken(path, layer) for path, layer in piece.nodes.items()}
            name, part = branched(piece, layers, piece.sources)
            made[name] = part
        else:
            made[piece[0]] = taken(*piece)
    net = chain(made, shape, mean=mean, std=std)
    return Adopted(net=net, masks=masks)


def chain(
    made: Mapping[str, nn.Module],
    shape: Shape,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Net:
    """Return the network of layers by name, each given a map it takes; spikes at its end are counted by a readout."""
    if not any(isinstance(layer, IF) for layer in made.values()):
        raise UnsupportedError(where="network", reason=f"it has no spiking neurons; layers are {_LAYERS}")
    mean = (0.0,) * shape[0] if mean is None else mean
    std = (1.0,) * shape[0] if std is None else std
    if len(mean) != shape[0] or len(std) != shape[0]:
        fault = f"expected {shape[0]} numbers each, one a channel, got {len(mean)} and {len(std)}"
        raise ConfigError(where="mean and std", faults=(fault,))
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        fault = f"expected finite numbers, and a std greater than 0, got {list(mean)} and {list(std)}"
        raise ConfigError(where="mean and std", faults=(fault,))
    n_outputs = _n_outputs(made, shape)
    if isinstance(list(made.values())[-1], IF | Branched):
        if n_outputs > COUNTED_MAX:
            reason = f"its {n_outputs:,} neurons are the last, and spikes of {COUNTED_MAX:,} can be counted; end with a Linear layer"
            raise UnsupportedError(where=list(made)[-1], reason=reason)
        counts = _holding(nn.Linear(n_outputs, n_outputs, bias=False, device="meta"), torch.eye(n_outputs))
        made = {**made, "flatten_spikes": nn.Flatten(), COUNTS: counts}
    body = nn.Sequential()
    for path, layer in made.items():
        inside = layer.names if isinstance(layer, Branched) else ()
        if hasattr(body, path) or not all(re.fullmatch(r"\w[\w.\-]*", name) for name in (path, *inside)):
            raise UnsupportedError(where=path, reason="a layer cannot have this name")
        setattr(body, path, layer)  # add_module would refuse the dots of a path
    return Net(body, input_shape=shape, mean=mean, std=std).eval()


def branched(
    part: Part, layers: Mapping[str, nn.Module], sources: Mapping[str, tuple[str, ...]]
) -> tuple[str, Branched]:
    """Return the layers of a part as one, and its name: that of its last layer, or of the sum that it gives."""

    def named(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(SPIKES if name == part.begin else name for name in names)

    heard = {name: named(names) for name, names in sources.items()}
    if part.ends:
        name = f"{part.begin}.sum"
        return name, Branched({**layers, name: nn.Identity()}, {**heard, name: named(part.ends)})
    return list(layers)[-1], Branched(layers, heard)


def check_steps(timesteps: int) -> int:
    """Return how many steps an image takes. Raises ConfigError where those are none, or more than any image needs."""
    if not 1 <= timesteps <= TIMESTEPS_MAX:
        raise ConfigError(where="timesteps", faults=(f"expected 1 to {TIMESTEPS_MAX:,}, got {timesteps:,}",))
    return timesteps


def _timesteps(ran: list[tuple[str, nn.Module] | Part]) -> int:
    layers = [layer for piece in ran for layer in (piece.nodes.values() if isinstance(piece, Part) else piece[1:])]
    own = {layer.timesteps for layer in layers if isinstance(layer, IF)}
    if len(own) != 1:
        fault = "say how many steps an image takes" + (f"; its neurons say {sorted(own)}" if own else "")
        raise ConfigError(where="timesteps", faults=(fault,))
    return own.pop()


def _copied(path: str, layer: nn.Module) -> nn.Module:
    """Return a layer of torch's own with the same weights, its masks applied. Raises UnsupportedError for another."""
    kind = next((kind for kind in KINDS if isinstance(layer, kind)), None)
    name, library = type(layer).__name__, type(layer).__module__.partition(".")[0]
    if kind and type(layer).forward is not kind.forward and library != "spikingjelly":
        reason = f"{name} has a forward of its own; only {kind.__name__}'s can be deployed"
        raise UnsupportedError(where=path, reason=reason)
    if isinstance(layer, nn.Identity | nn.Dropout | nn.Dropout2d) or (library, name) == ("spikingjelly", "Dropout"):
        return nn.Identity()
    match layer:
        case nn.Conv2d():
            return _holding(_conv(layer), layer.weight, layer.bias)
        case nn.Linear():
            empty = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
            return _holding(empty, layer.weight, layer.bias)
        case nn.BatchNorm2d():
            return _norm(path, layer)
        case nn.AvgPool2d():
            return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, divisor_override=layer.divisor_override)
        case nn.Flatten() if (layer.start_dim, layer.end_dim) == (1, -1):
            return nn.Flatten()
    raise UnsupportedError(where=path, reason=_HINTS.get(name, f"{name} cannot be deployed; layers are {_LAYERS}"))


def _conv(layer: nn.Conv2d) -> nn.Conv2d:
    return nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        stride=layer.stride,  # type: ignore[arg-type]
        padding=layer.padding,  # type: ignore[arg-type]
        dilation=layer.dilation,  # type: ignore[arg-type]
        groups=layer.groups,
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
        device="meta",
    )


def _norm(path: str, layer: nn.BatchNorm2d) -> nn.BatchNorm2d:
    if layer.running_mean is None or layer.running_var is None:
        raise UnsupportedError(where=path, reason="it keeps no running statistics to fold")
    made = nn.BatchNorm2d(layer.num_features, eps=layer.eps, affine=layer.affine)
    made.running_mean, made.running_var = _held(layer.running_mean), _held(layer.running_var)
    return _holding(made, layer.weight, layer.bias) if layer.affine else made


_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear, nn.BatchNorm2d)


def _holding(layer: _Layer, weight: torch.Tensor, bias: torch.Tensor | None = None) -> _Layer:
    """The layer with these weights in the place of its own, which were never drawn."""
    layer.weight = nn.Parameter(_held(weight))
    if bias is not None:
        layer.bias = nn.Parameter(_held(bias))
    return layer


def _held(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().float().clone()


def _n_outputs(made: Mapping[str, nn.Module], shape: Shape) -> int:
    """Return the neurons of the last layer. Raises UnsupportedError naming a layer that does not take what it is given."""
    x = torch.zeros(1, *shape)
    with torch.no_grad():
        for path, layer in made.items():
            x = _passed(path, layer, x)
    return x[0].numel()


def _passed(path: str, layer: nn.Module, *heard: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the shape that a layer gives, of the sum of those that it hears."""
    if len({x.shape for x in heard}) > 1:
        shapes = " and ".join(str(tuple(x.shape[1:])) for x in heard)
        raise UnsupportedError(where=path, reason=f"it hears a sum of different shapes, {shapes}")
    if isinstance(layer, Branched):
        return layer.through(heard[0], _passed)
    if (n := _n_neurons(layer, heard[0].shape)) > NEURONS_MAX:
        raise UnsupportedError(where=path, reason=f"it gives {n:,} values, where {NEURONS_MAX:,} are the most")
    try:
        return heard[0] if isinstance(layer, IF) else layer.eval()(heard[0])
    except RuntimeError:
        reason = f"it does not take the {tuple(heard[0].shape[1:])} it is given; {_taken(layer)}"
        raise UnsupportedError(where=path, reason=reason) from None


def _taken(layer: nn.Module) -> str:
    """Return what a layer takes, in words of ours: those of torch change with its version."""
    match layer:
        case nn.Linear():
            return f"it takes {layer.in_features:,} values"
        case nn.Conv2d():
            return f"it takes maps of {layer.in_channels:,} channels and at least the size of its window"
        case nn.BatchNorm2d():
            return f"it takes maps of {layer.num_features:,} channels"
    return "it takes maps of at least the size of its window, which moves"


def _n_neurons(layer: nn.Module, source: torch.Size) -> int:
    """Return how many values a window that moves over a map gives; 0 of a layer that has none, or cannot move."""
    if not isinstance(layer, nn.Conv2d | nn.AvgPool2d) or len(source) != 4 or isinstance(layer.padding, str):
        return 0
    sides = (_pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding), _pair(getattr(layer, "dilation", 1)))
    channels = layer.out_channels if isinstance(layer, nn.Conv2d) else source[1]
    extents = (
        (n + 2 * pad - apart * (side - 1) - 1) // step + 1 if step else 0
        for n, side, step, pad, apart in zip(source[2:], *sides, strict=True)
    )
    return channels * math.prod(max(extent, 0) for extent in extents)


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value, value)
