"""Networks that lava-dl's slayer exported, read from their netx file: what stock netx builds of it, as our integers.

A file says what its neurons compute and not what they are for. What is taken for it is in `Read.notes`, each a sentence.
Source: lava-dl 0.6.0, lava/lib/dl/slayer/block/base.py, which writes these files, and lava/lib/dl/netx/hdf5.py, which reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from toolchain import export as netx
from toolchain import hdf5
from toolchain.errors import ConfigError, FormatError, ToolchainError, UnsupportedError
from toolchain.ir import (
    BIAS_MAX,
    COUNTED_MAX,
    NEURONS_MAX,
    BiasCoding,
    Conv,
    Dense,
    Input,
    Layer,
    Network,
    Neuron,
    Readout,
    Shape,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[Any]

COUNTS = "spike_counts"
"""Name of the readout that is added where the last layer spikes."""
WHITE = 255
"""The pixel that an input block with neurons is taken to see as 1."""
_GREATEST = 1 << 31
_NOTED = {"type", "shape", "weight", "bias", "neuron"}
_GEOMETRY = {"stride", "padding", "dilation", "groups"}
_IGNORED = {"inChannels", "outChannels", "kernelSize", "inFeatures", "outFeatures"}
"""What slayer writes beside the shape of the weights."""
_NEURON = {"type", "vThMant", "iDecay", "vDecay", "refDelay", "gradedSpike", "scaleRho", "tauRho", "theta", "wgtExp"}
_CONSTANT = {"refDelay": 1, "gradedSpike": 0, "wgtExp": 0}
"""What netx takes for granted, whatever the file says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A network, and what its file does not say and was taken for it."""

    network: Network
    notes: tuple[str, ...]


def read(path: Path, *, timesteps: int | None = None) -> Read:
    """Return the network of a netx file, ours or lava-dl's. timesteps: steps an image, where the file does not say it.

    Layers are named after their groups, `layer1` and so on. Raises UnsupportedError, naming the layer, for all that netx or this
    package would compute differently; FormatError for what is no netx file; ConfigError where steps are missing.
    """
    try:
        with hdf5.opened(path, str(path)) as file:
            hdf5.check_whole(file, str(path))
            if "meta" in file:
                return Read(network=netx.read(path).network, notes=())
            found = _Chain(file).read(timesteps)
        netx.layer_arrays(found.network)  # refuses what netx or Lava would change
    except FileNotFoundError:
        raise FormatError(path=str(path), reason="no such file") from None
    except ToolchainError:
        raise
    except Exception as error:  # noqa: BLE001  a hostile file can make h5py and numpy raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        raise FormatError(path=str(path), reason=f"not a netx file ({what})") from None
    return found


class _Chain:
    """A file being read, layer by layer; `source` is the shape of the layer before, flat where netx holds it as a vector."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.layers: list[Layer] = []
        self.input: Input | None = None
        self.readout: Readout | None = None
        self.source: Shape | None = None
        self.flat = False
        self.notes: list[str] = []

    def read(self, timesteps: int | None) -> Read:
        """Return the network."""
        for index in range(len(self.file["layer"])):
            at = f"layer/{index}"
            try:
                self._take(at, self.file[at], last=index == len(self.file["layer"]) - 1)
            except ConfigError as error:
                raise _unsupported(at, f"{error.where}: {'; '.join(error.faults)}") from None
        if self.input is None or self.source is None:
            raise _unsupported("layer", "it has no layer with weights")
        if self.readout is None:
            self._count_spikes(int(np.prod(self.source)))
        assert self.readout
        steps = timesteps or self._timesteps()
        try:
            network = Network(input=self.input, layers=tuple(self.layers), readout=self.readout, timesteps=steps)
        except ConfigError as error:
            raise _unsupported(error.where, "; ".join(error.faults)) from None
        return Read(network=network, notes=tuple(self.notes))

    def _take(self, at: str, group: h5py.Group, *, last: bool) -> None:
        kind = _text(group["type"])
        if self.readout is not None:
            raise _unsupported(at, "it follows a layer without neurons")
        match kind:
            case "input" if self.input is None:
                self._take_input(at, group)
            case "flatten":
                if self.flat or self.source is None:
                    raise _unsupported(at, "netx flattens only the map of an input or a convolution")
                self.flat = True
            case "dense":
                self._take_dense(at, group, last=last)
            case "conv":
                self._take_conv(at, group)
            case _:
                raise _unsupported(at, f"layers of type {kind} cannot be deployed; use input, conv, flatten and dense")

    def _take_input(self, at: str, group: h5py.Group) -> None:
        _check_keys(at, group, _NOTED)
        shape = tuple(int(extent) for extent in _integers(at, group, "shape").reshape(-1))
        if len(shape) not in {1, 3}:
            raise _unsupported(at, f"its shape is {shape}; use (channels, height, width), or one number")
        channels, height, width = (*shape, 1, 1)[:3]
        self.source, self.flat = (channels, height, width), len(shape) == 1
        offset = np.zeros(channels, dtype=np.int32)
        if "neuron" not in group:
            self.input = Input(shape=self.source, offset=offset)
            self.notes.append("The first layer is taken to receive pixels, 0 to 255, at each step.")
            return
        weight, bias = (
            int(_integers(at, group, key, default).item()) for key, default in (("weight", 64), ("bias", 0))
        )
        if WHITE * abs(bias) > BIAS_MAX:
            raise _unsupported(at, f"its bias is {bias}, where {BIAS_MAX // WHITE} can be deployed")
        neuron = self._neuron(at, group, np.full(channels, WHITE * bias))
        limit = max(int(neuron.theta.max()), abs(bias), abs(weight + bias))
        self.input = Input(shape=self.source, offset=offset, bias=BiasCoding(divisor=np.array(WHITE), limit=limit))
        kernel = np.full((channels, 1, 1, 1), weight)
        self._append(Conv(name=_name(at), weight=kernel, neuron=neuron, groups=channels))
        self.notes.append(
            f"Neurons of the input block are taken to be driven by {weight} * pixel / {WHITE} + {bias}, rounded, at each step."
        )

    def _take_conv(self, at: str, group: h5py.Group) -> None:
        _check_keys(at, group, _NOTED | _GEOMETRY)
        if self.source is None or self.flat:
            raise _unsupported(at, "netx takes a convolution only of an input of known shape or of another convolution")
        weight = _integers(at, group, "weight")
        channels = len(weight)
        self._append(
            Conv(
                name=_name(at),
                weight=weight.reshape(weight.shape[:4]),
                neuron=self._neuron(at, group, self._bias(at, group, channels)),
                groups=int(_integers(at, group, "groups").item()),
                stride=_pair(at, group, "stride"),
                padding=_pair(at, group, "padding"),
                dilation=_pair(at, group, "dilation"),
            )
        )
        self._compare_shape(at, group)

    def _take_dense(self, at: str, group: h5py.Group, *, last: bool) -> None:
        _check_keys(at, group, _NOTED)
        outputs = int(np.prod(_integers(at, group, "shape")))
        weight = _integers(at, group, "weight").reshape(outputs, -1)
        if self.source is None:
            self.source, self.flat = (weight.shape[1], 1, 1), True
            self.input = Input(shape=self.source, offset=np.zeros(weight.shape[1], dtype=np.int32))
            self.notes.append("The first layer is taken to receive pixels, 0 to 255, at each step.")
        if not self.flat:
            raise _unsupported(at, "a flatten is missing before it")
        bias = self._bias(at, group, outputs)
        if "neuron" not in group:
            if not last:
                raise _unsupported(at, "it has no neurons, and netx gives it some that sum for ever")
            if bias.any():
                raise _unsupported(at, "it has a bias and no neurons; netx adds the bias once, not at each step")
            self._end(at, Readout(name=_name(at), weight=weight, bias=bias))
            return
        neuron = self._neuron(at, group, bias)
        if last and int(neuron.theta.min()) >= netx.READOUT_THETA:
            if neuron.leaks:
                raise _unsupported(at, "its neurons never spike, and leak; only sums can be read out")
            self._end(at, Readout(name=_name(at), weight=weight, bias=bias))
        else:
            self._append(Dense(name=_name(at), weight=weight, neuron=neuron))

    def _append(self, layer: Layer) -> None:
        assert self.source
        self.source = layer.output_shape(self.source)
        if (n := int(np.prod(self.source))) > NEURONS_MAX:
            raise _unsupported(layer.name, f"it has {n:,} neurons, where {NEURONS_MAX:,} are the most")
        self.layers.append(layer)

    def _end(self, at: str, readout: Readout) -> None:
        assert self.source
        if not self.layers:
            raise _unsupported(at, "it is the only layer; a network needs spiking neurons before its readout")
        readout.output_shape(self.source)
        self.readout = readout

    def _count_spikes(self, outputs: int) -> None:
        if outputs > COUNTED_MAX:
            reason = f"its {outputs:,} neurons are the last, and spikes of {COUNTED_MAX:,} can be counted"
            raise _unsupported(self.layers[-1].name, reason)
        weight = np.eye(outputs, dtype=np.int32)
        self.readout = Readout(name=COUNTS, weight=weight, bias=np.zeros(outputs, dtype=np.int32), weight_bits=2)
        self.notes.append(f"The last layer spikes: a readout {COUNTS}, which sums its spikes, was added.")

    def _compare_shape(self, at: str, group: h5py.Group) -> None:
        written = tuple(_integers(at, group, "shape").reshape(-1)[:4].tolist())
        if written != self.source:
            raise _unsupported(at, f"its shape is {written}, where its kernel gives {self.source}")

    def _bias(self, at: str, group: h5py.Group, channels: int) -> Array:
        if "bias" not in group:
            return np.zeros(channels, dtype=np.int32)
        return _integers(at, group, "bias").transpose()

    def _neuron(self, at: str, group: h5py.Group, bias: Array) -> Neuron:
        if "neuron" not in group:
            raise _unsupported(at, "it has no neurons")
        neuron = group["neuron"]
        kind = _text(neuron["type"])
        if kind not in {"CUBA", "LOIHI"}:
            raise _unsupported(at, f"{kind} neurons cannot be deployed; use CUBA")
        if unknown := sorted(set(neuron) - _NEURON):
            raise _unsupported(at, f"its neurons have {', '.join(unknown)}, which cannot be deployed")
        for name, value in _CONSTANT.items():
            if name in neuron and (found := _integers(at, neuron, name).item()) != value:
                raise _unsupported(at, f"its neurons have a {name} of {found}, which netx ignores")
        decays = {name: _integers(at, neuron, name) for name in ("iDecay", "vDecay")}
        if differing := [name for name, values in decays.items() if values.size != 1]:
            raise _unsupported(
                at, f"{' and '.join(differing)} differ among its channels; only one a layer can be deployed"
            )
        return Neuron(
            theta=_integers(at, neuron, "vThMant").astype(np.int64).squeeze() + 1,
            bias=bias,
            i_decay=int(decays["iDecay"].item()),
            v_decay=int(decays["vDecay"].item()),
        )

    def _timesteps(self) -> int:
        if "simulation/tSample" not in self.file:
            fault = "the file does not say how many steps a sample takes; say it with --timesteps"
            raise ConfigError(where="timesteps", faults=(fault,))
        return int(_integers("simulation", self.file["simulation"], "tSample").item())


def _check_keys(at: str, group: h5py.Group, known: set[str]) -> None:
    if unknown := sorted(set(group) - known - _IGNORED):
        raise _unsupported(at, f"it has {', '.join(unknown)}, which cannot be deployed")


def _integers(at: str, group: h5py.Group, name: str, default: int | None = None) -> Array:
    """Return a dataset as integers. Raises UnsupportedError where it holds others: netx cuts them off."""
    if name not in group and default is not None:
        return np.array(default)
    if name not in group:
        raise _unsupported(at, f"it has no {name}")
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iufb":
        raise _unsupported(at, f"its {name} is not a dataset of numbers")
    values = np.asarray(dataset[()])
    if not (np.abs(values, dtype=np.float64) < _GREATEST).all():
        raise _unsupported(at, f"its {name} is not of numbers that 32 bits hold")
    integers: Array = np.rint(values).astype(np.int64)
    if not np.array_equal(integers, values):
        raise _unsupported(at, f"its {name} is not of integers, and netx would cut off the fractions")
    return integers


def _pair(at: str, group: h5py.Group, name: str) -> tuple[int, int]:
    y, x = np.broadcast_to(_integers(at, group, name), 2).tolist()
    return y, x


def _text(dataset: h5py.Dataset) -> str:
    """Return a word. Raises ValueError where there is none."""
    word = bytes(np.asarray(dataset[()]).reshape(-1)[0]).decode("ascii")
    if not re.fullmatch(r"[\w.-]+", word):
        raise ValueError(f"{dataset.name} is no word")
    return word


def _name(at: str) -> str:
    return at.replace("/", "")


def _unsupported(where: str, reason: str) -> UnsupportedError:
    return UnsupportedError(where=where, reason=reason)
