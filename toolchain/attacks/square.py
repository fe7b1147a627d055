"""Square: a random search that repaints squares of an image, and needs logits only.

Source: Andriushchenko et al., ECCV 2020 (arXiv 1912.00049), Algorithms 1 and 2, for the maximum norm with the margin loss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from toolchain.attacks.gradient import evaluating, uniform

if TYPE_CHECKING:
    from torch import Tensor

    from toolchain.attacks.gradient import Model, Randomness

P_START = 0.8
"""Share of an image's pixels in the first square."""

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The queries, of 10,000, after which the share is halved."""


def square(
    model: Model, images: Tensor, labels: Tensor, *, eps: float, queries: int, generator: Randomness, p: float = P_START
) -> Tensor:
    """Images after at most `queries` of the model each: misclassified ones, or those of the least margin.

    The first query is for stripes of one pixel's width; an image that is misclassified asks no more. No gradient is taken.
    """
    channels, height, width = images.shape[1:]
    draws = _draws(images, generator, channels * width + (queries - 1) * (2 + channels))
    stripes = draws[:, : channels * width].reshape(-1, channels, 1, width).to(images)
    squares = draws[:, channels * width :].reshape(len(images), queries - 1, 2 + channels)
    low, high = (images - eps).clamp(0, 1), (images + eps).clamp(0, 1)
    with evaluating(model), torch.no_grad():
        best = torch.where(stripes < 0.5, low, high)
        margin, right = lead(model, best, labels)
        standing = right.nonzero().squeeze(1)
        for query in range(queries - 1):
            if not len(standing):
                break
            side = square_side(query, queries, height, width, p)
            inside, up = _square(squares[standing.cpu(), query].to(images), side, height, width)
            painted = torch.where(up, high[standing], low[standing])
            tried = torch.where(inside, painted, best[standing])
            tried_margin, still_right = lead(model, tried, labels[standing])
            better = (tried_margin < margin[standing]) | ~still_right
            best[standing] = torch.where(better[:, None, None, None], tried, best[standing])
            margin[standing] = torch.where(better, tried_margin, margin[standing])
            standing = standing[still_right]
    return best


def share(query: int, queries: int, p: float = P_START) -> float:
    """The share of an image's pixels that a square covers, halved at fixed points of 10,000 queries, or in proportion.

    `query` counts squares from 0, as the authors' code does.
    """
    at = int(query / queries * 10_000)
    return p * 0.5 ** sum(at > bound for bound in _HALVINGS)


def square_side(query: int, queries: int, height: int, width: int, p: float = P_START) -> int:
    """The side, in pixels, of a query's square."""
    side = round(math.sqrt(share(query, queries, p) * height * width))
    return min(max(side, 1), height, width)


def _square(draws: Tensor, side: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each image is repainted, and which channels go up. Shapes: (B, 2 + C) -> (B, 1, H, W), (B, C, 1, 1)."""
    top, left = ((draws[:, axis] * (size - side + 1)).long() for axis, size in enumerate((height, width)))
    rows, columns = (torch.arange(size, device=draws.device) for size in (height, width))
    in_rows = (rows >= top[:, None]) & (rows < top[:, None] + side)
    in_columns = (columns >= left[:, None]) & (columns < left[:, None] + side)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None], (draws[:, 2:] >= 0.5)[:, :, None, None]


def lead(model: Model, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the label's logit leads all others, and whether the image is classified right."""
    logits = model(images)
    others = logits.scatter(1, labels[:, None], -math.inf).amax(dim=1)
    return logits.gather(1, labels[:, None])[:, 0] - others, logits.argmax(dim=1) == labels


def _draws(images: Tensor, generator: Randomness, n: int) -> Tensor:
    """Uniform numbers of [0, 1), n an image, on the CPU."""
    return uniform(torch.empty(len(images), n), generator)
