"""The verbs on a stored model: `measure` one attack image by image, `evaluate` several with the verdict of the checks."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from toolchain import data as datasets
from toolchain import nets, ranks, store
from toolchain.attacks import auto
from toolchain.errors import ConfigError
from toolchain.evaluate import outcome as outcomes_of
from toolchain.evaluate.checks import IMAGES, sanity
from toolchain.evaluate.outcome import DEFAULT, STEPS, Outcome, attacked
from toolchain.evaluate.state import State, claim
from toolchain.evaluate.statistics import accuracy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from torch import nn

    from toolchain.attacks import Member
    from toolchain.data import Split
    from toolchain.store import Model

RESULT = "evaluation.json"


def measure(
    path: Path | str,
    attack: str,
    *,
    eps: float = 0.0,
    steps: int = STEPS,
    images: Sequence[int] | None = None,
    data: str | None = None,
    members: Sequence[Member] | None = None,
    exhaustive: bool = False,
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
    advance: Callable[[int], None] = lambda _n: None,
) -> Outcome:
    """Which test images a stored model gets right under one attack, image by image, to be paired with other outcomes.

    images: indices of the test set, in any order, or None for all of it; two calls with the same images pair, whatever the
    models. Random starts depend on seed, attack, member and index alone, so that a subset's images fare as they do in the
    whole. `right` of the result is (N,) bool in the order of `images`; `compare(one.right, other.right)` gives the
    difference with its interval. out: a folder to keep finished units in; called again after a kill, with the same
    arguments, `measure` goes on from there and ends with the same result. Different models, images or seeds need different
    folders; attacks and radii may share one.
    Raises: FormatError, ConfigError.
    """
    model = store.load(path)
    split = test_images(model, data)
    indices = np.arange(len(split)) if images is None else np.asarray(images, dtype=np.int64)
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(split)):
        fault = f"images: expected indices from 0 to {len(split) - 1}, got {indices.min()} to {indices.max()}"
        raise ConfigError(where=str(path), faults=(fault,))
    few = type(split)(images=split.images[indices], labels=split.labels[indices])
    state = None if out is None else claimed(out, path, few, indices, steps=steps, seed=seed, exhaustive=exhaustive)
    with ranks.joined():
        return attacked(
            nets.restore(model).to(usable(device)),
            few,
            attack,
            eps=eps,
            steps=steps,
            seed=seed,
            members=members,
            exhaustive=exhaustive,
            indices=indices,
            state=state,
            advance=advance,
        )


def evaluate(
    path: Path | str,
    *,
    attack: Sequence[str] = DEFAULT,
    eps: Sequence[float] = (),
    steps: int | None = None,
    samples: int | None = None,
    data: str | None = None,
    exhaustive: bool = False,
    checks: bool = True,
    out: Path | None = None,
    device: str = "cpu",
    log: Callable[[str], None] = lambda _line: None,
    advance: Callable[[int, int], None] = lambda _n, _of: None,
) -> dict[str, Any]:
    """The accuracy of a stored model on test images, clean and under each attack at each eps, JSON-able.

    `attack` may hold `all`; eps and steps are the recipe's where none is given. With `checks`, a verdict on whether the
    figures can be believed. With `out`, finished units are kept there, a killed evaluation goes on from them, and the
    folder ends with `evaluation.json`. advance: told how many images of how many this process has attacked.
    Raises: FormatError; ConfigError, before anything is attacked.
    """
    model = store.load(path)
    net = nets.restore(model).to(usable(device))
    names = fitting_names(net, attack, model.n_classes)
    source = data or model.data_source
    whole = test_images(model, data)
    split = whole if samples is None else whole.first(samples)
    settings = model.recipe.attack
    steps = settings.steps if steps is None else steps
    radii = tuple(dict.fromkeys(eps)) or (settings.eps,)
    seed = model.recipe.seed
    indices = np.arange(len(split))
    state = None if out is None else claimed(out, path, split, indices, steps=steps, seed=seed, exhaustive=exhaustive)
    n_done = 0

    def more(n: int) -> None:
        nonlocal n_done
        n_done += n
        advance(n_done, len(split) * (1 + len(names) * len(radii)) // ranks.size())

    with ranks.joined():
        found = []
        for name in ("none", *names):
            for radius in (0.0,) if name == "none" else radii:
                log(f"{name}{'' if name == 'none' else f' at {radius * 255:g}/255'}: {len(split)} test images")
                common: dict[str, Any] = {"steps": steps, "seed": seed, "exhaustive": exhaustive, "indices": indices}
                found.append(attacked(net, split, name, eps=radius, state=state, advance=more, **common))
        verdict = None
        if checks and names:
            log(f"checks: the first {min(len(split), IMAGES)} test images")
            verdict = sanity(net, split, found, eps=max(radii), steps=steps, seed=seed)
    result: dict[str, Any] = {
        "schema": "rsnn-deploy/evaluation/2",
        "model": {
            "path": str(path),
            "sha256": store.sha256(path),
            "stage": model.stage,
            "mode": model.mode,
            "sparsity": model.sparsity,
        },
        "data": {
            "source": source,
            "split": "test",
            "n": len(split),
            "of": len(whole),
            "subset": subset_of(split, whole),
        },
        "backend": "float",
        "outcomes": [outcome.to_dict() for outcome in found],
        "together": [{"eps": radius, **accuracy(_all_of(found, radius))} for radius in radii if len(names) > 1],
    }
    if verdict is not None:
        result["checks"] = verdict
    if out is not None and ranks.rank() == 0:
        store.write_text(out / RESULT, json.dumps(result, indent=2) + "\n")
    return result


def _all_of(found: Sequence[Outcome], eps: float) -> npt.NDArray[np.bool_]:
    """Which images every attack at eps leaves right."""
    rights = [outcome.right for outcome in found if outcome.eps == eps or outcome.attack == "none"]
    return np.asarray(np.logical_and.reduce(rights), dtype=np.bool_)


def usable(device: str) -> torch.device:
    """The device of a name. Raises ConfigError where torch has none."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError):  # torch says so in several ways
        fault = f"expected a device that torch can use here, such as cpu, got {device!r}"
        raise ConfigError(where="--device", faults=(fault,)) from None


def fitting_names(net: nn.Module, attack: Sequence[str], n_classes: int) -> tuple[str, ...]:
    """The attacks asked for, each once, none that does not suit the network; of `all` those that do."""
    too_few = {"apgd-dlr-ens"} if n_classes < 3 else set()
    fitting = [name for name in outcomes_of.every(net) if name not in too_few]
    names = [name for text in attack for name in (fitting if text == "all" else (text,))]
    full = tuple(dict.fromkeys(outcomes_of.canonical(name) for name in names))
    for name in full:
        outcomes_of.suited(net, name)
        if name in too_few:
            raise ConfigError(where="attack", faults=(f"the DLR loss takes three classes, got {n_classes}",))
    if "autoattack" in full:
        auto.require(n_classes)
    return tuple(name for name in full if name != "none")


def subset_of(split: Split, whole: Split) -> str:
    """Which images of a data set a split is, in words."""
    return "all" if len(split) == len(whole) else f"the first {len(split)} of {len(whole)}"


def test_images(model: Model, data: str | None) -> Split:
    """The test images of a model's own data set, or of another that suits it. Raises FormatError, ConfigError."""
    source = data or model.data_source
    split = datasets.load_test(source, model.recipe.data)
    if split.images.shape[1:] != model.input_shape or split.labels.max() >= model.n_classes:
        fault = f"images {split.images.shape[1:]} with labels to {split.labels.max()} do not suit the model, "
        raise ConfigError(where=source, faults=(f"{fault}which takes {model.input_shape}, {model.n_classes} classes",))
    return split


def claimed(
    out: Path, path: Path | str, split: Split, indices: Any, *, steps: int, seed: int, exhaustive: bool, **more: str
) -> State:
    """The state of an evaluation of these images, and of what more it depends on. Raises ConfigError, FormatError."""
    digest = hashlib.sha256()
    for array in (split.images, split.labels, indices):
        digest.update(np.ascontiguousarray(array).tobytes())
    facts = {"model": store.sha256(path), "images": digest.hexdigest(), "n": len(split)}
    return claim(out, {**facts, "steps": steps, "seed": seed, "exhaustive": exhaustive, **more})
