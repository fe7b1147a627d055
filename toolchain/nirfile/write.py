"""A network of ours as a NIR graph: the float SNN as its nodes, the integers beside them."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from toolchain.errors import UnsupportedError
from toolchain.nets import Block, Branched
from toolchain.nets.branched import SPIKES
from toolchain.nirfile.library import DT, OURS, SCHEMA, V_TH, library
from toolchain.quantize.folded import normalised, opened
from toolchain.spiking import IF, V_TH_MIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from toolchain.nets import Net
    from toolchain.quantize.folded import Folded

    Bools = npt.NDArray[np.bool_]
    Shape = tuple[int, ...]


def write(net: Net, masks: Mapping[str, Bools], integers: bytes) -> bytes:
    """Return the bytes of a graph of a float SNN: in mode `snn`, its batch norms folded.

    masks: of pruned layers, by name. integers: the netx file that was made of the network, which the graph's metadata hold. The graph
    takes images normalised by mean and std, which are there too. The same network gives the same bytes.
    A block's weighted sum is in the weights of its last convolutions, and convolutions of 1x1 are what remains of it and of its batch norms.
    Raises UnsupportedError naming a layer that NIR has no node for, and ConfigError without the library nir.
    """
    nir = library()
    made = _Graph(nir, net.input_shape, masks)
    for name, module in net.body.named_children():
        made.take(name, module)
    made.end()
    said = {
        "schema": SCHEMA,
        "timesteps": net.timesteps,
        "dt": DT,
        "mean": net.mean.tolist(),
        "std": net.std.tolist(),
        "input": "(pixel / 255 - mean) / std, the same at each of the timesteps",
        "network": "a netx file of rsnn-deploy: the integer network made of these nodes",
    }
    metadata = {OURS: {"json": json.dumps(said, sort_keys=True), "network": np.frombuffer(integers, dtype=np.uint8)}}
    graph = nir.NIRGraph(nodes=made.nodes, edges=made.edges, metadata=metadata, type_check=False)
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    return buffer.getvalue()


class _Graph:
    """Nodes and edges so far. heads: the nodes whose sum comes next; waiting: a layer whose batch norm may follow."""

    def __init__(self, nir: Any, shape: Shape, masks: Mapping[str, Bools]) -> None:
        self.nodes: dict[str, Any] = {"input": nir.Input(input_type=np.array(shape))}
        self.edges: list[tuple[str, str]] = []
        self._nir, self._masks = nir, masks
        self._heads: tuple[str, ...] = ("input",)
        self._shape = shape
        self._waiting: Folded | None = None
        self._sums = False  # whether the heads are sums that neurons are to hear

    def take(self, name: str, module: nn.Module) -> None:
        """The nodes of a layer stand behind the others. Raises UnsupportedError."""
        match module:
            case nn.Conv2d() | nn.Linear():
                self._put()
                self._waiting = opened(name, module, 1, self._masks)
            case nn.BatchNorm2d() if self._waiting or self._sums:
                self._norm(name, module)
            case IF() if self._waiting or self._sums:
                self._put()
                self._add(name, _spiking(self._nir, module, self._shape), self._shape)
                self._sums = False
            case Block() if self._waiting or self._sums:
                self._block(name, module)
            case Branched():
                self._put()
                self._branched(module)
            case nn.AvgPool2d():
                sides = [_pair(value) for value in (module.kernel_size, module.stride, module.padding)]
                node = self._nir.AvgPool2d(*(np.array(side) for side in sides))
                self._add(name, node, _passed(module, self._shape))
            case nn.Flatten():
                node = self._nir.Flatten(input_type={"input": np.array(self._shape)}, start_dim=0)
                self._add(name, node, (math.prod(self._shape),))
            case nn.Dropout() | nn.Dropout2d() | nn.Identity():
                pass
            case _:
                reason = f"NIR has no node for {type(module).__name__} where it stands"
                raise UnsupportedError(where=name, reason=reason, remedy="Export without --nir")

    def end(self) -> None:
        """The graph has its output."""
        self._put()
        self._add("output", self._nir.Output(output_type=np.array(self._shape)), self._shape)

    def _add(self, name: str, node: Any, shape: Shape) -> None:
        self.nodes[name] = node
        self.edges += [(head, name) for head in self._heads]
        self._heads, self._shape = (name,), shape

    def _put(self) -> None:
        """The weights that wait for their batch norm stand among the nodes."""
        if self._waiting:
            layer, self._waiting = self._waiting, None
            self._add(layer.name, *_weighted(self._nir, layer, self._shape))
            self._sums = True

    def _norm(self, name: str, norm: nn.BatchNorm2d) -> None:
        """A batch norm is in the weights before it, or, of a sum, a node of its own."""
        self._waiting = normalised(self._waiting or self._each(name, 1.0), norm)

    def _each(self, name: str, factor: float) -> Folded:
        """Return the layer that multiplies each channel: of one group, for nir checks no others."""
        channels = self._shape[0]
        conv = nn.Conv2d(channels, channels, 1, bias=False)
        conv.weight = nn.Parameter(factor * torch.eye(channels)[:, :, None, None])
        return opened(name, conv, 1, {})

    def _block(self, name: str, block: Block) -> None:
        begins = block.shortcut is not None
        if not begins:
            self._put()  # what the block hears is heard by its shortcut too
        stream, shape = self._heads, self._shape
        self.take(f"{name}.bn1", block.bn1)
        self.take(f"{name}.act1", block.act1)
        first, before, mix = self._heads, self._shape, block.mix.tolist()
        for part, layer in (("conv1", block.conv1), ("bn2", block.bn2), ("act2", block.act2)):
            self.take(f"{name}.{part}", layer)
        rest = opened(f"{name}.conv2", block.conv2, 1, self._masks)
        self._waiting = replace(rest, weight=rest.weight * mix[1])
        self._put()
        ends, after = self._heads, self._shape
        self._heads, self._shape = (first, before) if begins else (stream, shape)
        if block.shortcut is not None:
            short = opened(f"{name}.shortcut", block.shortcut, 1, self._masks)
            self._waiting = replace(short, weight=short.weight * mix[0])
        else:
            self._waiting = self._each(f"{name}.skip", mix[0])
        self._put()
        self._heads, self._shape = (*ends, *self._heads), after

    def _branched(self, part: Branched) -> None:
        heads, shapes = {SPIKES: self._heads}, {SPIKES: self._shape}
        for name, layer in part.named_layers():
            sources = part.sources[name]
            self._heads, self._shape = tuple(head for source in sources for head in heads[source]), shapes[sources[0]]
            self._sums = True
            self.take(name, layer)
            self._put()
            heads[name], shapes[name] = self._heads, self._shape
        self._sums = False


def _weighted(nir: Any, layer: Folded, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """Return the node of a layer's weights, and the shape of what it gives."""
    module = layer.module
    weight, bias = layer.weight.astype(np.float32), layer.bias.astype(np.float32)
    after = _passed(module, shape)
    if isinstance(module, nn.Linear):
        return nir.Affine(weight=weight, bias=bias), after
    made = nir.Conv2d(
        input_shape=np.array(shape[1:]),
        weight=weight,
        stride=np.array(_pair(module.stride)),
        padding=np.array(_pair(module.padding)),
        dilation=np.array(_pair(module.dilation)),
        groups=module.groups,
        bias=bias,
    )
    return made, after


def _spiking(nir: Any, module: IF, shape: tuple[int, ...]) -> Any:
    """Return the node of spiking neurons: strictly above its threshold means at ours."""
    v_th = np.float32(max(module.v_th.item(), V_TH_MIN))
    common = {
        "v_threshold": np.full(shape, np.nextafter(v_th, np.float32(0))),
        "v_reset": np.zeros(shape, dtype=np.float32),
        "metadata": {V_TH: np.array([v_th])},
    }
    if not module.leak:
        return nir.IF(r=np.full(shape, 1 / DT), **common)
    tau, r = (np.full(shape, value / module.leak) for value in (DT, 1.0))
    return nir.LIF(tau=tau, r=r, v_leak=np.zeros(shape), **common)


def _passed(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of what a layer gives."""
    with torch.no_grad():
        return tuple(module(torch.zeros(1, *shape)).shape[1:])


def _pair(value: Any) -> tuple[int, int]:
    y, x = value if isinstance(value, tuple) else (value, value)
    return int(y), int(x)
