"""Network and Mapping to a netx HDF5 file and back; the only module that knows netx's key names and axis orders.

The group `layer` is what stock `lava.lib.dl.netx.hdf5.Network` loads. netx has no pools, so there a pool's kernel is
spread: w -> kron(w, ones(q, q)), stride and padding times q. The root groups `mapping` and `meta` are ours; with them
`read` restores the network unspread. Identical content gives an identical file.
Source: lava-dl 0.6.0, lava/lib/dl/netx/hdf5.py.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from toolchain.errors import ConfigError, FormatError, UnsupportedError
from toolchain.ir import AnyLayer, Conv, Dense, Input, Layer, Network, Neuron, Readout, Shape
from toolchain.placement import Core, Mapping

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingABC
    from pathlib import Path

    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Ints = npt.NDArray[np.integer[Any]]

SCHEMA = 1
READOUT_THETA = 131_072
"""The readout must not spike; its logits are read from its synapses, so that they hold even where v saturates."""
_MAX_DATASET_BYTES = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What a netx file of ours holds: the integer network, where it sits, and what it was made from.

    masks: per layer name, the trained mask (True: a synapse), of the shape of the layer's weight; a weight inside it may
    still have rounded to zero. facts: JSON-able facts about the model, profile and input coding.
    """

    network: Network
    mapping: Mapping
    masks: MappingABC[str, Bools]
    facts: dict[str, Any] = field(default_factory=dict)


def pack(deployment: Deployment) -> bytes:
    """Return the bytes of the netx file. Raises UnsupportedError where stock netx would compute something else."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=False) as file:
        _write_layers(file.create_group("layer"), deployment.network)
        _write_mapping(file.create_group("mapping"), deployment.mapping)
        _write_meta(file.create_group("meta"), deployment)
    return buffer.getvalue()


def read(path: Path) -> Deployment:
    """Return what `pack` packed. Raises FormatError for anything else."""
    try:
        with h5py.File(path, "r") as file:
            meta = json.loads(bytes(_array(file, "meta/json")).decode())
            if meta["schema"] != SCHEMA:
                reason = f"schema {meta['schema']} of network.net is not the {SCHEMA} this version reads; export again"
                raise FormatError(path=str(path), reason=reason)
            network = _read_network(file, meta)
            masks = {
                layer.name: np.unpackbits(_array(file, f"meta/masks/{layer.name}"), count=layer.weight.size)
                .astype(bool)
                .reshape(layer.weight.shape)
                for layer in network.chain
            }
            return Deployment(network=network, mapping=_read_mapping(file), masks=masks, facts=meta["facts"])
    except FileNotFoundError:
        raise FormatError(path=str(path), reason="no such file; make it with `rsnn-deploy export`") from None
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, ConfigError, zlib.error) as error:
        reason = f"not a netx file written by rsnn-deploy export ({type(error).__name__}: {error})"
        raise FormatError(path=str(path), reason=reason) from None


def spread(layer: AnyLayer, source: Shape) -> Ints:
    """Return the layer's weight as netx needs it, without a pool.

    Shapes: conv (Cout, Cin/g, q * (d * (kh-1) + 1), ...) for a pool q > 1; dense (out, C * H * W).
    """
    q, weight = layer.pool, layer.weight
    if q == 1:
        return weight
    if isinstance(layer, Conv):
        return np.kron(_dilated(layer), np.ones((1, 1, q, q), dtype=np.int32))
    channels, height, width = source
    cells = weight.reshape(len(weight), channels, height // q, width // q)
    return cells.repeat(q, axis=2).repeat(q, axis=3).reshape(len(weight), -1)


def _dilated(layer: Conv) -> Ints:
    """Return the kernel with its dilation written out as zeros: a spread kernel cannot be dilated."""
    (dy, dx), (kh, kw) = layer.dilation, layer.weight.shape[2:]
    out = np.zeros((*layer.weight.shape[:2], dy * (kh - 1) + 1, dx * (kw - 1) + 1), dtype=np.int32)
    out[:, :, ::dy, ::dx] = layer.weight
    return out


def _write_layers(group: h5py.Group, network: Network) -> None:
    index = 0

    def add(kind: str) -> h5py.Group:
        nonlocal index
        entry = group.create_group(str(index))
        # netx decodes the first element of `type`.
        entry["type"] = np.array([kind.encode()])
        index += 1
        return entry

    add("input")["shape"] = np.array(network.input.shape)
    flat = False
    for layer, source, shape in network.wired():
        weight = spread(layer, source)
        if isinstance(layer, Conv):
            if flat:
                raise UnsupportedError(
                    where=layer.name,
                    reason="netx takes no convolution after a dense layer",
                    remedy="Use a dense layer in its place",
                )
            entry, q = add("conv"), layer.pool
            entry["shape"] = np.array(shape)
            entry["stride"] = np.array(layer.stride) * q
            entry["padding"] = np.array(layer.padding) * q
            entry["dilation"] = np.array(layer.dilation if q == 1 else (1, 1))
            entry["groups"] = layer.groups
        else:
            _check_dense(layer)
            if not flat:
                add("flatten")["shape"] = np.array([int(np.prod(source))])
            entry = add("dense")
            entry["shape"] = np.array([shape[0]])
            flat = True
        entry.create_dataset("weight", data=weight.astype(np.int16), compression="gzip")
        neuron = _readout_neuron(layer) if isinstance(layer, Readout) else layer.neuron
        entry["bias"] = neuron.bias.transpose()
        parameters = entry.create_group("neuron")
        parameters["type"] = np.array([b"CUBA"])
        parameters["vThMant"] = neuron.theta - 1
        parameters["iDecay"] = neuron.i_decay
        parameters["vDecay"] = neuron.v_decay


def _readout_neuron(layer: Readout) -> Neuron:
    return Neuron(theta=np.array(READOUT_THETA), bias=layer.bias)


def _check_dense(layer: Dense | Readout) -> None:
    """Refuse the matrices that netx's choice of weight bits and exponent changes (measured for all of -256..255)."""
    greatest, least = int(layer.weight.max()), int(layer.weight.min())
    if greatest <= 0 and -least & (-least - 1) == 0:  # 0 or a power of two
        raise UnsupportedError(
            where=layer.name,
            reason=f"netx computes a dense matrix without positive entries wrongly when its least entry is {least}",
            remedy="Use other weight bits, or train the layer so that it keeps a positive weight",
        )


def _write_mapping(group: h5py.Group, mapping: Mapping) -> None:
    facts = {name: getattr(mapping, name) for name in ("profile", "profile_sha256", "formats", "tiles")}
    group["json"] = _text(facts)
    layers = list(mapping.tiles)
    rows = [
        [layers.index(value) if name == "layer" else value for name, value in _flat_core(core).items()]
        for core in mapping.cores
    ]
    table = group.create_dataset("cores", data=np.array(rows, dtype=np.int64))
    table.attrs["columns"] = ",".join(_flat_core(mapping.cores[0]))


def _flat_core(core: Core) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in dataclasses.asdict(core).items():
        flat |= {f"{name}_start": value[0], f"{name}_stop": value[1]} if isinstance(value, tuple) else {name: value}
    return flat


def _read_mapping(file: h5py.File) -> Mapping:
    facts = json.loads(bytes(_array(file, "mapping/json")).decode())
    facts["tiles"] = {name: tuple(tile) for name, tile in facts["tiles"].items()}
    layers = list(facts["tiles"])
    names = file["mapping/cores"].attrs["columns"].split(",")
    cores = []
    for row in _array(file, "mapping/cores").tolist():
        flat = dict(zip(names, row, strict=True))
        ranges = {name: (flat.pop(f"{name}_start"), flat.pop(f"{name}_stop")) for name in ("y", "x", "channels")}
        cores.append(Core(**{**flat, **ranges, "layer": layers[flat["layer"]]}))
    return Mapping(**facts, cores=tuple(cores))


def _write_meta(group: h5py.Group, deployment: Deployment) -> None:
    network = deployment.network
    group["json"] = _text(
        {
            "schema": SCHEMA,
            "timesteps": network.timesteps,
            "input": {
                "shape": network.input.shape,
                "offset": network.input.offset.tolist(),
                "bits": network.input.bits,
                "coding": "message = pixel - offset[channel], the same at each of the T steps",
            },
            "layers": [
                {
                    "name": layer.name,
                    "kind": type(layer).__name__.lower(),
                    "pool": layer.pool,
                    "weight_bits": layer.weight_bits,
                    "kernel": layer.weight.shape[2:],
                    "dilation": layer.dilation if isinstance(layer, Conv) else (1, 1),
                }
                for layer in network.chain
            ],
            "readout": "logit = sum over the T steps of weight * spikes + bias of the last dense layer",
            "facts": deployment.facts,
        }
    )
    masks = group.create_group("masks")
    for layer in network.chain:
        packed = np.packbits(deployment.masks[layer.name].reshape(-1))
        masks.create_dataset(layer.name, data=packed, compression="gzip")


def _text(value: object) -> npt.NDArray[np.uint8]:
    """Return JSON as bytes: variable-length HDF5 strings would not be byte-identical from run to run."""
    return np.frombuffer(json.dumps(value, sort_keys=True, indent=1).encode(), dtype=np.uint8)


def _array(file: h5py.File, name: str) -> npt.NDArray[Any]:
    """Return a dataset that lies in this file and has a size worth reading."""
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual or dataset.file != file:
        raise ValueError(f"{name} is not a dataset of this file")
    if dataset.dtype.kind not in "iuS" or dataset.nbytes > _MAX_DATASET_BYTES:
        raise ValueError(f"{name} has type {dataset.dtype} and {dataset.nbytes:,} bytes")
    return np.asarray(dataset[()])


def _read_network(file: h5py.File, meta: dict[str, Any]) -> Network:
    described = iter(meta["layers"])
    layers: list[AnyLayer] = []
    source: Shape = tuple(meta["input"]["shape"])
    if _array(file, "layer/0/shape").tolist() != list(source):
        raise ValueError("layer/0/shape and meta disagree")
    for index in range(1, len(file["layer"])):
        at = f"layer/{index}"
        kind = bytes(_array(file, f"{at}/type").reshape(-1)[0]).decode()
        if kind == "flatten":
            continue
        layer = _read_layer(file, at, next(described), kind, source)
        layers.append(layer)
        source = layer.output_shape(source)
    *hidden, readout = layers
    if next(described, None) or not isinstance(readout, Readout):
        raise ValueError("layer and meta disagree")
    return Network(
        input=Input(
            shape=tuple(meta["input"]["shape"]), offset=np.array(meta["input"]["offset"]), bits=meta["input"]["bits"]
        ),
        layers=tuple(layer for layer in hidden if isinstance(layer, Layer)),
        readout=readout,
        timesteps=meta["timesteps"],
    )


def _read_layer(file: h5py.File, at: str, described: dict[str, Any], kind: str, source: Shape) -> AnyLayer:
    weight, bias = _array(file, f"{at}/weight"), _array(file, f"{at}/bias").transpose()
    common = {name: described[name] for name in ("name", "pool", "weight_bits")}
    q = described["pool"]
    neuron = Neuron(
        theta=_array(file, f"{at}/neuron/vThMant") + 1,
        bias=bias,
        i_decay=int(_array(file, f"{at}/neuron/iDecay")),
        v_decay=int(_array(file, f"{at}/neuron/vDecay")),
    )
    layer: AnyLayer
    if kind == "conv" and described["kind"] == "conv":
        stride, padding = (tuple((_array(file, f"{at}/{name}") // q).tolist()) for name in ("stride", "padding"))
        dy, dx = described["dilation"]
        kept = weight if q == 1 else weight[:, :, :: q * dy, :: q * dx]
        layer = Conv(
            **common,
            weight=kept,
            neuron=neuron,
            stride=stride,
            padding=padding,
            dilation=(dy, dx),
            groups=int(_array(file, f"{at}/groups")),
        )
    else:
        channels, height, width = source
        cells = weight.reshape(len(weight), channels, height, width)[:, :, ::q, ::q].reshape(len(weight), -1)
        layer = (
            Readout(**common, weight=cells, bias=bias)
            if described["kind"] == "readout"
            else Dense(**common, weight=cells, neuron=neuron)
        )
    if not np.array_equal(spread(layer, source), weight):
        raise ValueError(f"{at}: the kernel is not the spread of a {q}x{q} pool that meta describes")
    return layer
