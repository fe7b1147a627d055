"""A NIR graph in a file becomes a network of ours, or is refused by the node that cannot be had."""

from __future__ import annotations

import json
import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import nn

from toolchain import hdf5
from toolchain.adopt import Adopted, branched, chain, check_steps
from toolchain.errors import ConfigError, FormatError, UnsupportedError
from toolchain.nets.cut import Part
from toolchain.nirfile.graph import pieces
from toolchain.nirfile.library import OURS, SCHEMA, library
from toolchain.nirfile.neurons import NAMES, Neurons, neurons
from toolchain.spiking import IF

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Shape = tuple[int, int, int]

_Weighted = TypeVar("_Weighted", nn.Conv2d, nn.Linear)
_RESETS = "Neurons are taken to be reset to 0, as NIR's are; a graph does not tell that they were trained with soft resets, snnTorch's default."
_LAYERS = "Conv2d, Affine, Linear, IF, LIF, AvgPool2d, SumPool2d and Flatten"


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A network, what its graph does not say and was taken for it, and the integers that a graph of ours has beside it.

    integers: the bytes of a netx file of ours.
    """

    adopted: Adopted
    notes: tuple[str, ...]
    integers: bytes | None


def read(
    path: Path,
    shape: Shape,
    *,
    timesteps: int | None = None,
    dt: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Read:
    """Return the network of a graph, for images of shape (C, H, W).

    timesteps: steps an image; dt: seconds a step takes; mean, std: of each channel, where the graph expects normalised images. A graph
    of ours says all of these itself. Raises UnsupportedError, naming the node, for all that a chain of our layers would compute
    differently; FormatError for what is no NIR graph; ConfigError where the steps or their length are missing.
    """
    graph = _graph(path)
    ours = _ours(path, graph)
    steps = ours.get("timesteps") if timesteps is None else timesteps
    dt = ours.get("dt") if dt is None else dt
    if steps is None:
        fault = "the graph does not say how many steps an image takes; say it with --timesteps"
        raise ConfigError(where="timesteps", faults=(fault,))
    if dt is not None and not 0 < dt < math.inf:
        raise ConfigError(where="dt", faults=(f"expected seconds, more than 0, got {dt:g}",))
    made = _Chain(shape, dt=dt, timesteps=check_steps(steps))
    for piece in pieces(graph):
        if isinstance(piece, Part):
            made.take_part(piece)
        else:
            made.take(*piece)
    mean, std = mean or ours.get("mean"), std or ours.get("std")
    adopted = Adopted(net=chain(made.layers, shape, mean=mean, std=std), masks={})
    notes = () if ours else (_steps_in_words(made.dt), _images_in_words(mean, std), _RESETS)
    return Read(adopted=adopted, notes=notes, integers=ours.get("integers"))


def _graph(path: Path) -> Any:
    """Return the graph of a file. Raises FormatError for any other."""
    nir = library()
    try:
        with hdf5.opened(path, str(path)) as file:
            hdf5.check_whole(file, str(path))
        with np.errstate(all="ignore"):  # nir multiplies what a file says, whatever it is
            graph = nir.read(path, type_check=False)
    except FileNotFoundError:
        raise FormatError(path=str(path), reason="no such file") from None
    except FormatError:
        raise
    except Exception as error:  # noqa: BLE001  a hostile file can make h5py, numpy and nir raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        raise FormatError(path=str(path), reason=f"not a NIR graph ({what})") from None
    if type(graph).__name__ != "NIRGraph":
        raise FormatError(path=str(path), reason=f"a single {type(graph).__name__}, not a NIR graph")
    return graph


def _ours(path: Path, graph: Any) -> dict[str, Any]:
    """Return what a graph of ours says beside its nodes; nothing of another's. Raises FormatError."""
    if not isinstance(graph.metadata, dict) or OURS not in graph.metadata:
        return {}
    try:
        found = graph.metadata[OURS]
        said = json.loads(found["json"])
        if said["schema"] != SCHEMA:
            reason = f"schema {said['schema']} is not the {SCHEMA} this version reads; export again"
            raise FormatError(path=str(path), reason=reason)
        integers = np.asarray(found["network"]).astype(np.uint8, casting="no").tobytes()
        mean, std = ([float(value) for value in said[key]] for key in ("mean", "std"))
        steps, dt = operator.index(said["timesteps"]), float(said["dt"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        reason = f"not what rsnn-deploy writes beside a graph ({' '.join(str(error).split())}); export again"
        raise FormatError(path=str(path), reason=reason) from None
    return {"timesteps": steps, "dt": dt, "mean": mean, "std": std, "integers": integers}


class _Chain:
    """Layers made of nodes so far; `scale` is what sums over pools, instead of means, make of the next weights.

    channels: of the neurons taken last.
    """

    def __init__(self, shape: Shape, *, dt: float | None, timesteps: int) -> None:
        self.layers: dict[str, nn.Module] = {}
        self.dt: float | None = None
        self._shape, self._given, self._timesteps = shape, dt, timesteps
        self._weights: nn.Conv2d | nn.Linear | None = None
        self._scale = 1.0
        self._channels = 0

    def take(self, name: str, node: Any) -> None:
        """The layer of a node stands behind the others. Raises UnsupportedError, ConfigError."""
        kind = type(node).__name__
        made: nn.Module
        if kind == "Input":
            self._compare(name, node)
        if kind in {"Input", "Output"}:
            return
        if kind in NAMES:
            made = self._neurons(name, node)
        elif kind == "Conv2d":
            made = _conv(name, node, self._scale)
        elif kind in {"Affine", "Linear"}:
            made = _linear(name, node, self._scale)
        elif kind in {"AvgPool2d", "SumPool2d"}:
            height, width = _pair(name, node, "kernel_size")
            made = nn.AvgPool2d((height, width), _pair(name, node, "stride"), _pair(name, node, "padding"))
            self._scale *= height * width if kind == "SumPool2d" else 1
        elif kind == "Flatten":
            made = _flatten(name, node)
        else:
            raise _unsupported(name, f"{kind} cannot be deployed; nodes are {_LAYERS}")
        if isinstance(made, nn.Conv2d | nn.Linear):
            if isinstance(made, nn.Linear) and not self.layers:
                self.layers["flatten_images"] = nn.Flatten()
            self._weights, self._scale = made, 1.0
        self.layers[name] = made

    def take_part(self, part: Part) -> None:
        """The layers of a part with branches stand behind the others, as one by the name of its last, or of their sum. Raises UnsupportedError, ConfigError."""
        layers: dict[str, nn.Module] = {}
        sources: dict[str, tuple[str, ...]] = {}
        channels = {part.begin: self._channels}
        for name, node in part.nodes.items():
            kind = type(node).__name__
            heard = part.sources[name]
            channels[name] = channels[part.sources[name][0]]
            if kind == "Conv2d":
                layers[name] = _conv(name, node, 1.0)
                channels[name] = len(layers[name].weight)
            elif kind in NAMES:
                found, fired = self._fired(name, node, channels[name])
                if (found.gains != 1).any():
                    gained = f"{name}.gain"
                    layers[gained], sources[gained], heard = _gain(found.gains), heard, (gained,)
                layers[name] = fired
            else:
                raise _unsupported(
                    name,
                    f"{kind} cannot be deployed between the ends of a skip connection; only Conv2d, IF and LIF can",
                )
            sources[name] = heard
        name, made = branched(part, layers, sources)
        self.layers[name] = made
        self._channels = channels[part.ends[0] if part.ends else name]

    def _compare(self, name: str, node: Any) -> None:
        """Refuse a graph whose first node takes no images of the data's shape, be they flat or in a batch of one."""
        said = (node.input_type or {}).get("input")
        shape = () if said is None else tuple(np.atleast_1d(said).reshape(-1)[:64].tolist())
        if self.layers or not shape or shape == (math.prod(self._shape),):
            return
        if _without_ones(shape) != _without_ones(self._shape):
            raise _unsupported(name, f"it takes {shape}, where the images are {self._shape}")

    def _neurons(self, name: str, node: Any) -> IF:
        if self._weights is None:
            raise _unsupported(
                name, "no weights lead to it; spiking neurons are deployed only behind a Conv2d or Affine"
            )
        layer, self._weights = self._weights, None
        self._channels = len(layer.weight)
        found, made = self._fired(name, node, self._channels)
        with torch.no_grad():
            gains = torch.from_numpy(found.gains)
            for values in layer.parameters():
                values.copy_(values.double() * gains.reshape(-1, *[1] * (values.ndim - 1)))
        return made

    def _fired(self, name: str, node: Any, channels: int) -> tuple[Neurons, IF]:
        found = neurons(name, node, channels, self._given)
        self.dt = found.dt or self.dt
        made = IF(v_th=found.v_th, timesteps=self._timesteps, leak=found.leak)
        made.mode = "snn"
        return found, made


def _gain(gains: Floats) -> nn.Conv2d:
    """Return what multiplies each channel."""
    made = nn.Conv2d(len(gains), len(gains), 1, groups=len(gains), bias=False)
    made.weight = nn.Parameter(torch.from_numpy(gains).float().reshape(-1, 1, 1, 1))
    return made


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its leading ones."""
    return shape[next((index for index, extent in enumerate(shape) if extent != 1), len(shape)) :]


def _conv(name: str, node: Any, scale: float) -> nn.Conv2d:
    weight, groups = _numbers(name, node, "weight"), _whole(name, node, "groups")
    if weight.ndim != 4 or groups < 1 or len(weight) % groups:
        raise _unsupported(name, f"its weight has shape {weight.shape} in {groups} groups")
    dilation = _pair(name, node, "dilation")
    made = nn.Conv2d(
        weight.shape[1] * groups,
        len(weight),
        (weight.shape[2], weight.shape[3]),
        stride=_pair(name, node, "stride"),
        padding=_padding(name, node, weight, dilation),
        dilation=dilation,
        groups=groups,
        device="meta",
    )
    return _holding(name, made, weight * scale, _numbers(name, node, "bias"))


def _linear(name: str, node: Any, scale: float) -> nn.Linear:
    weight = _numbers(name, node, "weight")
    if weight.ndim != 2:
        raise _unsupported(name, f"its weight has shape {weight.shape}; only matrices can be deployed")
    bias = _numbers(name, node, "bias") if type(node).__name__ == "Affine" else np.zeros(len(weight))
    return _holding(name, nn.Linear(weight.shape[1], len(weight), device="meta"), weight * scale, bias)


def _holding(name: str, layer: _Weighted, weight: Floats, bias: Floats) -> _Weighted:
    """The layer with these weights, which were never drawn."""
    if bias.shape != (len(weight),):
        raise _unsupported(name, f"its bias has shape {bias.shape} for {len(weight)} channels")
    layer.weight, layer.bias = (nn.Parameter(torch.from_numpy(values).float()) for values in (weight, bias))
    return layer


def _padding(name: str, node: Any, weight: Floats, dilation: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(node.padding, str):
        return _pair(name, node, "padding")
    if node.padding == "valid":
        return 0, 0
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if node.padding != "same" or any(n % 2 for n in reach) or _pair(name, node, "stride") != (1, 1):
        raise _unsupported(name, f"its padding is {node.padding!r} for a kernel of {weight.shape[2:]}; give numbers")
    return reach[0] // 2, reach[1] // 2


def _flatten(name: str, node: Any) -> nn.Flatten:
    """Return what flattens everything; a graph counts the batch among its dimensions or not."""
    start, end = _whole(name, node, "start_dim"), _whole(name, node, "end_dim")
    shape = (node.input_type or {}).get("input")
    last = {-1} if shape is None else {-1, len(np.atleast_1d(shape)) - 1}
    if start not in {0, 1} or end not in last:
        raise _unsupported(name, f"it flattens dimensions {start} to {end}; only all of them can be")
    return nn.Flatten()


def _numbers(name: str, node: Any, key: str) -> Floats:
    values = np.asarray(getattr(node, key))
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all() or not values.size:
        raise _unsupported(name, f"its {key} is not of finite numbers")
    return values.astype(np.float64)


def _whole(name: str, node: Any, key: str) -> int:
    values = np.asarray(getattr(node, key))
    if values.dtype.kind not in "iu" or values.size != 1:
        raise _unsupported(name, f"its {key} is {_some(values)}; expected a whole number")
    return int(values.item())


def _pair(name: str, node: Any, key: str) -> tuple[int, int]:
    values = np.asarray(getattr(node, key))
    if values.dtype.kind not in "iu" or values.size not in {1, 2} or (values < 0).any():
        raise _unsupported(name, f"its {key} is {_some(values)}; expected one whole number, or two")
    y, x = np.broadcast_to(values.reshape(-1), 2).tolist()
    return y, x


def _some(values: npt.NDArray[Any]) -> str:
    """Return a few values as they are, and of others how many there are."""
    return str(values.tolist()) if values.size < 9 else f"{values.size:,} values"


def _steps_in_words(dt: float | None) -> str:
    if dt is None:
        return "Neurons integrate what they are given at each step, whatever its length."
    return f"A step takes {dt:g} seconds; neurons of the graph are read by forward Euler."


def _images_in_words(mean: Sequence[float] | None, std: Sequence[float] | None) -> str:
    if mean is None and std is None:
        return "The graph is taken to see pixels of [0, 1], the same image at each step."
    return f"The graph is taken to see pixels of [0, 1] less {list(mean or [0])}, over {list(std or [1])}, the same image at each step."


def _unsupported(where: str, reason: str) -> UnsupportedError:
    return UnsupportedError(where=where, reason=reason)
