"""Which layer gives up what: a walk from the model as it is to one that needs ever fewer cores, at the least damage a core.

The walk does not know the budget; it only stops at it. Each layer moves along its frontier, never back beyond a place where
the network had reached fewer cores. So a smaller budget ends further on the same walk: its damage is never less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Places = dict[str, int]
    """Layer -> how far along its frontier it is"""
    Frontiers = Mapping[str, tuple["Option", ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What a layer could become.

    damage: what that alone does to the network's answers; cost: cores it would fill, a share of a core counting as such,
    infinite where it fits no core.
    """

    sparsity: float
    weight_bits: int
    damage: float
    cost: float


def frontier(options: Iterable[Option]) -> tuple[Option, ...]:
    """Return the options that no other beats in both, damage rising and cost falling; none that fits no core."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda option: (option.damage, option.cost, option.sparsity)):
        if option.cost < (kept[-1].cost if kept else math.inf):
            kept.append(option)
    return tuple(kept)


def walk(frontiers: Frontiers, cores: Callable[[Places], int], budget: int) -> tuple[Places, int]:
    """Return how far each layer goes, and the cores then needed: the budget or fewer, else the fewest there are.

    cores: of the whole network, of layers so far along their frontiers.
    """
    places = dict.fromkeys(frontiers, 0)
    needed = cores(places)
    while needed > budget:
        start, reached = dict(places), needed
        while reached >= needed:
            name = _least_damage(frontiers, places)
            if name is None:
                return start, needed
            places[name] += 1
            reached = cores(places)
        _take_back(frontiers, places, start, cores, reached)
        needed = reached
    return places, needed


def damage(frontiers: Frontiers, places: Places) -> float:
    """The sum of the damages of all layers."""
    return sum(frontiers[name][place].damage for name, place in places.items())


def _least_damage(frontiers: Frontiers, places: Places) -> str | None:
    """The layer that gives up cores at the least damage each, looking ahead to where its frontier is best."""
    slopes = {
        (other.damage - here.damage) / (here.cost - other.cost): name
        for name, options in reversed([*frontiers.items()])
        for here in [options[places[name]]]
        for other in options[places[name] + 1 :]
    }
    return slopes[min(slopes)] if slopes else None


def _take_back(
    frontiers: Frontiers, places: Places, start: Places, cores: Callable[[Places], int], reached: int
) -> None:
    """No layer has gone further since `start` than the cores reached ask for; what did most damage is tried first."""
    moved = [name for name in places if places[name] > start[name]]
    done = {name: frontiers[name][places[name]].damage - frontiers[name][start[name]].damage for name in moved}
    for name in sorted(moved, key=lambda name: -done[name]):
        while places[name] > start[name] and cores({**places, name: places[name] - 1}) <= reached:
            places[name] -= 1
