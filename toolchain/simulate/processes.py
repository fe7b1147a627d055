"""Lava processes of our own: a source and a recorder that keep nothing in memory.

numpy only: torch hangs inside a Lava process. Lava reads the class attributes; their annotations are for the reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class Source(AbstractProcess):  # type: ignore[misc]  # Lava has no types
    """Sends each sample's messages at each of its T steps, then zeros.

    `path` holds the messages (samples, C, H, W) as .npy. A port of one dimension gets them flattened in that order, one of
    three gets (W, H, C).
    """

    def __init__(self, *, shape: tuple[int, ...], path: Path, timesteps: int) -> None:
        super().__init__(shape=shape, path=path, timesteps=timesteps)
        self.out = OutPort(shape=shape)


@implements(proc=Source, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySource(PyLoihiProcessModel):  # type: ignore[misc]
    """Reads the messages from the file as they are needed."""

    out: Any = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._messages = np.load(proc_params["path"], mmap_mode="r")
        self._shape, self._timesteps = proc_params["shape"], proc_params["timesteps"]
        self._frame = np.zeros(self._shape, dtype=np.int32)

    def run_spk(self) -> None:
        """Send the frame of step t; t starts at 1."""
        sample, step = divmod(self.time_step - 1, self._timesteps)
        if step == 0:
            if sample >= len(self._messages):
                self._frame = np.zeros(self._shape, dtype=np.int32)
            elif len(self._shape) == 1:
                self._frame = np.array(self._messages[sample]).reshape(self._shape)
            else:
                self._frame = np.ascontiguousarray(self._messages[sample].transpose())
        self.out.send(self._frame)


class Recorder(AbstractProcess):  # type: ignore[misc]
    """Appends what it receives to files: the sum over each sample (int64) to `sums`, each step (0 or 1) to `frames`.

    The first frame of the first sample is the one of step `first`, counted from 1. `frames` may be None.
    """

    def __init__(
        self, *, shape: tuple[int, ...], first: int, timesteps: int, samples: int, sums: Path, frames: Path | None
    ) -> None:
        super().__init__(shape=shape, first=first, timesteps=timesteps, samples=samples, sums=sums, frames=frames)
        self.inp = InPort(shape=shape)


@implements(proc=Recorder, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyRecorder(PyLoihiProcessModel):  # type: ignore[misc]
    """Writes at once, so that the files are whole whenever the run stops."""

    inp: Any = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._first, self._timesteps = proc_params["first"], proc_params["timesteps"]
        self._end = self._first + proc_params["samples"] * self._timesteps
        self._sums = Path(proc_params["sums"]).open("ab", buffering=0)  # noqa: SIM115  as long as the process lives
        frames = proc_params["frames"]
        self._frames = Path(frames).open("ab", buffering=0) if frames else None  # noqa: SIM115  likewise
        self._sum = np.zeros(proc_params["shape"], dtype=np.int64)

    def run_spk(self) -> None:
        """Take the frame of this step."""
        frame = self.inp.recv()
        if not self._first <= self.time_step < self._end:
            return
        self._sum += frame
        if self._frames:
            _write(self._frames, (frame != 0).tobytes())
        if (self.time_step - self._first + 1) % self._timesteps == 0:
            _write(self._sums, self._sum.tobytes())
            self._sum[:] = 0


def _write(file: Any, data: bytes) -> None:
    """Write all of `data`; an unbuffered write may take a part only. Raises OSError, as on a full disk."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
