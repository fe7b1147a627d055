"""What a bench is made of. A bench is a module of this folder with a docstring, which heads its section, and `rows()`, which yields its rows.

`make bench` runs them all, `make bench ONLY=emulator` some. A bench may also have `plots(rows)`, which yields (name, matplotlib figure).
Benches compare: what they divide was measured in one run, in turns, so that whatever else the machine did met both.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import platform
import resource
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a bench's table.

    Attributes: case, what was done (`VGG-16, 90 % sparse, T 8`); subject, which program did it; value, the median, and low and
    high, the extremes, in `unit` (`ms/image`); ratio, the value divided by that of `against`, another subject of the same case; target,
    what the ratio or the value should be; facts, numbers for the plots.
    """

    case: str
    subject: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    memory_bytes: int | None = None
    ratio: float | None = None
    against: str = ""
    target: str = ""
    note: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long a subject took in each round. Units: seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median round."""
        return statistics.median(self.seconds)

    def ratio(self, against: Timing) -> float:
        """The median over rounds of this time divided by the other's of the same round."""
        return statistics.median(a / b for a, b in zip(self.seconds, against.seconds, strict=True))

    def row(self, *, case: str, subject: str, unit: str, per: float = 1.0, **more) -> Row:
        """A row of this timing, divided by `per` (images, steps), in `s/...` or `ms/...` as `unit` says."""
        scale = (1000 if unit.startswith("ms") else 1) / per
        low, value, high = (scale * one for one in (min(self.seconds), self.median, max(self.seconds)))
        return Row(case=case, subject=subject, unit=unit, value=value, low=low, high=high, **more)


def race(subjects: Mapping[str, Callable[[], object]], *, rounds: int = 5, warm_up: int = 1) -> dict[str, Timing]:
    """Return how long each subject takes, all of them once a round, every other round in reverse order."""
    for subject in subjects.values():
        for _ in range(warm_up):
            subject()
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    gc.collect()
    for number in range(rounds):
        for name in reversed(subjects) if number % 2 else subjects:
            start = time.perf_counter()
            subjects[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(seconds=tuple(taken)) for name, taken in seconds.items()}


def peak_bytes(prepare: Callable[..., Callable[[], object]], *given: object) -> int:
    """Return by how much the memory of a fresh process grows at most while it runs what `prepare(*given)` returns.

    prepare: a function of a module, so that another process finds it.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_measure, args=(queue, prepare, given))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{prepare.__module__}.{prepare.__qualname__}{given} ended with {process.exitcode}")
    return queue.get()


def _measure(queue, prepare: Callable[..., Callable[[], object]], given) -> None:
    subject = prepare(*given)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed but is still held would hide as much of the growth
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _resident("VmRSS")
    subject()
    queue.put(_resident("VmHWM") - before)


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def machine() -> str:
    """Return what the figures depend on: processor, memory, threads, versions."""
    import numpy as np
    import torch

    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        model,
        torch.backends.cpu.get_cpu_capability(),
        f"{len(os.sched_getaffinity(0))} cores",
        f"{torch.get_num_threads()} threads",
        f"{memory:.0f} GiB",
        platform.system(),
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
        f"numpy {np.__version__}",
    ]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)
