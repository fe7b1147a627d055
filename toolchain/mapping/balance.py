"""Tiles for layers that share cores: what one layer leaves of a core another uses, so the scarcest resource counts.

Every layer has options: a format and a tile, with what all its tiles together spend. Of all choices of one option a layer, the
one is sought whose scarcest resource, summed over layers, fills the fewest cores. Resources get prices, the cheapest choice
along the chain is found exactly, and prices of what it uses most rise. Tiles that lie on cores later are measured exactly
there; here one tile stands for those that differ only in their channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from toolchain.mapping import cost
from toolchain.mapping.cost import GROUPS, IN, LONGEST, NEURONS, OUT, WORDS
from toolchain.mapping.fill import Plan
from toolchain.mapping.job import Strip
from toolchain.profile import ListMemory

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.mapping.job import Job

    Floats = npt.NDArray[np.float64]

_ROUNDS = 40
_SIDES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_FEW = (8, 6, 5, 4, 3, 2, 1)


@dataclass(frozen=True, slots=True)
class Option:
    """A layer in one format and tile. words, axons: of all its tiles.

    heard: cells (or, where a map position's channels share an axon, positions) that its tiles hear, all together.
    """

    form: str
    tile: tuple[int, int, int]
    words: float
    axons: float
    heard: float
    discrete: bool
    n_parts: int


def options(job: Job, forms: tuple[str, ...], caps: cost.Caps) -> list[Option]:
    """Every format, and tiles of every size that fit a core by themselves, as far as is known without the layer behind."""
    channels, height, width = job.shape
    found = []
    for form in _worth(job, forms):
        for th, tw in _areas(height, width, int(caps[NEURONS])):
            for size in dict.fromkeys([*(-(-channels // n) for n in _PARTS if n <= channels), *_FEW]):
                if size > channels:
                    continue
                if th * tw * size <= caps[NEURONS]:
                    option = _option(job, form, caps, (th, tw, size))
                    if option:
                        found.append(option)
    return found


def _worth(job: Job, forms: tuple[str, ...]) -> list[str]:
    """The shared kernel, and of the listed formats the one of the fewest bits."""
    lists = [form for form in forms if form not in {"shared", "bias"}]
    rows, cols = (_merged(job.strips(axis, job.shape[1 + axis])) for axis in (0, 1))
    words = {form: int(cost.synapses(job, form, rows, cols, [(0, job.shape[0])]).words[0]) for form in lists}
    return [*(form for form in forms if form in {"shared", "bias"}), *sorted(lists, key=lambda form: words[form])[:1]]


def _areas(height: int, width: int, most: int) -> list[tuple[int, int]]:
    """Heights and widths of tiles, none twice as long as wide unless the map is."""
    areas = []
    for th in (n for n in _SIDES if n <= height):
        for tw in (n for n in _SIDES if n <= width):
            square = max(th, tw) <= 2 * min(th, tw) or th == height or tw == width
            if square and th * tw <= most:
                areas.append((th, tw))
    return areas


def _option(job: Job, form: str, caps: cost.Caps, tile: tuple[int, int, int]) -> Option | None:
    channels = job.shape[0]
    rows, cols = job.strips(0, tile[0]), job.strips(1, tile[1])
    # The strip that hears most stands for the largest tile.
    worst = [max(strips, key=lambda strip: sum(strip.times)) for strips in (rows, cols)]
    part = (0, tile[2])
    found = cost.synapses(job, form, worst[0], worst[1], [part])
    over = found.words[0] > caps[WORDS] or found.axons[0] > caps[IN] or found.longest[0] > caps[LONGEST]
    if over or job.thresholds(part) > caps[GROUPS]:
        return None
    merged = _merged(rows), _merged(cols)
    n_parts = -(-channels // tile[2])
    stored = merged if form != "shared" else (_joined(rows), _joined(cols))
    every = cost.synapses(job, form, *stored, [part])
    scale = channels / tile[2]
    discrete = cost.discrete(form, job.memory)
    positions = sum(merged[0].times) * sum(merged[1].times)
    axons = float(every.axons[0]) * scale if discrete else positions * n_parts
    return Option(
        form=form,
        tile=tile,
        words=float(every.words[0]) * scale,
        axons=axons,
        heard=axons,
        discrete=discrete,
        n_parts=n_parts,
    )


def _merged(strips: list[Strip]) -> Strip:
    """One strip that stands for all of them: its sets, each as often as in all together."""
    times: dict[tuple[int, ...], int] = {}
    for strip in strips:
        for taps, n in zip(strip.sets, strip.times, strict=True):
            times[taps] = times.get(taps, 0) + n
    n_heard = sum(times.values())
    return Strip(strips[0].span, tuple(times), tuple(times.values()), tuple(range(n_heard)), ())


def _joined(strips: list[Strip]) -> Strip:
    """One strip with all sets of all of them: each stores a kernel of its own."""
    sets = tuple(taps for strip in strips for taps in strip.sets)
    return Strip(strips[0].span, sets, tuple(1 for _ in sets), tuple(range(len(sets))), ())


def choose(
    chain: list[tuple[Job, list[Option]]], caps: cost.Caps, margin: float, *, remote: bool
) -> tuple[list[Plan], float] | None:
    """One plan a layer, in the order of layers, and the cores that the scarcest resource fills; or None where none goes with the next layer's.

    margin: share of a core's output slots that a tile may need by the mean of its layer; remote: whether every axon is charged
    as one to another chip.
    """
    if not all(found for _, found in chain):
        return None
    caps = np.maximum(1, caps)  # what has room for nothing is asked for nothing: nothing else is among the options
    neurons = sum(math.prod(job.shape) for job, _ in chain) / caps[NEURONS]
    own = [np.array([[o.words / caps[WORDS], o.axons / caps[IN]] for o in found]) for _, found in chain]
    pairs = [_slots(one, other, caps, margin, remote) for one, other in pairwise(chain)]
    prices = np.array([1.0, 1.0, 1.0])
    best: tuple[float, list[int]] | None = None
    for _ in range(_ROUNDS):
        picked = _cheapest(own, pairs, prices)
        if picked is None:
            return None
        used = sum((spent[at] for spent, at in zip(own, picked, strict=True)), np.zeros(2))
        slots = sum(pair[one, other] for pair, one, other in zip(pairs, picked, picked[1:], strict=False))
        totals = np.array([*used, slots])
        worst = max(neurons, float(totals.max()))
        if best is None or worst < best[0]:
            best = worst, picked
        prices = prices * np.exp(0.5 * (totals - totals.max()) / max(totals.max(), 1e-9))
        prices = np.maximum(prices / prices.sum(), 1e-3)
    if best is None:
        return None
    plans = [
        Plan(job=job, form=found[at].form, tile=found[at].tile) for (job, found), at in zip(chain, best[1], strict=True)
    ]
    return plans, best[0]


def _slots(
    one: tuple[Job, list[Option]],
    other: tuple[Job, list[Option]],
    caps: cost.Caps,
    margin: float,
    remote: bool,
) -> Floats:
    """Cores' worth of output slots of the first layer's tiles for each pair of options; infinite where a tile needs too many."""
    job, pool, memory = one[0], other[0].layer.pool, other[0].memory
    assert isinstance(memory, ListMemory)
    heard = np.array([option.heard for option in other[1]]) * pool**2
    discrete = np.array([option.discrete for option in other[1]])
    parts = np.array([option.n_parts for option in one[1]])
    each = (
        np.where(discrete, memory.slots_discrete.value, memory.slots_shared.value) + remote * memory.slots_remote.value
    )
    total = heard * each * np.where(discrete, 1, parts[:, None])
    tiles = np.array([math.prod(job.shape) / math.prod(option.tile) for option in one[1]])
    slots: Floats = np.where(total / tiles[:, None] > margin * caps[OUT], math.inf, total / caps[OUT])
    return slots


def _cheapest(own: list[Floats], pairs: list[Floats], prices: Floats) -> list[int] | None:
    """The option of each layer that together cost least, found from the first layer on."""
    costs = own[0] @ prices[:2]
    back = []
    for pair, spent in zip(pairs, own[1:], strict=True):
        through = costs[:, None] + pair * prices[2]
        back.append(through.argmin(axis=0))
        costs = through.min(axis=0) + spent @ prices[:2]
    if not len(costs) or not math.isfinite(costs.min()):
        return None
    picked = [int(costs.argmin())]
    for steps in reversed(back):
        picked.insert(0, int(steps[picked[0]]))
    return picked
