"""Runs a netx file on Intel's Lava, in a child process that cannot outlive its user; the only place that imports Lava.

Three processes: this one, a supervisor that tidies up when this one is gone, and a child with Lava imported, which forks
a process group for each run. Only numpy and the standard library are needed on this side.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from toolchain.errors import BackendError, ConfigError, FormatError, ToolchainError
from toolchain.simulate import supervisor
from toolchain.simulate.record import described, take
from toolchain.trace import joined

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from types import TracebackType

    import numpy.typing as npt
    from typing_extensions import Self

    from toolchain.trace import Trace

    Kernels = Literal["stock", "fast"]

__all__ = ["Session"]

START_LIMIT_S = 300.0
"""Importing Lava takes 10 s; on a busy machine, or from a cold disk, far more."""
_END_LIMIT_S = 15.0
_LOG_LINES = 12
_SOCKET_PATH_MAX = 60  # Lava puts a Unix socket into the directory, whose path may have 107 bytes
_CHILD = Path(__file__).with_name("child.py")
_INSTALL = "Install under Python 3.10, or on 3.11 or 3.12 run `make install-lava`, or use --backend emulator"
_AT_ONCE = 32
"""Samples, at most, whose every spike is held at a time"""
_AHEAD_BYTES = 64 << 20
"""What may lie in files that nobody has read yet"""
_ENDS = {"done", "failed", "refused", "cancelled"}
_RESTART = "Run it again; if it fails again, use --backend emulator"


@dataclass(slots=True, kw_only=True)
class _Live:
    """What a started session holds."""

    directory: Path
    process: subprocess.Popen[bytes]
    channel: socket.socket
    log: IO[bytes]
    events: supervisor.Lines
    ready: bool = False
    runs: int = 0


class Session:
    """A Lava child that serves any number of networks, one after the other, until it is closed.

    After a network that fails, the session serves the next one at once; after an interrupt or a child that died, it starts
    a new child.
    """

    def __init__(self) -> None:
        self._live: _Live | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str | None:
        """What the session's directory and shared memory are named after; None while nothing runs."""
        return self._live.directory.name if self._live else None

    def start(self) -> None:
        """A child is importing Lava, or has; returns at once. Raises BackendError where Lava is not installed."""
        if self._live:
            return
        if not _is_installed():
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            reason = f"Lava is not installed in this Python {version}"
            raise BackendError(backend="lava", reason=reason, remedy=_INSTALL)
        directory = _private_directory()
        # Appending: the child shares the position in the file, and _tail moves it.
        log = (directory / "log").open("a+b")
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-u", str(_CHILD), str(directory), str(theirs.fileno())]
        process = subprocess.Popen(
            [sys.executable, "-I", supervisor.__file__, str(directory), str(theirs.fileno()), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=[theirs.fileno()],
            env=_environment(directory),
            start_new_session=True,
        )
        theirs.close()
        self._live = _Live(
            directory=directory, process=process, channel=ours, log=log, events=supervisor.Lines(ours.fileno())
        )

    def close(self) -> None:
        """Nothing of the session is left: no process, no shared memory, no file."""
        live, self._live = self._live, None
        if live is None:
            return
        lifeline, died = live.process.stdin, live.process.stdout
        try:
            with contextlib.suppress(BrokenPipeError), contextlib.closing(lifeline or live.log):
                if lifeline:
                    lifeline.write(b"q")
                    lifeline.flush()
            live.channel.close()
            live.process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            live.process.kill()
            live.process.wait()
        finally:
            # The supervisor has done all this, unless it was killed.
            supervisor.sweep(live.directory, wait=lambda: None)
            for file in (died, live.log):
                if file:
                    file.close()

    def stream(
        self,
        net: Path | str,
        messages: npt.NDArray[np.integer[Any]],
        *,
        timesteps: int,
        kernels: Kernels = "stock",
        record: bool = True,
        layers: Sequence[str] | None = None,
        time_limit_s: float | None = None,
    ) -> Generator[Trace, None, None]:
        """Yield what Lava makes of the messages as it comes, some samples at a time; with `record`, every spike too.

        All samples pass through back to back. What is not taken waits in files, and Lava with it once they are many. Closing the
        generator ends the run and keeps the session.

        net: a netx file whose first layer is an input and whose last is a dense readout.
        layers: names of the hidden layers; by default their groups in the file.
        time_limit_s: what may be waited for Lava in all, once it is imported; by default a run ends where no news come for two
        minutes and ten times as long as they should take.

        Shapes: messages (samples, C, H, W), the same at each of the T steps.
        Raises: ConfigError, FormatError; BackendError where Lava is missing, refuses, fails or takes too long.
        """
        path = _checked(Path(net), messages, timesteps, kernels)
        request = {"event": "run", "net": str(path), "timesteps": timesteps, "kernels": kernels, "record": record}
        return self._stream(request, messages, layers, time_limit_s)

    def run(
        self,
        net: Path | str,
        messages: npt.NDArray[np.integer[Any]],
        *,
        progress: Callable[[int], None] | None = None,
        **settings: Any,
    ) -> Trace:
        """Return what `stream` yields in one piece. progress: called with the number of samples done."""
        parts: list[Trace] = []
        done = 0
        try:
            for part in self.stream(net, messages, **settings):
                parts.append(part)
                done += part.n_samples
                if progress:
                    progress(done)
        except ToolchainError:
            raise
        except BaseException:
            # An interrupt, an exception in `progress`: the child may be anywhere.
            self.close()
            raise
        return joined(parts)

    def _stream(
        self,
        request: dict[str, Any],
        messages: npt.NDArray[np.integer[Any]],
        names: Sequence[str] | None,
        time_limit_s: float | None,
    ) -> Generator[Trace, None, None]:
        self.start()
        live = self._live
        assert live
        try:
            self._await_ready(live)
            live.runs += 1
            directory = live.directory / str(live.runs)
            directory.mkdir()
            try:
                _save(directory / "messages.npy", messages)
                request |= {"messages": str(directory / "messages.npy"), "directory": str(directory)}
                request |= {"samples": len(messages), "ahead_bytes": _AHEAD_BYTES}
                done = 0
                with contextlib.closing(self._follow(live, request, time_limit_s)) as news:
                    for upto in news:
                        while done < upto:
                            samples = range(done, min(upto, done + _AT_ONCE))
                            yield _taken(directory, samples, names, f"lava ({request['kernels']} kernels)")
                            done = samples.stop
            finally:
                shutil.rmtree(directory, ignore_errors=True)
        except (ToolchainError, GeneratorExit):
            raise
        except BaseException:
            # An interrupt, a full disk: the child may be anywhere.
            self.close()
            raise

    def _await_ready(self, live: _Live) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while not live.ready:
            for event in self._next(live, deadline):
                if event["event"] == "refused":
                    log = _tail(live, 0)
                    self.close()
                    raise BackendError(backend="lava", reason=event["reason"] + log, remedy=_INSTALL)
                live.ready = True
            if not live.ready and time.monotonic() >= deadline:
                log = _tail(live, 0)
                self.close()
                raise BackendError(
                    backend="lava", reason=f"Lava was not imported within {START_LIMIT_S:g} s{log}", remedy=_RESTART
                )

    def _follow(self, live: _Live, request: dict[str, Any], limit_s: float | None) -> Generator[int, None, None]:
        """See a run to its end, yielding how many samples are done. Raises BackendError, after which nothing of the run is left."""
        logged, done, waited = live.log.seek(0, os.SEEK_END), 0, 0.0
        # Until the child has read the network, and so knows the work, the limit of a start holds.
        allowed = START_LIMIT_S if limit_s is None else limit_s
        live.channel.sendall(supervisor.encode(request))
        running = True
        try:
            while running:
                began = time.monotonic()
                events = self._next(live, began + allowed - waited)
                waited += time.monotonic() - began
                for event in events:
                    if limit_s is None and "limit_s" in event:  # there is news, and it says how long the next may take
                        allowed, waited = float(event["limit_s"]), 0.0
                    running = event["event"] not in _ENDS
                    if event["event"] == "progress":
                        done = event["done"]
                        yield done
                    elif event["event"] in {"refused", "failed"}:
                        log = _tail(live, logged) if event["event"] == "failed" else ""
                        raise BackendError(backend="lava", reason=event["reason"] + log)
                if running and waited >= allowed:
                    self._cancel(live)
                    reason = f"{done} of {request['samples']} samples were done after {allowed:g} s"
                    remedy = "Allow more time, simulate fewer samples, or use --kernels fast or --backend emulator"
                    raise BackendError(backend="lava", reason=reason, remedy=remedy)
        except GeneratorExit:
            if running and self._live is live:
                self._cancel(live)
            raise

    def _cancel(self, live: _Live) -> None:
        """No run is in progress; the child is kept where it answers."""
        live.channel.sendall(supervisor.encode({"event": "cancel"}))
        deadline = time.monotonic() + _END_LIMIT_S
        while time.monotonic() < deadline:
            for event in self._next(live, deadline):
                if event["event"] in {"cancelled", "done", "failed", "refused"}:
                    return
        self.close()

    def _next(self, live: _Live, deadline: float) -> list[dict[str, Any]]:
        """Return the events that arrive before the deadline. Raises BackendError where the child is gone."""
        died = live.process.stdout
        assert died
        readable, _, _ = select.select(
            [live.events.descriptor, died.fileno()], [], [], max(0.0, deadline - time.monotonic())
        )
        if live.events.descriptor in readable:
            events = live.events.read()
            if events is not None:
                return events
        if readable:
            log = _tail(live, 0)
            self.close()
            raise BackendError(backend="lava", reason=f"the Lava child process ended{log}", remedy=_RESTART)
        return []


def _is_installed() -> bool:
    """Whether Lava can be found; looking for it does not import it."""
    try:
        return importlib.util.find_spec("lava.lib.dl.netx") is not None
    except ModuleNotFoundError:
        return False


def _checked(net: Path, messages: npt.NDArray[Any], timesteps: int, kernels: str) -> Path:
    """Return the file's absolute path: the child may have another working directory."""
    faults = []
    if messages.ndim != 4 or messages.dtype.kind not in "iu" or not messages.size:
        faults.append(f"messages: expected integers (samples, C, H, W), got {messages.dtype} {messages.shape}")
    if timesteps < 1:
        faults.append(f"timesteps: expected a positive integer, got {timesteps}")
    if kernels not in {"stock", "fast"}:
        faults.append(f"kernels: expected 'stock' or 'fast', got {kernels!r}")
    if faults:
        raise ConfigError(where="simulate", faults=tuple(faults))
    if not net.is_file():
        raise FormatError(path=str(net), reason="no such file; make it with `rsnn-deploy export`")
    return net.resolve()


def _private_directory() -> Path:
    """Return a new directory that only this user may enter, with a name nobody else has."""
    base = tempfile.gettempdir()
    directory = Path(base if len(base) <= _SOCKET_PATH_MAX else "/tmp") / f"rsnn-{secrets.token_hex(6)}"  # noqa: S108
    try:
        directory.mkdir(mode=0o700)
        (directory / "groups").mkdir()
    except OSError as error:
        raise _unwritable(directory, error) from error
    return directory


def _save(path: Path, messages: npt.NDArray[np.integer[Any]]) -> None:
    """The messages are in a file from which Lava's source reads them. Raises BackendError on a full disk."""
    try:
        np.save(path, messages.astype(np.int32, copy=False))
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> BackendError:
    reason = f"cannot write {path} ({error.strerror or error})"
    return BackendError(backend="lava", reason=reason, remedy="Free some space there, or set TMPDIR to another folder")


def _environment(directory: Path) -> dict[str, str]:
    """Return the child's environment: its temporary files lie in the session's directory, its BLAS uses one thread.

    Lava runs one process a layer, all at once: threads within them would only fight for the same cores.
    """
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **single, "TMPDIR": str(directory)}


def _tail(live: _Live, start: int) -> str:
    """Return the last lines of the child's log since `start`, ready to follow a sentence."""
    live.log.seek(start)
    lines = live.log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
    return "".join(f"\n    {line}" for line in lines) + ("\n" if lines else "")


def _taken(directory: Path, samples: range, names: Sequence[str] | None, backend: str) -> Trace:
    """Return the trace of samples that are done; their files are gone. Raises ConfigError, BackendError."""
    layers, bias = described(directory)
    hidden = [layer.name for layer in layers[:-1]]
    if names is not None and len(names) != len(hidden):
        fault = f"layers: expected {len(hidden)} names of hidden layers, got {len(names)}"
        raise ConfigError(where="simulate", faults=(fault,))
    return take(layers, bias, samples, names=hidden if names is None else names, backend=backend)
