"""Holds a Python with Lava imported and runs each network in a fork of it; run as a program under the supervisor.

Importing Lava takes ten seconds, and a Lava run that fails can only be killed: so each run gets a process group of its own,
and what is killed with it is not the import.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolchain.simulate.supervisor import Lines

    Message = dict[str, Any]

if __name__ == "__main__":
    # Started by its path: the package's root, not this folder, is where imports begin.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from toolchain.simulate import supervisor
from toolchain.simulate.newer_python import hashable_defaults


def main(directory: Path, descriptor: int) -> None:
    """Serve runs until the channel closes. Messages: `ready` or `refused` once, then the events of each run."""
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    supervisor.adopt_orphans()
    wake = supervisor.wake_on(signal.SIGCHLD)

    def send(message: Message) -> None:
        channel.sendall(supervisor.encode(message))

    try:
        with hashable_defaults():
            from toolchain.simulate import runner
    except Exception as error:  # noqa: BLE001  whatever an import raises, the user has to hear of it
        traceback.print_exc()
        send({"event": "refused", "reason": f"Lava cannot be imported ({type(error).__name__}: {error})"})
        return
    _follow_parents()
    send({"event": "ready"})
    requests = supervisor.Lines(channel.fileno())
    number = 0
    while (messages := _next(requests)) is not None:
        for request in messages:
            if request["event"] == "run":
                number += 1
                request["name"] = f"{directory.name}-{number}"
                run = Run(request, runner.main, directory, close=channel.close)
                outcome = run.follow(requests, wake, send)
                run.end()
                send(outcome)


def _next(requests: Lines) -> list[Message] | None:
    select.select([requests.descriptor], [], [])
    return requests.read()


def _follow_parents() -> None:
    """Make every process forked from here on die with the one that forked it."""
    parent = os.getpid()

    def before() -> None:
        nonlocal parent
        parent = os.getpid()

    os.register_at_fork(before=before, after_in_child=lambda: supervisor.die_with_parent(parent))


class Run:
    """One network in a process group of its own."""

    def __init__(
        self, request: Message, work: Callable[[Message, int], None], directory: Path, close: Callable[[], None]
    ) -> None:
        self.name = request["name"]
        reading, writing = os.pipe()
        self.process = os.fork()
        if not self.process:
            try:
                os.setpgid(0, 0)
                os.close(reading)
                close()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                work(request, writing)
            finally:
                os._exit(1)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(self.process, self.process)
        self._entry = directory / "groups" / str(self.process)
        self._entry.touch()
        os.close(writing)
        os.set_blocking(reading, False)
        self._events = supervisor.Lines(reading)

    def follow(self, requests: Lines, wake: socket.socket, send: Callable[[Message], None]) -> Message:
        """Pass the run's events on and return the last one: `done`, `failed`, `refused` or `cancelled`."""
        while True:
            readable, _, _ = select.select([self._events.descriptor, requests.descriptor, wake.fileno()], [], [])
            supervisor.drain(wake)
            code = supervisor.reap().get(self.process)
            for event in self._read():
                if event["event"] in {"done", "failed", "refused"}:
                    return event
                send(event)
            if code is not None:
                return {"event": "failed", "reason": f"the main process of the run {describe(code)}"}
            if requests.descriptor in readable:
                messages = requests.read()
                if messages is None or any(message["event"] == "cancel" for message in messages):
                    return {"event": "cancelled"}

    def _read(self) -> list[Message]:
        with contextlib.suppress(BlockingIOError):
            return self._events.read() or []
        return []

    def end(self) -> None:
        """Leave nothing of the run: no process, no shared memory."""
        supervisor.end([self.process])
        supervisor.remove_shared_memory(f"{self.name}-")
        self._entry.unlink(missing_ok=True)
        os.close(self._events.descriptor)


def describe(code: int) -> str:
    """Return what an exit code says: `ended with code 1`, `was killed by SIGKILL`."""
    return f"ended with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
