"""Ends the Lava child, and removes what it left, as soon as its user is gone; run as a program beside it.

Lava's processes outlive a killed parent and leak shared memory, so somebody who survives the user's process has to tidy
up. This program does nothing else and uses the standard library only, so that it starts at once and cannot fail with Lava.

A session owns a private directory, and everything that belongs to the session is found by that directory's name:
`groups/` in it holds one empty file for each process group, and shared memory is named after it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where Linux keeps it
_MESSAGE_BYTES_MAX = 1 << 16
_POLL_S = 1.0


class Lines:
    """Messages from a file descriptor: one JSON object a line."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._rest = b""

    def read(self) -> list[dict[str, Any]] | None:
        """Return the messages that have arrived, or None at the end of the stream. Raises ValueError."""
        try:
            chunk = os.read(self.descriptor, _MESSAGE_BYTES_MAX)
        except ConnectionResetError:
            return None
        if not chunk:
            return None
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _MESSAGE_BYTES_MAX:
            raise ValueError(f"a message is longer than {_MESSAGE_BYTES_MAX:,} bytes")
        return [json.loads(line) for line in lines]


def encode(message: dict[str, Any]) -> bytes:
    """Return the line that `Lines` reads back as `message`."""
    return json.dumps(message).encode() + b"\n"


def wake_on(*numbers: signal.Signals) -> socket.socket:
    """Return a socket that becomes readable when one of the signals arrives; drain it."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return reading


def drain(wake: socket.socket) -> list[int]:
    """Return the numbers of the signals that have arrived."""
    with contextlib.suppress(BlockingIOError):
        return list(wake.recv(4096))
    return []


def adopt_orphans() -> None:
    """Make this process, on Linux, the parent of descendants whose own parent dies: it can wait for all of them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Make the kernel, on Linux, kill this process when `parent` dies; end it now if that has happened."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def reap() -> dict[int, int]:
    """Return {process: exit code} of all children that ended; a negative code is a signal."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                break
            ended[process] = os.waitstatus_to_exitcode(status)
    return ended


def end(groups: Iterable[int], *, wait: Callable[[], object] = reap, patience_s: float = 1.0) -> None:
    """Leave no process of the groups alive: SIGTERM, and SIGKILL for what is there after `patience_s`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        groups = [group for group in groups if _signal(group, number)]
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            wait()
            groups = [group for group in groups if _signal(group, 0)]
            if not groups:
                return
            time.sleep(0.005)


def _signal(group: int, number: int) -> bool:
    """Return whether the group exists and got the signal."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def remove_shared_memory(name: str) -> None:
    """Remove the shared-memory segments and semaphores whose names start with `name`."""
    for pattern in (f"{name}*", f"sem.{name}*"):
        for segment in _SHARED_MEMORY.glob(pattern):
            segment.unlink(missing_ok=True)


def sweep(directory: Path, *, wait: Callable[[], object] = reap) -> None:
    """Leave nothing of the session: no process, no shared memory, no directory."""
    registered = directory / "groups"
    # A directory that is gone was swept before: its process numbers may be somebody else's by now.
    end([int(entry.name) for entry in registered.iterdir()] if registered.is_dir() else [], wait=wait)
    remove_shared_memory(directory.name)
    shutil.rmtree(directory, ignore_errors=True)


def supervise(directory: Path, channel: int, command: list[str]) -> int:
    """Run `command` with the descriptor `channel` until it ends or the user's end of stdin closes; then sweep.

    Any byte on stdin, a signal, or a change of our parent mean the same as a closed stdin: forked helpers of the user's
    process may keep a copy of the pipe open. Returns the command's exit code, or 0 where it was ended.
    """
    parent = os.getppid()
    wake = wake_on(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    adopt_orphans()
    child = _start(command, channel)
    (directory / "groups" / str(child)).touch()
    os.close(channel)
    code: int | None = None
    while code is None and os.getppid() == parent:
        readable, _, _ = select.select([0, wake.fileno()], [], [], _POLL_S)
        if 0 in readable or set(drain(wake)) - {signal.SIGCHLD}:
            break
        code = reap().get(child)
    sweep(directory)
    return code or 0


def _start(command: list[str], channel: int) -> int:
    supervisor = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        die_with_parent(supervisor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        os.set_inheritable(channel, True)
        os.execv(command[0], command)  # noqa: S606  no shell is the point
    finally:
        os._exit(127)


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
