"""Masks: which weights a network keeps. Every layer, first and last included, loses the same share.

The mask is explicit from here on; a weight that happens to be zero is not thereby pruned.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from toolchain import nets
from toolchain.train import AfterEpoch, Epoch, ann_loss, fit, ignore

if TYPE_CHECKING:
    from toolchain.data import Split
    from toolchain.nets import Net
    from toolchain.recipe import Recipe

Mask = dict[str, Tensor]
"""True where a weight is kept, by the weight's name in the network's body"""


def prune(net: Net, split: Split, recipe: Recipe, *, start: Epoch | None = None, after: AfterEpoch = ignore) -> Mask:
    """The mask the recipe asks for; the masked weights of `net` are zero. Without a method, the mask is empty."""
    settings = recipe.prune
    match settings.method:
        case "none":
            return {}
        case "lwm":
            mask = magnitude(net, settings.sparsity)
        case "hydra":
            scored = Scored(net, settings.sparsity)
            seed = (recipe.seed, "prune")
            fit(scored, split, settings, ann_loss(recipe.loss), seed=seed, start=start, after=after)
            mask = scored.mask()
            scored.release()
    nets.apply_mask(net, mask)
    return mask


def n_kept(n_weights: int, sparsity: float) -> int:
    """How many of n weights remain: so many that at least the share `sparsity` is pruned, and never none."""
    return max(1, n_weights - math.ceil(round(sparsity * n_weights, 6)))


def top(values: Tensor, sparsity: float) -> Tensor:
    """True at the greatest values of a tensor, exactly `n_kept` of them; of equal ones the first. Shapes: any -> the same."""
    order = values.reshape(-1).argsort(descending=True, stable=True)
    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    mask[order[: n_kept(values.numel(), sparsity)]] = True
    return mask.reshape(values.shape)


def magnitude(net: Net, sparsity: float) -> Mask:
    """The mask that keeps each layer's greatest weights (LWM)."""
    return {name: top(weight.detach().abs(), sparsity) for name, weight in nets.prunable(net).items()}


class _Top(torch.autograd.Function):
    """Forward: 1 at the greatest |scores|, else 0. Backward: dL/dscore = dL/dmask * sign(score)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, sparsity: float) -> Tensor:
        ctx.save_for_backward(scores)
        return top(scores.abs(), sparsity).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (scores,) = ctx.saved_tensors
        return gradients[0] * scores.sign(), None


class Scored(nn.Module):
    """`net` with its weights frozen and masked by trainable scores (HYDRA); batch norm trains along.

    Equation: S = sqrt(6 / fan_in) * W / max|W| at the start; weight in use = W * [|S| among the greatest of its layer].
    Source: Sehwag 2020 (arXiv 2002.10509).
    """

    def __init__(self, net: Net, sparsity: float) -> None:
        super().__init__()
        self.net = net
        self.sparsity = sparsity
        self._weights = nets.prunable(net)
        self._frozen = [
            parameter
            for layer in net.body
            if not isinstance(layer, nn.BatchNorm2d)
            for parameter in layer.parameters(recurse=False)
        ]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        self.scores = nn.ParameterDict(
            {name.replace(".", "_"): nn.Parameter(_initial_scores(weight)) for name, weight in self._weights.items()}
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits under the present mask."""
        weights = {
            f"body.{name}": weight * _Top.apply(self._score(name), self.sparsity)  # type: ignore[no-untyped-call]
            for name, weight in self._weights.items()
        }
        logits: Tensor = torch.func.functional_call(self.net, weights, (images,))  # type: ignore[attr-defined]
        return logits

    def mask(self) -> Mask:
        """The present mask."""
        return {name: top(self._score(name).detach().abs(), self.sparsity) for name in self._weights}

    def release(self) -> None:
        """The network's weights can be trained again."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
            parameter.grad = None

    def _score(self, name: str) -> Tensor:
        score: Tensor = self.scores[name.replace(".", "_")]
        return score


def _initial_scores(weight: Tensor) -> Tensor:
    weight = weight.detach()
    fan_in = weight[0].numel()
    return math.sqrt(6 / fan_in) * weight / weight.abs().max()
