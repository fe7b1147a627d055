"""Training: the loop of every stage, its losses, and the first stage, the dense network.

A stage is a verb that changes a network in place and calls `after` at the end of an epoch with all it takes to go on from
there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.train.kept import Kept
from toolchain.train.loop import AfterEpoch, BeforeEpoch, Epoch, fit, ignore
from toolchain.train.losses import Loss, ann_loss, natural, snn_loss
from toolchain.train.streams import pixels, stream

if TYPE_CHECKING:
    from toolchain.data import Split
    from toolchain.nets import Net
    from toolchain.recipe import Recipe

__all__ = [
    "AfterEpoch",
    "BeforeEpoch",
    "Epoch",
    "Kept",
    "Loss",
    "ann_loss",
    "fit",
    "ignore",
    "natural",
    "pixels",
    "snn_loss",
    "stream",
    "train",
]


def train(net: Net, split: Split, recipe: Recipe, *, start: Epoch | None = None, after: AfterEpoch = ignore) -> None:
    """`net` is a dense ANN trained by the recipe's objective."""
    fit(
        net,
        split,
        recipe.train,
        ann_loss(recipe.loss),
        seed=(recipe.seed, "train"),
        augmentation=recipe.data.augmentation,
        start=start,
        after=after,
    )
