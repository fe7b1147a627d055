"""A graph of layers in an order they can be run in, cut where all paths meet: single layers, and parts with branches."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolchain.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Nodes with branches between the spikes before them and those of the last. Equation: a node takes the sum of its sources.

    sources: by name, the node before the part among them, called `begin`; ends: where no neurons hear all branches, the nodes
    whose sum the part gives.
    """

    begin: str
    nodes: dict[str, Any]
    sources: dict[str, tuple[str, ...]]
    ends: tuple[str, ...] = ()


def cut(
    nodes: Mapping[str, Any], edges: Sequence[tuple[str, str]], *, spiking: Callable[[Any], bool]
) -> list[tuple[str, Any] | Part]:
    """Return the nodes from input to output, by name, those between branches as parts; `spiking` tells which are neurons.

    Raises UnsupportedError, naming a node, for circles, loose ends, and branches that do not begin in spikes.
    """
    order = _ordered(nodes, edges)
    at = {name: index for index, name in enumerate(order)}
    before: dict[str, list[str]] = {name: [] for name in nodes}
    after: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in sorted(edges, key=lambda edge: (at[edge[0]], at[edge[1]])):  # in whatever order they came
        after[source].append(target)
        before[target].append(source)
    for name in order[1:]:
        if not before[name]:
            raise _unsupported(name, f"no edges lead to it, nor to {order[0]}; a network has one input")
    for name in order[:-1]:
        if not after[name]:
            raise _unsupported(name, f"no edges leave it, nor {order[-1]}; a network has one output")
    graph = _Graph(nodes=nodes, before=before, after=after, spiking={name for name in nodes if spiking(nodes[name])})
    return list(_pieces(graph, order))


def _ordered(nodes: Mapping[str, Any], edges: Sequence[tuple[str, str]]) -> list[str]:
    """Return the nodes behind all that lead to them, otherwise in their own order."""
    if not nodes:
        raise _unsupported("graph", "it has no nodes")
    place = {name: index for index, name in enumerate(nodes)}
    missing = dict.fromkeys(nodes, 0)
    after: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        missing[target] += 1
        after[source].append(target)
    names = list(nodes)
    ready = [place[name] for name in nodes if not missing[name]]
    order: list[str] = []
    while ready:
        order.append(names[heapq.heappop(ready)])
        for target in after[order[-1]]:
            missing[target] -= 1
            if not missing[target]:
                heapq.heappush(ready, place[target])
    if len(order) < len(nodes):
        stuck = min(set(nodes) - set(order))
        raise _unsupported(stuck, "it is in a circle or behind one; layers of a network have none")
    return order


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    nodes: Mapping[str, Any]
    before: Mapping[str, Sequence[str]]
    after: Mapping[str, Sequence[str]]
    spiking: set[str]


def _pieces(graph: _Graph, order: Sequence[str]) -> Iterator[tuple[str, Any] | Part]:
    """Yield the nodes through which all paths go, and the parts between them."""
    rest = list(reversed(order))
    while rest:
        name = rest.pop()
        yield name, graph.nodes[name]
        while len(graph.after[name]) > 1:
            part = _part(name, graph, rest)
            yield part
            if part.ends:
                break
            name = next(reversed(part.nodes))


def _part(begin: str, graph: _Graph, rest: list[str]) -> Part:
    """Return the nodes, taken from the end of `rest`, up to the next neurons that all paths from `begin` go through.

    Without such neurons, up to the first other node that they go through.
    """
    if begin not in graph.spiking:
        reason = f"it leads to {' and '.join(graph.after[begin])}, and sends no spikes, which alone can skip layers"
        raise _unsupported(begin, reason)
    inside: list[str] = []
    open_ends = set(graph.after[begin])
    meeting: int | None = None
    while rest:
        name = rest.pop()
        open_ends.discard(name)
        if not open_ends and name in graph.spiking:
            return _of(begin, [*inside, name], graph)
        if not open_ends and meeting is None:
            meeting = len(inside)
        inside.append(name)
        open_ends |= set(graph.after[name])
    assert meeting is not None  # the last node, if no other
    rest += reversed(inside[meeting:])
    return _of(begin, inside[:meeting], graph, ends=tuple(graph.before[inside[meeting]]))


def _of(begin: str, names: Sequence[str], graph: _Graph, ends: tuple[str, ...] = ()) -> Part:
    nodes = {name: graph.nodes[name] for name in names}
    return Part(begin=begin, nodes=nodes, sources={name: tuple(graph.before[name]) for name in names}, ends=ends)


def _unsupported(where: str, reason: str) -> UnsupportedError:
    return UnsupportedError(where=where, reason=reason)
