"""The layers that a module's forward runs, and their sums, and nothing else that it does: what is neither is refused."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from toolchain.adopt.neurons import is_neuron
from toolchain.errors import UnsupportedError
from toolchain.nets.cut import Part, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

_LIBRARIES = {"torch", "toolchain", "spikingjelly", "snntorch", "norse", "sinabs"}
"""Whose modules without children are layers; those of a user may be a forward to look into."""
KINDS = nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.AvgPool2d
_STATELESS = (nn.AvgPool2d, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity)
_FLATTENING: tuple[Any, ...] = (torch.flatten, torch.reshape, "flatten", "reshape", "view")
_ADDING: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
IMAGE, SUM = "the image", "the sum"
"""Names, which no module has, of what the first layers hear and of a sum that no layer hears."""
_SEQUENTIAL = "Pass a torch.nn.Sequential of its layers"


def pieces(module: nn.Module) -> list[tuple[str, nn.Module] | Part]:
    """Return the layers a module runs, by dotted path, and parts with skip connections; one without state that runs again gets a number.

    Symbolic tracing sees every operation on the input, so nothing is left out unseen. Raises UnsupportedError for a branch that
    does not begin in spikes, an operation that is neither a layer nor a sum, a layer with weights or state that runs twice, and a forward
    that cannot be traced.
    """
    followed = _Followed(module)
    for node in _traced(module).nodes:
        followed.take(node)
    found = cut(followed.nodes, followed.edges, spiking=is_neuron)
    return [piece for piece in found if isinstance(piece, Part) or piece[0] not in {IMAGE, SUM}]


class _Followed:
    """Layers and what they hear, as far as a trace is followed; `given` holds the layers that a value is the sum of."""

    def __init__(self, module: nn.Module) -> None:
        self.nodes: dict[str, nn.Module] = {IMAGE: nn.Identity()}
        self.edges: list[tuple[str, str]] = []
        self._module = module
        self._runs: dict[str, int] = {}
        self._given: dict[fx.Node, tuple[str, ...]] = {}
        self._sizes: set[fx.Node] = set()

    def take(self, node: fx.Node) -> None:
        """What a node computes is a layer, a sum, or nothing. Raises UnsupportedError."""
        if node.op == "output":
            self._end(node.args[0])
        elif node.op == "placeholder":
            if not self._given:
                self._given[node] = (IMAGE,)
            elif node.users:
                raise _unsupported("forward", f"it takes {node.target} beside the image")
        elif _is_size(node, self._sizes):
            self._sizes.add(node)
        elif _is_sum(node, self._given):
            self._given[node] = _summed(node, self._given)
        else:
            path, layer = _layer(self._module, node, self._given, self._sizes)
            path = self._numbered(path, layer)
            self.nodes[path] = layer
            self.edges += [(source, path) for source in self._given[node.all_input_nodes[0]]]
            self._given[node] = (path,)

    def _numbered(self, path: str, layer: nn.Module) -> str:
        """Return the path of a layer that runs, the second time with a number."""
        self._runs[path] = self._runs.get(path, 0) + 1
        if self._runs[path] == 1:
            return path
        if not isinstance(layer, _STATELESS):
            raise _unsupported(path, "it runs twice; a network of layers runs each once")
        return f"{path}.{self._runs[path]}"

    def _end(self, value: object) -> None:
        ends = self._given.get(value) if isinstance(value, fx.Node) else None
        if not ends:
            raise _unsupported("forward", "it returns something else than the output of its last layer")
        if len(ends) > 1:
            self.nodes[SUM] = nn.Identity()
            self.edges += [(end, SUM) for end in ends]


class _Tracer(fx.Tracer):
    """Follows a forward down to layers; `at` is the path of the module whose forward it is in."""

    def __init__(self) -> None:
        super().__init__()
        self.at = "forward"

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is a layer rather than a forward to look into."""
        del module_qualified_name
        library = type(m).__module__.partition(".")[0] in _LIBRARIES
        return is_neuron(m) or isinstance(m, KINDS) or (library and not isinstance(m, nn.Sequential))

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What fx does, with a note of where it is, which stays where it fails."""
        before, self.at = self.at, self.path_of_module(m)
        out = super().call_module(m, forward, args, kwargs)
        self.at = before
        return out


def _traced(module: nn.Module) -> fx.Graph:
    root = nn.Sequential(module) if _Tracer().is_leaf_module(module, "") else module
    tracer = _Tracer()
    try:
        graph: fx.Graph = tracer.trace(root)
    except UnsupportedError:
        raise
    except Exception as error:  # a user's forward can raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split()).partition(". ")[0]
        raise _unsupported(tracer.at, f"its forward cannot be traced ({what})", _SEQUENTIAL) from error
    return graph


def _is_size(node: fx.Node, sizes: AbstractSet[fx.Node]) -> bool:
    """Whether a node asks for a size, or for a part of one, and so computes nothing."""
    if node.op == "call_method":
        return node.target == "size"
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return "shape" in node.args
    return node.target is operator.getitem and set(node.all_input_nodes) <= sizes


def _is_sum(node: fx.Node, given: Mapping[fx.Node, object]) -> bool:
    """Whether a node adds two values."""
    adds = node.target in _ADDING and node.op in {"call_function", "call_method"}
    return adds and len(node.args) == 2 and not node.kwargs and all(value in given for value in node.args)


def _summed(node: fx.Node, given: Mapping[fx.Node, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the layers that a sum is of."""
    one, other = (given[value] for value in node.args if isinstance(value, fx.Node))
    if twice := set(one) & set(other):
        raise _unsupported(_where(node), f"it adds {min(twice)} twice")
    return (*one, *other)


def _layer(
    module: nn.Module, node: fx.Node, given: Mapping[fx.Node, object], sizes: AbstractSet[fx.Node]
) -> tuple[str, nn.Module]:
    """Return the layer that a node runs on a value, with its path."""
    if node.op == "call_module":
        path, layer = str(node.target), module.get_submodule(str(node.target))
    elif node.op in {"call_function", "call_method"} and node.target in _FLATTENING:
        path, layer = node.name, _flatten(node, sizes)
    else:
        name = getattr(node.target, "__name__", node.target)
        raise _unsupported(_where(node), f"it computes {name}, which is no layer", _SEQUENTIAL)
    taken = [source for source in node.all_input_nodes if source not in sizes]
    if len(taken) != 1 or node.args[0] is not taken[0] or taken[0] not in given:
        raise _unsupported(path, "it takes more than the output of a layer, or a sum of them")
    return path, layer


def _where(node: fx.Node) -> str:
    """Return the path of the module whose forward a node is in."""
    return next(reversed(node.meta.get("nn_module_stack", {"": ""})), "") or "forward"


def _flatten(node: fx.Node, sizes: AbstractSet[fx.Node]) -> nn.Module:
    """Return the Flatten that a function is. Raises UnsupportedError for another change of shape."""
    shape: Any = node.args[1:]
    if node.target in {torch.flatten, "flatten"}:
        shape = (*shape, *node.kwargs.values())
        if shape in {(1,), (1, -1)}:
            return nn.Flatten()
    else:
        shape = tuple(shape[0]) if shape and isinstance(shape[0], tuple | list) else shape
        batch_first = len(shape) == 2 and (shape[0] in sizes or shape[0] == -1)
        if batch_first and shape.count(-1) == 1:
            return nn.Flatten()
    raise _unsupported(node.name, f"it changes the shape to {shape}; only flatten(1) can be deployed")


def _unsupported(where: str, reason: str, remedy: str = "") -> UnsupportedError:
    return UnsupportedError(where=where, reason=reason, remedy=remedy)
