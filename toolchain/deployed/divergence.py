"""Where the integers leave the float network: spikes of each layer, classes and robustness after each step of quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from toolchain import attacks, deployment, nets, quantize, store
from toolchain import profile as profiles
from toolchain.deployed.steps import NAMES, Steps, between
from toolchain.evaluate import accuracy, stored
from toolchain.evaluate.delivery import delivered
from toolchain.train import pixels, stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from toolchain.data import Split
    from toolchain.store import Model

    Images = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]

SCHEMA = "rsnn-deploy/divergence/1"

TOGETHER = 32
"""Images whose every spike is held at a time."""

GRADIENT = attacks.MEMBERS[0]
"""The strongest, by which each step is attacked."""


def inspect(
    path: Path | str,
    settings: deployment.Settings,
    *,
    samples: int = 200,
    attacked: int = 100,
    eps: float | None = None,
    steps: int | None = None,
    log: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """The table of a model's steps to integers on its first test images, the first `attacked` of them attacked, JSON-able.

    eps, steps: of PGD, by default the recipe's. Raises FormatError, UnsupportedError, RangeError.
    """
    model = store.load(path)
    made = steps_of(model, settings, log=log)
    split = stored.test_images(model, None).first(samples)
    recipe = model.recipe.attack
    radius, n_steps = recipe.eps if eps is None else eps, recipe.steps if steps is None else steps
    log(f"run five networks on {len(split)} test images")
    rows = compared(made, split.images, split.labels)
    few = split.first(attacked)
    if attacked:
        log(f"attack each of them on {len(few)} test images")
        found = _attacked(made, few, eps=radius, n_steps=n_steps, seed=model.recipe.seed)
        rows = [{**row, "attacked": outcome} for row, outcome in zip(rows, found, strict=True)]
    return {
        "schema": SCHEMA,
        "model": str(path),
        "profile": profiles.read(settings.profile).name,
        "samples": len(split),
        "attack": {"gradient": GRADIENT.name, "eps": radius, "steps": n_steps, "samples": len(few)}
        if attacked
        else None,
        "rows": rows,
    }


def steps_of(model: Model, settings: deployment.Settings, *, log: Callable[[str], None] = lambda _line: None) -> Steps:
    """The five steps of a stored model to a profile's integers. Raises FormatError, UnsupportedError, RangeError."""
    log(f"quantize for {settings.profile}")
    made = deployment.quantized(model, deployment.training_data(model), settings, profiles.read(settings.profile))
    net = nets.restore(model)
    masks = {name.removesuffix(".weight"): mask.numpy() for name, mask in model.mask.items()}
    _, folded = quantize.fold(net, model.input_shape, masks)
    return between(net, folded, made.network, {name: facts.scale for name, facts in made.facts.items()})


def compared(steps: Steps, images: Images, labels: Labels) -> list[dict[str, Any]]:
    """A row for each step: its accuracy and, of each layer, in how many neuron-steps its spikes are others than before.

    `differing` counts against the float network, `differing_here` against the step before: a fault shows where it arises.
    """
    n_layers, n_rows = len(steps.names), len(NAMES)
    counts = np.zeros((3, n_rows, n_layers), dtype=np.int64)  # differing, differing here, spikes
    sizes = np.zeros(n_layers, dtype=np.int64)
    classes: list[list[npt.NDArray[np.int64]]] = [[] for _ in NAMES]
    for first in range(0, len(images), TOGETHER):
        seen = steps.run(images[first : first + TOGETHER])
        for row, now in enumerate(seen):
            before = seen[max(row - 1, 0)]
            classes[row].append(now.classes)
            for layer, spikes in enumerate(now.spikes):
                others = seen[0].spikes[layer], before.spikes[layer]
                counts[:2, row, layer] += [np.count_nonzero(spikes != other) for other in others]
                counts[2, row, layer] += np.count_nonzero(spikes)
        sizes += [spikes.size for spikes in seen[0].spikes]
    said = [np.concatenate(parts) for parts in classes]
    return [
        {
            "step": name,
            **accuracy(said[row] == labels),
            "classes_differing": int((said[row] != said[0]).sum()),
            "classes_differing_here": int((said[row] != said[max(row - 1, 0)]).sum()),
            "layers": [
                {
                    "name": layer,
                    "agreement": 1 - int(counts[0, row, index]) / int(sizes[index]),
                    "differing": int(counts[0, row, index]),
                    "differing_here": int(counts[1, row, index]),
                    "spikes": int(counts[2, row, index]),
                }
                for index, layer in enumerate(steps.names)
            ],
        }
        for row, name in enumerate(NAMES)
    ]


def _attacked(steps: Steps, split: Split, *, eps: float, n_steps: int, seed: int) -> list[dict[str, Any]]:
    """How often each step is right about images made against the float network (`same`) and against itself (`own`)."""
    clean, labels = pixels(split.images), torch.tensor(split.labels)
    made = []
    for module in steps.modules:
        with GRADIENT.installed(module):
            generators = [stream(seed, "divergence", index) for index in range(len(split))]
            found = attacks.pgd(module, clean, labels, eps=eps, steps=n_steps, generator=generators)
        made.append(delivered(found, clean, eps).numpy())
    same, own = steps.classes([made[0]] * len(made)), steps.classes(made)
    right = [clean == split.labels for clean in steps.classes([split.images] * len(made))]
    return [
        {
            "same": accuracy(row & (same[index] == split.labels)),
            "own": accuracy(row & (own[index] == split.labels)),
        }
        for index, row in enumerate(right)
    ]
