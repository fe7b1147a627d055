"""A model so small that it trains in a second and is deployed in less: what a test of the whole path starts from."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np
import torch

from toolchain import convert, data, nets, prune, recipe, store, train

if TYPE_CHECKING:
    from pathlib import Path

OVERRIDES = (
    "name=tiny",
    'model.layers=[6, "A", 8, "A"]',
    "timesteps=4",
    "threads=1",
    "loss.objective=natural",
    "train.epochs=6",
    "train.batch=16",
    "prune.method=lwm",
    "prune.sparsity=0.5",
    "convert.batches=2",
    "convert.timesteps=8",
    "attack.steps=1",
)
N_TEST = 30


@functools.cache
def images(folder: Path) -> Path:
    """An .npz of 100 digits to train on and 30 to test on."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (bunch.images * 15).astype(np.uint8)
    path = folder / "tiny.npz"
    split = slice(100), slice(100, 100 + N_TEST)
    np.savez(
        path,
        **{f"x_{name}": pixels[part] for name, part in zip(("train", "test"), split, strict=True)},
        **{f"y_{name}": bunch.target[part] for name, part in zip(("train", "test"), split, strict=True)},
    )
    return path


@functools.cache
def model(folder: Path, *extra: str) -> Path:
    """A spiking model of those digits at the stage `convert`; extra overrides change its recipe."""
    settings = recipe.load("digits-cnn", overrides=[*OVERRIDES, f"data.source={images(folder)}", *extra])
    return save(folder / f"tiny{len(extra)}.pt", settings, "convert")


def save(path: Path, settings: recipe.Recipe, stage: str) -> Path:
    """The model of a recipe at stage `train` or `convert`, without the figures that take longer than the training."""
    loaded = data.load(settings.data.source, settings.data)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        net, mask = _trained(loaded, settings, stage)
    finally:
        torch.set_num_threads(threads)
    made = store.Model(
        recipe=settings,
        stage=stage,
        state={name: tensor.detach() for name, tensor in net.body.state_dict().items()},
        mask=mask,
        timesteps=settings.timesteps,
        input_shape=loaded.shape,
        mean=loaded.mean,
        std=loaded.std,
        n_classes=loaded.n_classes,
        data_source=loaded.source,
        data_sha256=loaded.sha256,
        metrics={},
    )
    store.save(made, path)
    return path


def _trained(loaded: data.Data, settings: recipe.Recipe, stage: str):
    generator = train.stream(settings.seed, "initial weights")
    net = nets.build(
        settings.model, loaded.shape, loaded.n_classes, mean=loaded.mean, std=loaded.std, generator=generator
    )
    train.train(net, loaded.train, settings)
    if stage == "train":
        return net, {}
    mask = prune.prune(net, loaded.train, settings)
    nets.apply_mask(net, mask)
    convert.convert(net, loaded.train, settings)
    return net, mask


def altered(path: Path, source: Path, **changes) -> Path:
    """A copy of a model with parameters replaced, by name; what a dot would be is two underscores."""
    made = store.load(source)
    state = dict(made.state) | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    store.save(dataclasses.replace(made, state=state), path)
    return path
