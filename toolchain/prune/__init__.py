"""Masks: which weights a network keeps. Every layer, first and last included, can lose weights.

The mask is explicit from here on; a weight that happens to be zero is not thereby pruned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain import nets
from toolchain.prune.choose import Mask, greatest, magnitude, n_kept, random, top
from toolchain.prune.given import given
from toolchain.prune.scored import Quotas, Scored
from toolchain.train import AfterEpoch, BeforeEpoch, Epoch, ann_loss, fit, ignore

if TYPE_CHECKING:
    from toolchain.data import Split
    from toolchain.nets import Net
    from toolchain.recipe import Recipe

__all__ = ["Mask", "Quotas", "Scored", "given", "greatest", "magnitude", "n_kept", "prune", "random", "top"]


def prune(net: Net, split: Split, recipe: Recipe, *, start: Epoch | None = None, after: AfterEpoch = ignore) -> Mask:
    """The mask the recipe asks for; the masked weights of `net` are zero. Without a method, the mask is empty.

    Raises: FormatError where a given mask does not fit.
    """
    settings = recipe.prune
    match settings.method:
        case "none":
            return {}
        case "lwm":
            mask = magnitude(net, settings.sparsity)
        case "random":
            mask = random(net, settings.sparsity, recipe.seed)
        case "file":
            mask = given(net, settings.mask)
        case "hydra" | "harp":
            mask = _learned(net, split, recipe, start, after)
    nets.apply_mask(net, mask)
    return mask


def _learned(net: Net, split: Split, recipe: Recipe, start: Epoch | None, after: AfterEpoch) -> Mask:
    settings, loss = recipe.prune, ann_loss(recipe.loss)
    before: BeforeEpoch = ignore
    if settings.method == "hydra":
        scored = Scored(net, settings.sparsity)
    else:
        scored = quotas = Quotas(net, settings.sparsity, pressure=settings.pressure)
        loss, before = quotas.penalized(loss), quotas.begin
    fit(
        scored,
        split,
        settings,
        loss,
        seed=(recipe.seed, "prune"),
        augmentation=recipe.data.augmentation,
        start=start,
        before=before,
        after=after,
    )
    if isinstance(scored, Quotas) and settings.settle:
        scored.settle()
    mask = scored.mask()
    scored.release()
    return mask
