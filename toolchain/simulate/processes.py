"""Lava processes of our own: a source and a recorder that keep nothing in memory.

numpy only: torch hangs inside a Lava process. Lava reads the class attributes; their annotations are for the reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from toolchain.simulate.record import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from toolchain.simulate.record import Layer


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
    """Keeps what it receives as the files of a layer."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer=layer)
        self.inp = InPort(shape=layer.shape)


@implements(proc=Recorder, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyRecorder(PyLoihiProcessModel):  # type: ignore[misc]
    """Has a file written at the end of each sample."""

    inp: Any = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._writer = Writer(proc_params["layer"])

    def run_spk(self) -> None:
        """Take the frame of this step."""
        self._writer.take(self.time_step, self.inp.recv())
