"""A network of ours as a NIR graph: the float SNN as its nodes, the integers beside them."""

from __future__ import annotations

import io
import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from toolchain.errors import UnsupportedError
from toolchain.nirfile.library import DT, OURS, SCHEMA, V_TH, library
from toolchain.quantize.folded import normalised, opened
from toolchain.spiking import IF, V_TH_MIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from toolchain.nets import Net
    from toolchain.quantize.folded import Folded

    Bools = npt.NDArray[np.bool_]


def write(net: Net, masks: Mapping[str, Bools], integers: bytes) -> bytes:
    """Return the bytes of a graph of a float SNN: a chain in mode `snn`, its batch norms folded.

    masks: of pruned layers, by name. integers: the netx file that was made of the network, which the graph's metadata hold. The graph
    takes images normalised by mean and std, which are there too. The same network gives the same bytes.
    Raises UnsupportedError naming a layer that NIR has no node for, such as a residual block, and ConfigError without the library nir.
    """
    nir = library()
    nodes = _nodes(nir, net, masks)
    said = {
        "schema": SCHEMA,
        "timesteps": net.timesteps,
        "dt": DT,
        "mean": net.mean.tolist(),
        "std": net.std.tolist(),
        "input": "(pixel / 255 - mean) / std, the same at each of the timesteps",
        "network": "a netx file of rsnn-deploy: the integer network made of these nodes",
    }
    names = list(nodes)
    metadata = {OURS: {"json": json.dumps(said, sort_keys=True), "network": np.frombuffer(integers, dtype=np.uint8)}}
    graph = nir.NIRGraph(nodes=nodes, edges=list(itertools.pairwise(names)), metadata=metadata, type_check=False)
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    return buffer.getvalue()


def _nodes(nir: Any, net: Net, masks: Mapping[str, Bools]) -> dict[str, Any]:
    """Return the nodes by name, in order."""
    nodes: dict[str, Any] = {"input": nir.Input(input_type=np.array(net.input_shape))}
    shape: tuple[int, ...] = net.input_shape
    waiting: Folded | None = None

    def put() -> None:
        """The weights that wait for their batch norm stand among the nodes."""
        nonlocal waiting, shape
        if waiting:
            nodes[waiting.name], shape = _weighted(nir, waiting, shape)
            waiting = None

    for name, module in net.body.named_children():
        match module:
            case nn.Conv2d() | nn.Linear():
                put()
                waiting = opened(name, module, 1, masks)
            case nn.BatchNorm2d() if waiting:
                waiting = normalised(waiting, module)
            case IF() if waiting:
                put()
                nodes[name] = _spiking(nir, module, shape)
            case nn.AvgPool2d():
                sides = [_pair(value) for value in (module.kernel_size, module.stride, module.padding)]
                nodes[name] = nir.AvgPool2d(*(np.array(side) for side in sides))
                shape = _passed(module, shape)
            case nn.Flatten():
                nodes[name] = nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0)
                shape = (math.prod(shape),)
            case nn.Dropout() | nn.Dropout2d() | nn.Identity():
                pass
            case _:
                reason = f"NIR has no node for {type(module).__name__} where it stands"
                raise UnsupportedError(where=name, reason=reason, remedy="Export without --nir")
    put()
    nodes["output"] = nir.Output(output_type=np.array(shape))
    return nodes


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
