"""What a part of a layer spends on a core, by the memory formula of a profile and the format of the layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir import Conv
from toolchain.mapping.runs import Runs, runs_of
from toolchain.profile import BudgetMemory, ListMemory

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.mapping.job import Job, Memory, Strip
    from toolchain.placement import Range
    from toolchain.profile import HardwareProfile

    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]
    Caps = npt.NDArray[np.int64]

RESOURCES = (
    ("neurons", "neurons", "neurons"),
    ("synapse_words", "synaptic memory", "words"),
    ("axons_in", "input axons", ""),
    ("axons_out", "output axons", "slots"),
    ("axon_map_words", "axon map", "words"),
    ("axon_mem_words", "axon memory", "words"),
    ("total_words", "total memory", "words"),
    ("groups", "distinct thresholds", "groups"),
    ("layers", "layers", "layers"),
    ("list_words", "synapse list", "words"),
)
"""What a core has only so much of: its name in a profile, in words, and its unit (of input axons, the profile's)."""
NEURONS, WORDS, IN, OUT, MAP, MEM, TOTAL, GROUPS, LAYERS, LONGEST = range(len(RESOURCES))
FREE = np.iinfo(np.int64).max // 2
"""A limit the chip does not have."""


def caps_of(profile: HardwareProfile) -> Caps:
    """The limits as planned for: `max_fill` of the neurons and of all memory but a list's own length. Shape: (RESOURCES,)."""
    caps = np.full(len(RESOURCES), FREE, dtype=np.int64)
    fill = Fraction(str(profile.core.max_fill.value))
    for index, (name, _, _) in enumerate(RESOURCES):
        limit = getattr(profile.core, name)
        if limit is not None:
            filled = limit.unit in {"neurons", "words"} and name != "list_words"
            caps[index] = math.floor(limit.value * fill) if filled else limit.value
    return caps


def formats(job: Job) -> tuple[str, ...]:
    """How the synapses of a layer can be stored on a chip."""
    if job.driven:
        return ("bias",)
    memory = job.memory
    lists = ("dense", "run-length", "sparse") if isinstance(memory, ListMemory) else ("dense", "sparse")
    if job.bits == 1 and not job.layer.weight.all():  # a bit is a sign: what is no synapse must not be stored
        return lists[1:]
    if not isinstance(job.layer, Conv):
        return lists
    return ("shared", *lists) if isinstance(memory, ListMemory) else ("shared", "sparse")


def discrete(form: str, memory: Memory) -> bool:
    """Whether each source neuron has an axon of its own; else a map position's share one."""
    return form not in {"shared", "bias"} and (isinstance(memory, BudgetMemory) or memory.list_axons == "discrete")


@dataclass(frozen=True, slots=True)
class Synapses:
    """What the synapses of a tile take, for each of several channel ranges. Shapes: (ranges,)."""

    words: Ints
    longest: Ints
    axons: Ints


def synapses(job: Job, form: str, rows: Strip, cols: Strip, cuts: list[Range]) -> Synapses:
    """What the synapses of the tiles rows x cols x each range of `cuts` take."""
    memory = job.memory
    if form == "bias":
        return Synapses(*(np.zeros(len(cuts), dtype=np.int64) for _ in range(3)))
    if form == "shared":
        found = [_shared(job, rows, cols, c) for c in cuts]
        return Synapses(*(np.array(column, dtype=np.int64) for column in zip(*found, strict=True)))
    pieces = [(index, piece) for index, c in enumerate(cuts) for _, piece in job.pieces(c)]
    neurons = (rows.span[1] - rows.span[0]) * (cols.span[1] - cols.span[0])
    index = np.array([_index_bits(memory, form, neurons * (c[1] - c[0])) for c in cuts])
    at = np.array([index_ for index_, _ in pieces])
    n, bits = _list_bits(job, form, (rows, cols), [piece for _, piece in pieces], index[at])
    words = np.where(n > 0, _listed_words(memory, bits), 0)
    times = np.outer(rows.times, cols.times)
    first = np.flatnonzero(np.r_[True, at[1:] != at[:-1]])
    axons = ((n > 0).sum(axis=1) * times).sum(axis=(1, 2))
    if isinstance(memory, BudgetMemory):
        axons = axons * memory.list_axon_words.value
    elif not discrete(form, memory):
        plane = job.plane if not isinstance(job.layer, Conv) else (len(rows.heard), len(cols.heard))
        axons = np.full(len(pieces), plane[0] * plane[1])
    return Synapses(
        np.add.reduceat((words.sum(axis=1) * times).sum(axis=(1, 2)), first),
        np.maximum.reduceat(words.max(axis=(1, 2, 3), initial=0), first),
        np.add.reduceat(axons, first) if discrete(form, memory) else axons[first],
    )


def heard(job: Job, form: str, rows: Strip, cols: Strip, c: Range) -> tuple[Range, Bools]:
    """Which cells a tile of listed synapses hears: their channels, and for each heard row and column whether it has a synapse."""
    low, high = job.hears(c)
    parts = []
    for _, piece in job.pieces(c):
        if form == "dense":
            parts.append(np.ones((job.nonzero.shape[1], len(rows.sets), len(cols.sets)), dtype=bool))
        else:
            parts.append(_over_taps(_difference(job.counts, [piece]), rows, cols)[0] > 0)
    cells = np.concatenate(parts)[:, list(rows.which)][:, :, list(cols.which)]
    return (low, high), cells


def _shared(job: Job, rows: Strip, cols: Strip, c: Range) -> tuple[int, int, int]:
    """Words of a tile's shared kernel, zeros stored, of its longest list, and its input axons."""
    memory, (sources, kh, kw) = job.memory, job.nonzero.shape[1:]
    widths = [last - first for _, (first, last) in job.pieces(c)]
    if isinstance(memory, BudgetMemory):
        header, word = memory.shared_header_bits.value, memory.word_bits.value
        words = sources * kh * kw * sum(-(-(width * job.bits + header) // word) for width in widths)
        return words, 0, memory.shared_axon_words.value
    taps = np.outer([len(taps) for taps in rows.sets], [len(taps) for taps in cols.sets])
    n = np.multiply.outer(np.array(widths), taps)
    lists = _listed_words(memory, n * job.bits + memory.entry_bits.value * -(-n // memory.entry_synapses.value))
    return sources * int(lists.sum()), int(lists.max(initial=0)), len(rows.heard) * len(cols.heard)


def _list_bits(job: Job, form: str, area: tuple[Strip, Strip], pieces: list[Range], index: Ints) -> tuple[Ints, Ints]:
    """Synapses and bits of the list of each source channel and pair of tap sets. Shapes: (pieces, sources, row sets, col sets)."""
    memory, (rows, cols) = job.memory, area
    header, most = memory.entry_bits.value, memory.entry_synapses.value
    widths = np.array([last - first for first, last in pieces])
    if form == "dense":
        stored = np.broadcast_to(widths[:, None, None, None], (len(pieces), *job.nonzero.shape[1:]))
        n = _over_taps(stored, rows, cols)
        if isinstance(memory, BudgetMemory):
            return n, n * (job.bits + memory.synapse_bits.value) + header * -(-n // most)
        return n, _over_taps(stored * job.bits + header * -(-stored // most), rows, cols)
    stored = _difference(job.counts, pieces)
    n = _over_taps(stored, rows, cols)
    if isinstance(memory, ListMemory) and form == "run-length":
        runs = _runs(job, memory)
        return n, _over_taps(stored * runs.bits + header * runs.entries(pieces), rows, cols)
    extra = memory.synapse_bits.value if isinstance(memory, BudgetMemory) else index[:, None, None, None]
    return n, n * (job.bits + extra) + header * -(-n // most)


def _runs(job: Job, memory: ListMemory) -> Runs:
    if "runs" not in job.__dict__:
        job.__dict__["runs"] = runs_of(job.nonzero, job.bits, memory)
    found: Runs = job.__dict__["runs"]
    return found


def _difference(total: npt.NDArray[np.int32], pieces: list[Range]) -> Ints:
    first, last = np.array(pieces).T
    difference: Ints = (total[last] - total[first]).astype(np.int64)
    return difference


def _over_taps(per_tap: Ints, rows: Strip, cols: Strip) -> Ints:
    """Sums over the taps of each pair of sets. Shapes: (P, S, kh, kw) -> (P, S, row sets, col sets)."""
    if per_tap.shape[2:] == (1, 1):
        return per_tap
    left, right = _members(rows, per_tap.shape[2]), _members(cols, per_tap.shape[3])
    summed: Ints = np.rint(left @ (per_tap.astype(np.float64) @ right.T)).astype(np.int64)
    return summed


def _members(strip: Strip, n_taps: int) -> npt.NDArray[np.float64]:
    """Whether a set has a tap. Shape: (sets, taps)."""
    member = np.zeros((len(strip.sets), n_taps))
    for index, taps in enumerate(strip.sets):
        member[index, list(taps)] = 1
    return member


def _index_bits(memory: Memory, form: str, neurons: int) -> int:
    if form != "sparse" or isinstance(memory, BudgetMemory):
        return 0
    return max(memory.index_bits_min.value, (neurons - 1).bit_length())


def _listed_words(memory: Memory, bits: Ints) -> Ints:
    """Words of lists of so many bits, one more where the last word has none or at least `spill_bits` of them."""
    words: Ints = -(-bits // memory.word_bits.value)
    if isinstance(memory, ListMemory):
        left = bits % memory.word_bits.value
        words = words + ((bits > 0) & ((left == 0) | (left >= memory.spill_bits.value)))
    return words


def load(job: Job, found: tuple[int, int, int], tile: tuple[Range, Range, Range], slots: int) -> npt.NDArray[np.int64]:
    """What a core spends on a tile. found: its words, longest list and input axons; slots: axons out, or axon map words."""
    words, longest, axons = found
    neurons = math.prod(last - first for first, last in tile)
    groups = job.thresholds(tile[2])
    out, axon_map, total = (slots, 0, words)
    if isinstance(job.memory, BudgetMemory):
        out, axon_map, total = 0, slots, words + axons + groups + neurons + slots
    return np.array([neurons, words, axons, out, axon_map, 0, total, groups, 1, longest], dtype=np.int64)
