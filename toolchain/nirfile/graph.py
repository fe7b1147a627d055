"""The nodes of a NIR graph in an order they can be run in, cut where all paths meet: single nodes, and parts with branches."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolchain.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SPIKING = {"IF", "LIF"}
_PASSING = {"Input", "Output"}


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


def pieces(graph: Any) -> list[tuple[str, Any] | Part]:
    """Return the nodes by dotted name, from input to output, those of graphs inside the graph in their place.

    Raises UnsupportedError, naming a node, for circles, loose ends, and branches that do not begin and end in spikes.
    """
    nodes, edges = _flat(graph)
    nodes, edges = _without_passing(nodes, edges)
    order = _ordered(nodes, edges)
    at = {name: index for index, name in enumerate(order)}
    edges.sort(key=lambda edge: (at[edge[0]], at[edge[1]]))  # a file holds them in any order
    before: dict[str, list[str]] = {name: [] for name in nodes}
    after: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        after[source].append(target)
        before[target].append(source)
    for name in order[1:]:
        if not before[name]:
            raise _unsupported(name, f"no edges lead to it, nor to {order[0]}; a network has one input")
    for name in order[:-1]:
        if not after[name]:
            raise _unsupported(name, f"no edges leave it, nor {order[-1]}; a network has one output")
    return list(_cut(nodes, order, before, after))


def _flat(graph: Any, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return nodes and edges by dotted name; graphs inside are joined by the nodes at their ends."""
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    for name, node in graph.nodes.items():
        path = prefix + name
        if type(node).__name__ != "NIRGraph":
            _put(nodes, path, node)
            first[name] = last[name] = path
            continue
        inner, joined = _flat(node, f"{path}.")
        if not inner:
            raise _unsupported(path, "it is a graph without nodes")
        for other in inner:
            _put(nodes, other, inner[other])
        edges += joined
        first[name] = _end(path, inner, {target for _, target in joined})
        last[name] = _end(path, inner, {source for source, _ in joined})
    for source, target in graph.edges:
        if source not in last or target not in first:
            raise _unsupported(prefix + source, f"it is joined to {target}, and one of them is no node of the graph")
        edges.append((last[source], first[target]))
    return nodes, edges


def _put(nodes: dict[str, Any], path: str, node: Any) -> None:
    if path in nodes:
        raise _unsupported(path, "two nodes have this name")
    nodes[path] = node


def _end(path: str, nodes: dict[str, Any], joined: set[str]) -> str:
    """Return the one node that no edge leads to, or leaves."""
    found = [name for name in nodes if name not in joined]
    if len(found) != 1:
        raise _unsupported(path, f"it is a graph of {len(found)} ends where one can be joined")
    return found[0]


def _without_passing(
    nodes: dict[str, Any], edges: list[tuple[str, str]]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return nodes and edges without the ends of inner graphs, which hand on what they are given."""
    found = dict.fromkeys(edges)
    kept = dict(nodes)
    for name in [name for name, node in nodes.items() if type(node).__name__ in _PASSING]:
        sources = [source for source, target in found if target == name]
        targets = [target for source, target in found if source == name]
        if sources and targets and name not in targets:
            del kept[name]
            found = dict.fromkeys([*(edge for edge in found if name not in edge), *itertools.product(sources, targets)])
    return kept, list(found)


def _ordered(nodes: dict[str, Any], edges: Sequence[tuple[str, str]]) -> list[str]:
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
        raise _unsupported(
            min(set(nodes) - set(order)), "it is in a circle or behind one; layers of a network have none"
        )
    return order


def _cut(
    nodes: dict[str, Any], order: Sequence[str], before: dict[str, list[str]], after: dict[str, list[str]]
) -> Iterator[tuple[str, Any] | Part]:
    """Yield the nodes through which all paths go, and the parts between them."""
    rest = list(reversed(order))
    while rest:
        name = rest.pop()
        yield name, nodes[name]
        while len(after[name]) > 1:
            part = _part(name, nodes, rest, before, after)
            yield part
            if part.ends:
                break
            name = next(reversed(part.nodes))


def _part(
    begin: str, nodes: dict[str, Any], rest: list[str], before: dict[str, list[str]], after: dict[str, list[str]]
) -> Part:
    """Return the nodes, taken from the end of `rest`, up to the next neurons that all paths from `begin` go through.

    Without such neurons, up to the first other node that they go through.
    """
    if type(nodes[begin]).__name__ not in SPIKING:
        reason = f"it leads to {' and '.join(after[begin])}, and sends no spikes, which alone can skip layers"
        raise _unsupported(begin, reason)
    inside: list[str] = []
    open_ends = set(after[begin])
    meeting: int | None = None
    while rest:
        name = rest.pop()
        open_ends.discard(name)
        if not open_ends and type(nodes[name]).__name__ in SPIKING:
            return _of(begin, [*inside, name], nodes, before)
        if not open_ends and meeting is None:
            meeting = len(inside)
        inside.append(name)
        open_ends |= set(after[name])
    assert meeting is not None  # the last node, if no other
    rest += reversed(inside[meeting:])
    return _of(begin, inside[:meeting], nodes, before, ends=tuple(before[inside[meeting]]))


def _of(
    begin: str, names: Sequence[str], nodes: dict[str, Any], before: dict[str, list[str]], ends: tuple[str, ...] = ()
) -> Part:
    held = {name: nodes[name] for name in names}
    return Part(begin=begin, nodes=held, sources={name: tuple(before[name]) for name in names}, ends=ends)


def _unsupported(where: str, reason: str) -> UnsupportedError:
    return UnsupportedError(where=where, reason=reason)
