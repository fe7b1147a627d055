"""Network and Mapping to a netx HDF5 file and back; the only module that knows netx's key names and axis orders.

The group `layer` is what stock `lava.lib.dl.netx.hdf5.Network` loads. netx has no pools, so there a pool's kernel is
spread: w -> kron(w, ones(q, q)), stride and padding times q. The root groups `mapping` and `meta` are ours; with them
`read` restores the network unspread. Where the host drives the first layer by biases (`ir.BiasCoding`), `layer/0` is those
neurons alone, an input block, and the root group `host` holds their layer. Identical content gives an identical file.
Source: lava-dl 0.6.0, lava/lib/dl/netx/hdf5.py.
"""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from toolchain import hdf5
from toolchain.errors import FormatError, UnsupportedError
from toolchain.ir import AnyLayer, BiasCoding, Conv, Dense, Input, Layer, Network, Neuron, Readout, Shape
from toolchain.ir.parts import parts
from toolchain.placement import Core, Mapping

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingABC
    from pathlib import Path

    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Fields = dict[str, npt.NDArray[Any]]
    Ints = npt.NDArray[np.integer[Any]]

SCHEMA = 1
READOUT_THETA = 131_072
"""The readout must not spike; its logits are read from its synapses, so that they hold even where v saturates."""


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
    with h5py.File(buffer, "w", libver="v110", track_order=False) as file:  # v110 writes groups in half the bytes
        for name, array in layer_arrays(deployment.network).items():
            file.create_dataset(name, data=array, compression="gzip" if name.endswith("weight") else None)
        _write_mapping(file.create_group("mapping"), deployment)
        _write_meta(file.create_group("meta"), deployment)
    return buffer.getvalue()


def read(path: Path) -> Deployment:
    """Return what `pack` packed. Raises FormatError for anything else."""
    return _unpacked(path, str(path))


def unpack(content: bytes, name: str) -> Deployment:
    """Return what `pack` packed into bytes, which errors call by a name. Raises FormatError for anything else."""
    return _unpacked(io.BytesIO(content), name)


def _unpacked(source: Path | io.BytesIO, name: str) -> Deployment:
    try:
        with hdf5.opened(source, name) as file:
            meta = _read_meta(file)
            network = _read_network(file, meta)
            return Deployment(
                network=network,
                mapping=_read_mapping(file, network),
                masks={layer.name: _read_mask(file, layer) for layer in network.chain},
                facts=meta["facts"],
            )
    except FileNotFoundError:
        raise FormatError(path=name, reason="no such file; make it with `rsnn-deploy export`") from None
    except FormatError:
        raise
    except Exception as error:  # noqa: BLE001  a hostile file can make h5py, numpy and our own constructors raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise FormatError(path=name, reason=f"not a netx file written by rsnn-deploy export ({what})") from None


def spread(layer: AnyLayer, source: Shape) -> Ints:
    """Return the layer's weight as netx needs it, without a pool, and with relays as kernels of a single 1.

    Shapes: conv (Cout, Cin/g, q * (d * (kh-1) + 1), ...) for a pool q > 1; dense (out, C * H * W).
    """
    q, weight = layer.pool, layer.weight
    if q == 1:
        return layer.dense_weight if isinstance(layer, Conv) else weight
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


def layer_arrays(network: Network) -> dict[str, npt.NDArray[Any]]:
    """Return every dataset of the groups `layer` and `host` by its path. Raises UnsupportedError where netx would compute another network."""
    netx: list[Fields] = []
    host: Fields = {}
    if not network.input.bias:
        netx.append(_fields("input", shape=network.input.shape))
    flat = False
    for layer, source, shape in network.wired():
        written = _written(layer, source, shape)
        if network.is_driven(layer):
            neurons = {name: value for name, value in written.items() if name.startswith("neuron/")}
            netx.append(_fields("input", shape=written["shape"]) | neurons)
            host = written
        else:
            _check(layer, written, flat=flat)
            if not isinstance(layer, Conv) and not flat:
                netx.append(_fields("flatten", shape=[int(np.prod(source))]))
            netx.append(written)
        flat = not isinstance(layer, Conv)
    groups = {f"layer/{index}": fields for index, fields in enumerate(netx)} | {"host": host}
    return {f"{group}/{name}": value for group, fields in groups.items() for name, value in fields.items()}


def _fields(kind: str, **fields: npt.ArrayLike) -> Fields:
    """Return the datasets of a group by name. netx decodes the first element of `type`."""
    return {name: np.asarray(value) for name, value in {"type": [kind.encode()], **fields}.items()}


def _written(layer: AnyLayer, source: Shape, shape: Shape) -> Fields:
    """Return the datasets of a layer's group as netx reads them."""
    silent = np.array(READOUT_THETA)
    neuron = Neuron(theta=silent, bias=layer.bias) if isinstance(layer, Readout) else layer.neuron
    common: Fields = {
        "weight": spread(layer, source).astype(np.int16),
        "bias": neuron.bias.transpose(),
        "neuron/type": np.array([b"CUBA"]),
        "neuron/vThMant": (neuron.theta - 1).astype(np.int32),
        "neuron/iDecay": np.array(neuron.i_decay),
        "neuron/vDecay": np.array(neuron.v_decay),
    }
    if not isinstance(layer, Conv):
        return _fields("dense", shape=shape[:1]) | common
    q = layer.pool
    geometry: Fields = {
        "stride": np.array(layer.stride) * q,
        "padding": np.array(layer.padding) * q,
        "dilation": np.array(layer.dilation if q == 1 else (1, 1)),
        "groups": np.array(layer.groups),
    }
    return _fields("conv", shape=shape) | geometry | common


def _check(layer: AnyLayer, written: Fields, *, flat: bool) -> None:
    """Refuse what netx or Lava would silently change."""
    if not isinstance(layer, Conv):
        _check_dense(layer)
        return
    if flat:
        raise UnsupportedError(
            where=layer.name,
            reason="netx takes no convolution after a dense layer",
            remedy="Use a dense layer in its place",
        )
    geometry = {name: written[name] for name in ("stride", "padding", "dilation", "groups")}
    _check_geometry(layer, {"kernel": np.array(written["weight"].shape[2:]), **geometry})


def _check_geometry(layer: Conv, geometry: dict[str, npt.NDArray[Any]]) -> None:
    """Refuse what Lava's convolution, which keeps these numbers in 8 bits, would silently change."""
    for name, values in geometry.items():
        if values.max() > np.iinfo(np.int8).max:
            raise UnsupportedError(
                where=layer.name,
                reason=f"its {name} is {values.max()} in netx, where Lava allows 127",
                remedy="Use a smaller pool, kernel or image",
            )


def _check_dense(layer: Dense | Readout) -> None:
    """Refuse the matrices that netx's choice of weight bits and exponent changes (measured for all of -256..255)."""
    greatest, least = int(layer.weight.max()), int(layer.weight.min())
    if greatest <= 0 and -least & (-least - 1) == 0:  # 0 or a power of two
        raise UnsupportedError(
            where=layer.name,
            reason=f"netx computes a dense matrix without positive entries wrongly when its least entry is {least}",
            remedy="Use other weight bits, or train the layer so that it keeps a positive weight",
        )


def _write_mapping(group: h5py.Group, deployment: Deployment) -> None:
    mapping = deployment.mapping
    facts = {name: getattr(mapping, name) for name in ("profile", "profile_sha256", "pools", "formats", "tiles")}
    group["json"] = _text(facts)
    layers = [part.name for part in parts(deployment.network)]
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


def _read_mapping(file: h5py.File, network: Network) -> Mapping:
    facts = json.loads(bytes(_array(file, "mapping/json")).decode())
    layers = [part.name for part in parts(network)]
    for name in ("formats", "tiles"):
        if set(facts[name]) != set(layers):
            raise ValueError(f"mapping and layer disagree: {name} of {', '.join(facts[name])}")
    facts["tiles"] = {name: tuple(tile) for name, tile in facts["tiles"].items()}
    table = _array(file, "mapping/cores")
    if table.dtype.kind != "i" or not table.size:
        raise ValueError(f"mapping/cores has type {table.dtype} and shape {table.shape}")
    names = file["mapping/cores"].attrs["columns"].split(",")
    cores = []
    for row in table.tolist():
        flat = dict(zip(names, row, strict=True))
        ranges = {name: (flat.pop(f"{name}_start"), flat.pop(f"{name}_stop")) for name in ("y", "x", "channels")}
        if not 0 <= flat["layer"] < len(layers):
            raise ValueError(f"mapping/cores has a core of layer {flat['layer']} of {len(layers)}")
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
                **_coding(network.input),
            },
            "layers": [
                {
                    "name": layer.name,
                    "kind": type(layer).__name__.lower(),
                    "pool": layer.pool,
                    "weight_bits": layer.weight_bits,
                    "kernel": layer.weight.shape[2:],
                    **_geometry(layer),
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


def _geometry(layer: AnyLayer) -> dict[str, Any]:
    """Return what the arrays of a layer do not tell; of one with relays, which they are and how many channels its kernel hears."""
    if not isinstance(layer, Conv):
        return {"dilation": (1, 1)}
    relays = {"relays": layer.relays, "heard": layer.weight.shape[1]} if layer.n_relays else {}
    return {"dilation": layer.dilation, **relays}


def _coding(source: Input) -> dict[str, Any]:
    message = "message = pixel - offset[channel]"
    if source.bias is None:
        return {"coding": f"{message}, the same at each of the T steps"}
    coding = (
        f"{message}; bias = clip(floor((W message + b) / divisor + 1/2), -limit, limit), W and b of the layer `host`"
    )
    return {"coding": coding, "bias": {"divisor": source.bias.divisor.tolist(), "limit": source.bias.limit}}


def _text(value: object) -> npt.NDArray[np.uint8]:
    """Return JSON as bytes: variable-length HDF5 strings would not be byte-identical from run to run."""
    return np.frombuffer(json.dumps(value, sort_keys=True, indent=1).encode(), dtype=np.uint8)


def _array(file: h5py.File, name: str) -> npt.NDArray[Any]:
    """Return a dataset that lies in this file and has a size worth reading."""
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual or dataset.file != file:
        raise ValueError(f"{name} is not a dataset of this file")
    if dataset.dtype.kind not in "iuS" or hdf5.bytes_when_read(dataset) > hdf5.MAX_BYTES:
        raise ValueError(f"{name} has type {dataset.dtype} and {dataset.nbytes:,} bytes")
    return np.asarray(dataset[()])


def _read_meta(file: h5py.File) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(bytes(_array(file, "meta/json")).decode())
    if meta["schema"] != SCHEMA:
        reason = f"schema {meta['schema']} of network.net is not the {SCHEMA} this version reads; export again"
        raise FormatError(path=str(file.filename), reason=reason)
    if not isinstance(meta["facts"], dict):
        raise TypeError("meta has no facts")
    return meta


def _read_mask(file: h5py.File, layer: AnyLayer) -> Bools:
    packed = _array(file, f"meta/masks/{layer.name}")
    if packed.shape != (-(-layer.weight.size // 8),):
        raise ValueError(f"the mask of {layer.name} has {packed.size:,} bytes for {layer.weight.size:,} weights")
    mask = np.unpackbits(packed, count=layer.weight.size).astype(bool).reshape(layer.weight.shape)
    if layer.weight[~mask].any():
        raise ValueError(f"{layer.name} has weights outside its mask")
    return mask


def _read_network(file: h5py.File, meta: dict[str, Any]) -> Network:
    described, facts = meta["layers"], meta["input"]
    kinds = [bytes(_array(file, f"layer/{index}/type")[0]).decode() for index in range(len(file["layer"]))]
    groups = [f"layer/{index}" for index, kind in enumerate(kinds) if kind in {"conv", "dense"}]
    bias = None
    if coding := facts.get("bias"):
        bias = BiasCoding(divisor=np.array(coding["divisor"]), limit=coding["limit"])
        groups.insert(0, "host")
    layers: list[AnyLayer] = []
    source: Shape = tuple(facts["shape"])
    for at, about in zip(groups, described, strict=True):
        layers.append(_read_layer(file, at, about, source))
        source = layers[-1].output_shape(source)
    *hidden, readout = layers
    if not isinstance(readout, Readout) or any(isinstance(layer, Readout) for layer in hidden):
        raise ValueError("the readout is not the last layer")
    network = Network(
        input=Input(shape=tuple(facts["shape"]), offset=np.array(facts["offset"]), bits=facts["bits"], bias=bias),
        layers=tuple(layer for layer in hidden if isinstance(layer, Layer)),
        readout=readout,
        timesteps=meta["timesteps"],
    )
    _compare(file, layer_arrays(network))
    return network


def _compare(file: h5py.File, expected: dict[str, npt.NDArray[Any]]) -> None:
    """Raise ValueError unless the group `layer`, all of which stock netx reads, is what `pack` writes for the network."""
    members: dict[str, set[str]] = {}
    for path in expected:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            members.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    for group, names in members.items():
        if set(file[group]) != names:
            raise ValueError(f"{group} holds {', '.join(sorted(file[group]))}")
    for path, array in expected.items():
        if not np.array_equal(_array(file, path), array):
            raise ValueError(f"{path} is not what meta describes")


def _read_layer(file: h5py.File, at: str, about: dict[str, Any], source: Shape) -> AnyLayer:
    weight, bias = _array(file, f"{at}/weight"), _array(file, f"{at}/bias").transpose()
    common = {name: about[name] for name in ("name", "pool", "weight_bits")}
    q = about["pool"]
    neuron = Neuron(
        theta=_array(file, f"{at}/neuron/vThMant") + 1,
        bias=bias,
        i_decay=_array(file, f"{at}/neuron/iDecay").item(),
        v_decay=_array(file, f"{at}/neuron/vDecay").item(),
    )
    if about["kind"] == "conv":
        if not 1 <= q <= min(weight.shape[2:]):
            raise ValueError(f"{at}/weight of shape {weight.shape} is not spread over a {q}x{q} pool")
        stride, padding = (tuple((_array(file, f"{at}/{name}") // q).tolist()) for name in ("stride", "padding"))
        dy, dx = about["dilation"]
        first, last = about.get("relays", (0, 0))
        own = weight[: len(weight) + first - last, : about.get("heard", weight.shape[1])]
        return Conv(
            **common,
            relays=(first, last),
            weight=own if q == 1 else own[:, :, :: q * dy, :: q * dx],
            neuron=neuron,
            stride=stride,
            padding=padding,
            dilation=(dy, dx),
            groups=_array(file, f"{at}/groups").item(),
        )
    channels, height, width = source
    cells = weight.reshape(len(weight), channels, height, width)[:, :, ::q, ::q].reshape(len(weight), -1)
    if about["kind"] == "readout":
        return Readout(**common, weight=cells, bias=bias)
    return Dense(**common, weight=cells, neuron=neuron)
