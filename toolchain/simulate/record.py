"""Where a run's results lie: a file for each layer and sample, written by Lava's processes, read and removed as they come.

The spikes of a step are packed to bits where they arise, which costs less than sending them to another process, let alone
than `Var.get()`. A file has its name only once it is whole. numpy and the standard library only: both sides use it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolchain.errors import BackendError
from toolchain.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Array = npt.NDArray[Any]

_LAYERS = "layers.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What is kept of a layer of a run.

    kind: `spikes` of each step; `counts` of each neuron's spikes over a sample; `sums` over a sample of what a readout's neurons
    receive. first: the step, counted from 1, of the first frame of the first sample.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    kind: Literal["spikes", "counts", "sums"]
    first: int
    timesteps: int
    samples: int
    directory: str

    def path(self, sample: int) -> Path:
        """Return the file of one sample."""
        return Path(self.directory, f"{self.index}-{sample}")

    @property
    def n_bytes(self) -> int:
        """Size of a sample's file."""
        size = int(np.prod(self.shape))
        return self.timesteps * -(-size // 8) if self.kind == "spikes" else size * self._type.itemsize

    @property
    def _type(self) -> np.dtype[Any]:
        return np.dtype(np.int32 if self.kind == "counts" else np.int64)

    def read(self, sample: int) -> Array:
        """Return a sample's (T, *shape) spikes, or its (*shape) counts or sums. Raises BackendError."""
        path = self.path(sample)
        content = path.read_bytes() if path.is_file() else b""
        if len(content) != self.n_bytes:
            reason = f"{path.name} holds {len(content):,} bytes instead of {self.n_bytes:,}"
            raise BackendError(backend="lava", reason=reason, remedy="Run it again")
        if self.kind != "spikes":
            return np.frombuffer(content, dtype=self._type).reshape(self.shape)
        bits = np.frombuffer(content, dtype=np.uint8).reshape(self.timesteps, -1)
        spikes = np.unpackbits(bits, axis=1, count=int(np.prod(self.shape)))
        return spikes.view(np.bool_).reshape(self.timesteps, *self.shape)


class Writer:
    """Keeps what a Lava process hands it, frame by frame, as files of a layer. Raises OSError, as on a full disk."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._bits: list[bytes] = []
        self._sum = np.zeros(layer.shape, dtype=np.int64)

    def take(self, step: int, frame: Array) -> None:
        """Keep the frame of a step, counted from 1, if it belongs to a sample."""
        layer = self._layer
        sample, number = divmod(step - layer.first, layer.timesteps)
        if not 0 <= sample < layer.samples:
            return
        if layer.kind == "spikes":
            self._bits.append(np.packbits(frame != 0 if frame.dtype != np.bool_ else frame).tobytes())
        else:
            self._sum += frame
        if number == layer.timesteps - 1:
            kept = self._sum.astype(np.int32 if layer.kind == "counts" else np.int64)
            path = layer.path(sample)
            partial = path.with_suffix(".part")
            partial.write_bytes(b"".join(self._bits) if layer.kind == "spikes" else kept.tobytes())
            partial.rename(path)
            self._bits.clear()
            self._sum[...] = 0


def describe(directory: Path, layers: Sequence[Layer], bias: Sequence[int]) -> None:
    """The layers of a run, the readout last, and the readout's bias are written down in its directory."""
    described = {"layers": [asdict(layer) for layer in layers], "bias": list(bias)}
    (directory / _LAYERS).write_text(json.dumps(described), encoding="utf-8")


def described(directory: Path) -> tuple[list[Layer], list[int]]:
    """Return what `describe` wrote down."""
    found = json.loads((directory / _LAYERS).read_text(encoding="utf-8"))
    return [Layer(**{**layer, "shape": tuple(layer["shape"])}) for layer in found["layers"]], found["bias"]


def take(layers: Sequence[Layer], bias: Sequence[int], samples: range, *, names: Sequence[str], backend: str) -> Trace:
    """Return the trace of samples that are done, and remove their files. Raises BackendError where one is not whole."""
    *hidden, readout = layers
    spikes = None
    if all(layer.kind == "spikes" for layer in hidden):
        spikes = tuple(_stacked(layer, samples) for layer in hidden)
        counts = tuple(layer.sum(axis=1, dtype=np.int32) for layer in spikes)
    else:
        counts = tuple(_stacked(layer, samples) for layer in hidden)
    logits = _stacked(readout, samples)[:, :, 0, 0]
    if bias:
        logits = logits + readout.timesteps * np.array(bias, dtype=np.int64)
    for sample in samples:
        for layer in layers:  # the readout's goes last: by it the run sees how far its user is
            layer.path(sample).unlink()
    return Trace(backend=backend, layers=tuple(names), logits=logits, counts=counts, spikes=spikes)


def _stacked(layer: Layer, samples: range) -> Array:
    """Return samples in PyTorch's order (S, ..., C, H, W); Lava's is (W, H, C), or (C,) for a dense layer."""
    read = np.stack([layer.read(sample) for sample in samples])
    if len(layer.shape) == 1:
        return read[..., None, None]
    return np.ascontiguousarray(np.swapaxes(read, -3, -1))
