"""Search: gradient steps on the margin, then trials that move a few pixels along the gradient's sign and are kept where it falls.

A surrogate's gradient of a spiking network tells where the margin falls, but of a single pixel it is often wrong, and a step of all
pixels takes the wrong ones along. Trials of fewer pixels, judged by the network itself, leave them out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from toolchain.attacks.gradient import evaluating, project, uniform
from toolchain.attacks.square import lead

if TYPE_CHECKING:
    from torch import Tensor

    from toolchain.attacks.gradient import Model, Randomness

STEP_FACTOR = 5.0
"""Gradient step = STEP_FACTOR * eps / steps: twice PGD's, for the best point counts, not the last."""

TRIALS = 5
"""Trials for each gradient step."""

SHARES = (0.5, 0.05)
"""Of the pixels that the first and the last trial move; in between they fall geometrically."""

AGAINST = 0.1
"""Share of the moved pixels that go against the gradient, which a trial can thus undo."""


def search(model: Model, images: Tensor, labels: Tensor, *, eps: float, steps: int, generator: Randomness) -> Tensor:
    """Images at the least margin met, that of `steps` gradient steps from a uniform start and of `TRIALS * steps` trials.

    A trial moves each pixel with a chance, from the best point so far, to the end of its ball where the gradient there
    points, or with a smaller chance to the other. An image that is misclassified is not tried again.
    """
    x = project(images + eps * (2 * uniform(images, generator) - 1), images, eps)
    with evaluating(model):
        slope, least, right = _slope(model, x, labels)
        best, at_best = x, slope
        for _ in range(steps):
            x = project(x - STEP_FACTOR * eps / steps * slope.sign(), images, eps)
            slope, found, still_right = _slope(model, x, labels)
            better = (found < least) | (right & ~still_right)
            wide = better[:, None, None, None]
            best, at_best = torch.where(wide, x, best), torch.where(wide, slope, at_best)
            least, right = torch.where(better, found, least), right & still_right
        for trial in range(TRIALS * steps):
            drawn, share = uniform(images, generator), _share(trial, TRIALS * steps)
            standing = right.nonzero().squeeze(1)
            if not len(standing):
                break
            moved, against = drawn[standing] < share, drawn[standing] < AGAINST * share
            way = torch.where(against, 1.0, -1.0).to(images) * at_best[standing].sign()
            tried = torch.where(moved, project(images[standing] + eps * way, images[standing], eps), best[standing])
            with torch.no_grad():
                found, still_right = lead(model, tried, labels[standing])
            better = (found < least[standing]) | ~still_right
            chosen = standing[better]
            best[chosen], least[chosen], right[chosen] = tried[better], found[better], still_right[better]
            again = chosen[right[chosen]]
            if len(again):
                at_best[again] = _slope(model, best[again], labels[again])[0]
    return best


def _share(trial: int, trials: int) -> float:
    first, last = SHARES
    return first * math.pow(last / first, trial / max(1, trials - 1))


def _slope(model: Model, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the margin, the margin, and whether an image is classified right."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():  # type: ignore[no-untyped-call]
        found, right = lead(model, images, labels)
        (gradient,) = torch.autograd.grad(found.sum(), images)
    return gradient, found.detach(), right
