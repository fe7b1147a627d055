"""What there is of a Lava session on this machine: its name is in all its processes, shared memory and files."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

import pytest


def processes(name):
    """Lava's processes of a session, its own helpers not among them."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if name.encode() in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def leaves(name):
    """One process of a running network: a child of its main process, and no manager or tracker (they come first)."""
    parents = processes(name)
    main = max(set(parents.values()), key=list(parents.values()).count)
    return sorted(process for process, parent in parents.items() if parent == main)


def segments():
    return {entry.name for entry in Path("/dev/shm").iterdir()}


def shared_memory(name):
    return [entry for entry in segments() if name in entry]


def assert_nothing_left(name, within_s=5.0):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        left = [*processes(name), *shared_memory(name), *Path(tempfile.gettempdir()).glob(f"{name}*")]
        if not left:
            return
        time.sleep(0.02)
    pytest.fail(f"left: {left}")
