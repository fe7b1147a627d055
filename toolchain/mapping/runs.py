"""Run-length lists: a synapse stores how many silent targets it skips instead of an index.

The targets of a tap are the channels of a map position. An entry begins at a tap's first synapse, at one whose gap the skip
cannot hold, and at each `entry_synapses`-th of a run. So that pruning never lengthens a list, a synapse takes at least as
many bits as an entry's header: narrow weights are stored wider.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.placement import Range
    from toolchain.profile import ListMemory

    Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Runs:
    """Of the skip width that takes the fewest bits: bits a synapse, and where entries begin.

    Shapes: begun (Cout + 1, sources, kh, kw), entries of the first c channels; bound, whether the next synapse from channel c
    on begins one.
    """

    bits: int
    begun: npt.NDArray[np.int32]
    bound: Bools
    counts: npt.NDArray[np.int32]

    def entries(self, pieces: list[Range]) -> npt.NDArray[np.int64]:
        """Entries of each source and tap within ranges of channels: those begun there, and the first where it is cut from its run."""
        first, last = np.array(pieces).T
        cut = (self.counts[last] > self.counts[first]) & ~self.bound[first]
        entries: npt.NDArray[np.int64] = (self.begun[last] - self.begun[first] + cut).astype(np.int64)
        return entries


def runs_of(nonzero: Bools, bits: int, memory: ListMemory) -> Runs:
    """Return where entries begin. Shape: nonzero (Cout, sources, kh, kw)."""
    n, header = int(nonzero.sum()), memory.entry_bits.value
    options = []
    for skip in sorted(memory.skip_bits.value):
        starts = _starts(nonzero, 1 << skip, memory.entry_synapses.value)
        each = max(bits, header - skip) + skip
        options.append((n * each + header * int(starts.sum()), each, starts))
    _, each, starts = min(options, key=lambda option: option[0])
    begun, counts = (np.zeros((len(nonzero) + 1, *nonzero.shape[1:]), dtype=np.int32) for _ in range(2))
    np.cumsum(starts, axis=0, out=begun[1:])
    np.cumsum(nonzero, axis=0, out=counts[1:])
    bound = np.ones((len(nonzero) + 1, *nonzero.shape[1:]), dtype=bool)
    for c in range(len(nonzero) - 1, -1, -1):
        bound[c] = np.where(nonzero[c], starts[c], bound[c + 1])
    return Runs(each, begun, bound, counts)


def _starts(nonzero: Bools, reach: int, most: int) -> Bools:
    """Whether a synapse begins an entry."""
    starts = np.zeros_like(nonzero)
    last = np.full(nonzero.shape[1:], -reach - 1, dtype=np.int32)
    length = np.zeros(nonzero.shape[1:], dtype=np.int32)
    for c, has in enumerate(nonzero):
        starts[c] = has & ((c - last - 1 >= reach) | (length % most == 0))
        length = np.where(has, np.where(c - last - 1 >= reach, 1, length + 1), length)
        last = np.where(has, c, last)
    return starts
