"""A recipe and data small enough to train in a second."""

from __future__ import annotations

import numpy as np
import torch

from toolchain import nets, recipe, spiking
from toolchain.data import Split

TABLE = {
    "name": "toy",
    "timesteps": 4,
    "threads": 1,
    "model": {"layers": [4, "A", 6, "A"]},
    "loss": {"eps": "8/255", "steps": 2},
    "train": {"epochs": 2, "batch": 32},
    "prune": {"sparsity": 0.75, "epochs": 2, "batch": 32},
    "sparse": {"epochs": 2, "batch": 32},
    "convert": {"timesteps": 10, "batches": 2, "batch": 32},
    "finetune": {"epochs": 2, "batch": 32, "lr": 0.01},
    "attack": {"eps": "16/255", "steps": 3},
}

SHAPE = (1, 8, 8)
N_CLASSES = 3


def toy(**sections):
    """The toy recipe, sections overridden or extended: toy(train={"epochs": 1}, seed=3)."""
    table = {key: dict(value) if isinstance(value, dict) else value for key, value in TABLE.items()}
    for key, value in sections.items():
        table[key] = {**table.get(key, {}), **value} if isinstance(value, dict) else value
    return recipe.from_dict(table)


def split(n=64, *, seed=0, shape=SHAPE, classes=N_CLASSES):
    """Images whose brightest columns tell their class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = rng.integers(0, 90, (n, *shape))
    for index, label in enumerate(labels):
        images[index, :, :, label * 3 : label * 3 + 2] += 120
    return Split(images=images.astype(np.uint8), labels=labels.astype(np.int64))


def write_npz(path, *, n=96, shape=SHAPE, **replaced):
    """A data set file; arrays may be replaced, or left out with None."""
    train, test = split(n, shape=shape), split(24, seed=1, shape=shape)
    arrays = {"x_train": train.images, "y_train": train.labels, "x_test": test.images, "y_test": test.labels}
    arrays = {key: value for key, value in {**arrays, **replaced}.items() if value is not None}
    np.savez(path, **arrays)
    return path


def net(*, mode="ann", seed=0, timesteps=4, v_th=0.3, **model):
    """A network with random weights and statistics, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    settings = toy(model=model).model
    made = nets.build(settings, SHAPE, N_CLASSES, mean=(0.4,), std=(0.3,), generator=generator)
    with torch.no_grad():
        for layer in made.body:
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.3, generator=generator)
                layer.running_var.uniform_(0.5, 2, generator=generator)
        for layer in spiking.neurons(made):
            layer.v_th.fill_(v_th)
    spiking.configure(made, mode=mode, timesteps=timesteps)
    return made.eval()
