"""What the study trains: arms, each a way to a spiking network, and the grids their learning rates are chosen from."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import recipe as recipes
from toolchain import store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.recipe import Recipe

RECIPE = Path(__file__).parent / "fashion.toml"
N_TRAIN = 10_000
EPS = (4 / 255, 8 / 255, 16 / 255)
"""Radii of the evaluation: the training attack's times 1, 2 and 4."""
N_FGSM, N_PGD, N_SQUARE, N_SPIKES = 1000, 300, 100, 1000
SQUARE_QUERIES = 500
N_CHOICE = 500
"""Validation images by which learning rates are chosen."""
SEEDS = (0, 1, 2)
CHOICE_SEED = 0
"""The seed on which they are chosen."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to a spiking network. overrides: recipe keys; chosen: keys whose value a grid chose, by the grid's name."""

    name: str
    about: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    mask_of: str = ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Values of one key, tried on one arm of one seed; the one that validates best under attack is everyone's."""

    name: str
    key: str
    arm: str
    values: tuple[float, ...]
    stage: str


CONVERTED = {"sparse.lr": "sparse", "finetune.lr": "convert"}

GRIDS = (
    Grid(name="sparse", key="sparse.lr", arm="hydra-90", values=(0.01, 0.03, 0.1), stage="sparse"),
    Grid(name="convert", key="finetune.lr", arm="hydra-90", values=(0.003, 0.01, 0.03), stage="finetune"),
    Grid(name="end-to-end", key="finetune.lr", arm="e2e-random-90", values=(0.1, 0.3, 1.0), stage="finetune"),
)


def arms(base: Recipe) -> tuple[Arm, ...]:
    """Return the arms, the one whose stages others share first."""
    learned = [
        Arm(
            name=f"{method}-{percent}",
            about=f"{method.upper()} {percent} %",
            overrides={"prune.method": method, "prune.sparsity": percent / 100},
            chosen=CONVERTED,
        )
        for percent in (90, 99)
        for method in ("hydra", "harp", "lwm")
    ]
    dense = Arm(
        name="dense",
        about="dense",
        overrides={"prune.method": "none", "sparse.epochs": 0},
        chosen={"finetune.lr": "convert"},
    )
    return (dense, *learned, *_end_to_end(base))


def _end_to_end(base: Recipe) -> list[Arm]:
    made = []
    for epochs, suffix, words in (
        (base.finetune.epochs, "", "equal SNN epochs"),
        (equal_work(base), "-work", "equal total work"),
    ):
        common: dict[str, Any] = {
            "method": "end-to-end",
            "prune.sparsity": 0.9,
            "finetune.epochs": epochs,
        }
        chosen = {"finetune.lr": "end-to-end"}
        made += [
            Arm(
                name=f"e2e-random-90{suffix}",
                about=f"end to end, random mask 90 %, {words}",
                overrides={**common, "prune.method": "random"},
                chosen=chosen,
            ),
            Arm(
                name=f"e2e-ann-90{suffix}",
                about=f"end to end, the ANN's mask 90 %, {words}",
                overrides={**common, "prune.method": "file"},
                chosen=chosen,
                mask_of="hydra-90",
            ),
        ]
    return made


def equal_work(base: Recipe) -> int:
    """Return the epochs of end-to-end training that cost as many passes as all of the conversion's training.

    An ANN epoch is 7 + 2 * steps passes an image (TRADES), an SNN epoch 9 * T (RFGSM).
    """
    ann = (base.train.epochs + base.prune.epochs + base.sparse.epochs) * (7 + 2 * base.loss.steps)
    return base.finetune.epochs + round(ann / (9 * base.timesteps))


def recipe(base: Recipe, arm: Arm, seed: int, out: Path, choices: Mapping[str, float]) -> Recipe:
    """Return the recipe of an arm, with what the grids chose."""
    table = base.to_dict()
    table["seed"] = seed
    table["data"]["source"] = str(out / "data.npz")
    keys = {**arm.overrides, **{key: choices[grid] for key, grid in arm.chosen.items()}}
    if arm.mask_of:
        keys["prune.mask"] = str(out / f"seed-{seed}" / arm.mask_of / "prune.pt")
    for key, value in keys.items():
        section, _, last = key.rpartition(".")
        (table[section] if section else table)[last] = value
    return recipes.from_dict(table, where=arm.name)


def prepare(source: Path, out: Path, n_train: int = N_TRAIN) -> None:
    """`out/data.npz` holds the first training images and all test images, each 2x2 cell's mean rounded to a pixel."""
    path = out / "data.npz"
    if path.exists():
        return
    with np.load(source) as archive:
        arrays = {key: archive[key][:n_train] if key.endswith("train") else archive[key] for key in archive.files}
    for key in ("x_train", "x_test"):
        n, height, width = arrays[key].shape
        cells = arrays[key].reshape(n, height // 2, 2, width // 2, 2).sum(axis=(2, 4), dtype=np.int64)
        arrays[key] = ((cells + 2) // 4).astype(np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    store.write_bytes(path, buffer.getvalue())
