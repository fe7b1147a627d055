"""How often a network is right: on clean images and under attack, with intervals, and one network against another."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from toolchain import attacks, nets, store
from toolchain import data as datasets
from toolchain.attacks import ensemble
from toolchain.errors import ConfigError
from toolchain.train import pixels, stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from toolchain.data import Split
    from toolchain.nets import Net

Z95 = 1.959963984540054
BATCH = 256

ATTACKS = ("none", "fgsm", "pgd-ens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Which images a network gets right under one attack.

    Shapes: right (N,), under all members; members[name] (N,), under one, where `exhaustive` images of earlier members
    included, else only those still standing.
    """

    attack: str
    eps: float
    steps: int
    right: npt.NDArray[np.bool_]
    members: Mapping[str, npt.NDArray[np.bool_]]
    exhaustive: bool

    def to_dict(self) -> dict[str, Any]:
        """Accuracy, interval and members in plain types."""
        result: dict[str, Any] = {"attack": self.attack, **accuracy(self.right)}
        if self.attack != "none":
            result |= {"eps": self.eps, "members": {}}
            if self.attack != "fgsm":
                result["steps"] = self.steps
            standing = np.ones_like(self.right)
            for name, right in self.members.items():
                standing = standing & right
                alone = {"accuracy_alone": float(right.mean())} if self.exhaustive else {}
                result["members"][name] = {"accuracy_so_far": float(standing.mean()), **alone}
        return result


def evaluate(
    path: Path | str,
    *,
    attack: str = "pgd-ens",
    eps: float | None = None,
    steps: int | None = None,
    samples: int | None = None,
    data: str | None = None,
    exhaustive: bool = False,
    log: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """The accuracy of a stored model on the test set, clean and under `none`, `fgsm` or `pgd-ens`, JSON-able.

    Raises: FormatError, ConfigError.
    """
    model = store.load(path)
    net = nets.restore(model)
    source = data or model.data_source
    split = datasets.load_test(source, model.recipe.data)
    if split.images.shape[1:] != model.input_shape or split.labels.max() >= model.n_classes:
        fault = f"images {split.images.shape[1:]} with labels to {split.labels.max()} do not suit the model, "
        raise ConfigError(where=source, faults=(f"{fault}which takes {model.input_shape}, {model.n_classes} classes",))
    split = split if samples is None else split.first(samples)
    settings = model.recipe.attack
    eps = settings.eps if eps is None else eps
    steps = settings.steps if steps is None else steps
    wanted = ("none",) if attack == "none" else ("none", attack) if attack == "fgsm" else ATTACKS
    outcomes = {}
    for name in wanted:
        log(f"{name}: {len(split)} test images")
        outcome = attacked(net, split, name, eps=eps, steps=steps, seed=model.recipe.seed, exhaustive=exhaustive)
        outcomes[name] = outcome.to_dict()
    return {
        "schema": "rsnn-deploy/evaluation/1",
        "model": {"path": str(path), "stage": model.stage, "mode": model.mode, "sparsity": model.sparsity},
        "data": {"source": source, "split": "test", "n": len(split)},
        "backend": "float",
        "outcomes": outcomes,
    }


def attacked(
    net: Net,
    split: Split,
    attack: str,
    *,
    eps: float,
    steps: int,
    seed: int = 0,
    exhaustive: bool = False,
) -> Outcome:
    """Which images of a split `net` gets right, clean and under every member of an attack. Raises ConfigError."""
    if attack not in ATTACKS:
        raise ConfigError(where="attack", faults=(f"expected one of {', '.join(ATTACKS)}, got {attack!r}",))
    members = () if attack == "none" else ensemble.MEMBERS if net.mode == "snn" else ensemble.TRUE_GRADIENT
    parts = []
    images, labels = pixels(split.images), torch.tensor(split.labels)
    for number, (x, y) in enumerate(zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True)):
        verb = _verb(attack, eps, steps, stream(seed, "evaluate", number))
        parts.append(attacks.strongest(net, x, y, verb, members=members, survivors_only=not exhaustive))
    return Outcome(
        attack=attack,
        eps=eps,
        steps=steps,
        right=_joined([part.right for part in parts]),
        members={member.name: _joined([part.members[member.name] for part in parts]) for member in members},
        exhaustive=exhaustive,
    )


def accuracy(right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Share of right images with its 95 % Wilson interval."""
    n, k = len(right), int(right.sum())
    return {"accuracy": k / n, "n": n, "n_right": k, "interval95": list(wilson(k, n))}


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share k / n. Source: Wilson 1927."""
    centre = (k + Z95**2 / 2) / (n + Z95**2)
    half = Z95 / (n + Z95**2) * math.sqrt(k * (n - k) / n + Z95**2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def compare(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Accuracy of `one` less that of `other` on the same images, with its paired 95 % interval.

    Equation: with b images only `one` gets right and c only `other`, each cell of the 2x2 table raised by 0.5,
    (b - c) / n +- z * sqrt(b + c - (b - c)^2 / n) / n. Source: Agresti and Min 2005, doi 10.1002/sim.1781.
    """
    if one.shape != other.shape:
        raise ConfigError(where="compare", faults=(f"expected the same images, got {len(one)} and {len(other)}",))
    n, b, c = len(one), int((one & ~other).sum()), int((other & ~one).sum())
    m, d, s = n + 2, b - c, b + c + 1
    half = Z95 * math.sqrt(s - d * d / m) / m
    interval = [max(-1.0, d / m - half), min(1.0, d / m + half)]
    return {"difference": d / n, "n": n, "only_one": b, "only_other": c, "interval95": interval}


def render(result: Mapping[str, Any]) -> None:
    """The result of `evaluate` stands on stdout, a line an attack."""
    from rich.console import Console
    from rich.table import Table

    model, source = result["model"], result["data"]
    title = f"{model['path']} ({model['mode']}, {model['sparsity']:.1%} sparse) on {source['n']} test images of {source['source']}"
    table = Table("attack", "eps", "accuracy", "95 % interval", title=title, title_justify="left")
    for name, outcome in result["outcomes"].items():
        low, high = outcome["interval95"]
        eps = f"{outcome['eps'] * 255:g}/255" if "eps" in outcome else "-"
        table.add_row(name, eps, f"{outcome['accuracy']:.1%}", f"{low:.1%} to {high:.1%}")
    Console().print(table)


def _verb(attack: str, eps: float, steps: int, generator: torch.Generator) -> ensemble.Attack:
    if attack == "fgsm":
        return functools.partial(attacks.fgsm, eps=eps)
    return functools.partial(attacks.pgd, eps=eps, steps=steps, generator=generator)


def _joined(parts: list[Tensor]) -> npt.NDArray[np.bool_]:
    return np.asarray(torch.cat(parts).numpy(), dtype=np.bool_)
