"""Finetuning under a mask that never changes: of the sparse ANN, and of the sparse spiking network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain import nets, spiking
from toolchain.train import AfterEpoch, Epoch, ann_loss, fit, ignore, snn_loss

if TYPE_CHECKING:
    from toolchain.data import Split
    from toolchain.nets import Net
    from toolchain.prune import Mask
    from toolchain.recipe import Recipe


def finetune_ann(
    net: Net, mask: Mask, split: Split, recipe: Recipe, *, start: Epoch | None = None, after: AfterEpoch = ignore
) -> None:
    """The masked ANN is trained by the recipe's objective; pruned weights are exactly zero."""
    weights = nets.prunable(net)
    fit(
        net,
        split,
        recipe.sparse,
        ann_loss(recipe.loss),
        seed=(recipe.seed, "sparse"),
        masks={weights[name]: kept for name, kept in mask.items()},
        augmentation=recipe.data.augmentation,
        start=start,
        after=after,
    )


def finetune_snn(
    net: Net, mask: Mask, split: Split, recipe: Recipe, *, start: Epoch | None = None, after: AfterEpoch = ignore
) -> None:
    """The masked spiking network is trained, thresholds included; pruned weights are exactly zero.

    An ANN is first made to spike as it is: so the network is trained from scratch, end to end.
    """
    weights = nets.prunable(net)
    spiking.configure(
        net, mode="snn", timesteps=recipe.timesteps, surrogate=spiking.surrogate(recipe.finetune.surrogate)
    )
    fit(
        net,
        split,
        recipe.finetune,
        snn_loss(recipe.loss),
        seed=(recipe.seed, "finetune"),
        masks={weights[name]: kept for name, kept in mask.items()},
        augmentation=recipe.data.augmentation,
        start=start,
        after=after,
    )
