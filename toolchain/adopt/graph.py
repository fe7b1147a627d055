"""The layers that a module's forward runs, in order, and nothing else that it does: what is not a layer is refused."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from toolchain.adopt.neurons import is_neuron
from toolchain.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

_LIBRARIES = {"torch", "toolchain", "spikingjelly", "snntorch", "norse", "sinabs"}
"""Whose modules without children are layers; those of a user may be a forward to look into."""
KINDS = nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.AvgPool2d
_STATELESS = (nn.AvgPool2d, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity)
_FLATTENING: tuple[Any, ...] = (torch.flatten, torch.reshape, "flatten", "reshape", "view")
_SEQUENTIAL = "Pass a torch.nn.Sequential of its layers"


def layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers a module runs, each with its dotted path; one without state that runs again gets a number.

    Symbolic tracing sees every operation on the input, so nothing is left out unseen. Raises UnsupportedError for a branch,
    an operation that is no layer, a layer with weights or state that runs twice, and a forward that cannot be traced.
    """
    found: list[tuple[str, nn.Module]] = []
    runs: dict[str, int] = {}
    value: fx.Node | None = None
    sizes: set[fx.Node] = set()
    for node in _traced(module).nodes:
        if node.op == "output":
            if node.args != (value,):
                raise _unsupported("forward", "it returns something else than the output of its last layer")
        elif node.op == "placeholder":
            if value is None:
                value = node
            elif node.users:
                raise _unsupported("forward", f"it takes {node.target} beside the image")
        elif _is_size(node, sizes):
            sizes.add(node)
        else:
            path, layer = _layer(module, node, value, sizes)
            runs[path] = runs.get(path, 0) + 1
            if runs[path] > 1:
                if not isinstance(layer, _STATELESS):
                    raise _unsupported(path, "it runs twice; a chain runs each layer once")
                path = f"{path}.{runs[path]}"
            found.append((path, layer))
            value = node
    return found


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


def _layer(
    module: nn.Module, node: fx.Node, value: fx.Node | None, sizes: AbstractSet[fx.Node]
) -> tuple[str, nn.Module]:
    """Return the layer that a node runs on `value`, with its path."""
    if node.op == "call_module":
        path, layer = str(node.target), module.get_submodule(str(node.target))
    elif node.op in {"call_function", "call_method"} and node.target in _FLATTENING:
        path, layer = node.name, _flatten(node, sizes)
    else:
        name = getattr(node.target, "__name__", node.target)
        where = next(reversed(node.meta.get("nn_module_stack", {"": ""})), "") or "forward"
        raise _unsupported(where, f"it computes {name}, which is no layer of a chain", _SEQUENTIAL)
    taken = [source for source in node.all_input_nodes if source not in sizes]
    if taken != [value] or node.args[0] is not value:
        raise _unsupported(path, "it takes more than the output of the layer before it; a chain has no branches")
    return path, layer


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
