"""The nodes of a NIR graph, those of graphs inside it in their place, as pieces that layers are made of."""

from __future__ import annotations

import itertools
from typing import Any

from toolchain.errors import UnsupportedError
from toolchain.nets.cut import Part, cut

_PASSING = {"Input", "Output"}


def pieces(graph: Any) -> list[tuple[str, Any] | Part]:
    """Return the nodes by dotted name, from input to output, those of graphs inside the graph in their place.

    Raises UnsupportedError, naming a node, for circles, loose ends, and branches that do not begin in spikes.
    """
    nodes, edges = _flat(graph)
    return cut(*_without_passing(nodes, edges), spiking=lambda node: type(node).__name__ in {"IF", "LIF"})


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


def _unsupported(where: str, reason: str) -> UnsupportedError:
    return UnsupportedError(where=where, reason=reason)
