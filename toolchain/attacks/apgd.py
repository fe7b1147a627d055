"""Auto-PGD: projected gradient steps with momentum, whose size halves where an image's loss stops rising.

Source: Croce and Hein, ICML 2020 (arXiv 2003.01690), Algorithm 1, with the constants and the few liberties of the authors' code.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from toolchain.attacks.gradient import evaluating, project, uniform
from toolchain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from toolchain.attacks.gradient import Model, Randomness

MOMENTUM = 0.75
RHO = 0.75
"""Steps between two checkpoints that must raise the loss, as a share, for the step size to be kept."""

Loss = Literal["ce", "dlr"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Climbed:
    """Where APGD took a batch of images.

    Shapes: highest (B, C, H, W), the points of the greatest loss; loss (B,), theirs; fooling (B, C, H, W), the last points
    that were misclassified, or the start where `right` (B,) says there was none.
    """

    highest: Tensor
    loss: Tensor
    fooling: Tensor
    right: Tensor


def apgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int,
    generator: Randomness,
    loss: Loss = "ce",
    rho: float = RHO,
) -> Tensor:
    """Images after one run of APGD: a misclassified point where it met one, else the point of the greatest loss.

    Raises: ConfigError for the DLR loss of fewer than three classes.
    """
    climbed = climb(model, images, labels, eps=eps, steps=steps, generator=generator, loss=loss, rho=rho)
    return torch.where(climbed.right[:, None, None, None], climbed.highest, climbed.fooling)


def climb(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int,
    generator: Randomness,
    loss: Loss = "ce",
    rho: float = RHO,
) -> Climbed:
    """Where one run of APGD takes images, of `steps` steps from a uniform start. Raises as `apgd`."""
    losses = functools.partial(F.cross_entropy, reduction="none") if loss == "ce" else dlr
    with evaluating(model):
        return _climb(_gradients(model, labels, losses), images, generator, eps=eps, steps=steps, rho=rho)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The difference of logits ratio, which no scale of the logits changes. Shapes: (B, classes), (B,) -> (B,).

    Equation: -(z_y - max_{i != y} z_i) / (z_1st - z_3rd + 1e-12), logits in falling order. Source: Croce and Hein 2020, eq. 6.
    """
    if logits.shape[1] < 3:
        raise ConfigError(where="attack", faults=(f"the DLR loss takes three classes, got {logits.shape[1]}",))
    ordered, order = logits.sort(dim=1)
    other = torch.where(order[:, -1] == labels, ordered[:, -2], ordered[:, -1])
    return -(logits.gather(1, labels[:, None])[:, 0] - other) / (ordered[:, -1] - ordered[:, -3] + 1e-12)


def checkpoints(steps: int) -> Iterator[int]:
    """After how many steps the step size is reconsidered: first 0.22 of all, then 0.03 less each time, never below 0.06."""
    interval, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    done = interval
    while done <= steps:
        yield done
        interval = max(interval - less, least)
        done += interval


def _gradients(
    model: Model, labels: Tensor, losses: Callable[..., Tensor]
) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """What gives images their loss, its gradient, and whether they are classified right."""

    def at(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = images.detach().requires_grad_()
        with torch.enable_grad():  # type: ignore[no-untyped-call]
            logits = model(images)
            each = losses(logits, labels)
            (gradient,) = torch.autograd.grad(each.sum(), images)
        return each.detach(), gradient, logits.detach().argmax(dim=1) == labels

    return at


def _climb(
    at: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
    images: Tensor,
    generator: Randomness,
    *,
    eps: float,
    steps: int,
    rho: float,
) -> Climbed:
    spread = 2 * uniform(images, generator) - 1
    spread = spread / (spread.abs().flatten(1).amax(dim=1)[:, None, None, None] + 1e-12)
    x = (images + eps * spread).clamp(0, 1)
    loss, gradient, right = at(x)
    highest, highest_loss, highest_gradient, fooling = x, loss, gradient, x
    step = torch.full((len(images), 1, 1, 1), 2 * eps, dtype=images.dtype, device=images.device)
    before = x
    # The authors' code compares the first step's loss with 0, not with the start's.
    history = [torch.zeros_like(loss)]
    checked_loss, was_halved = loss, torch.ones_like(right)
    last_check, due = 0, set(checkpoints(steps))
    for done in range(1, steps + 1):
        inertia = x - before
        before, momentum = x, MOMENTUM if done > 1 else 1.0
        target = project(x + step * gradient.sign(), images, eps)
        x = project(x + (target - x) * momentum + inertia * (1 - momentum), images, eps)
        loss, gradient, stands = at(x)
        right = right & stands
        fooling = torch.where(_wide(stands), fooling, x)
        history.append(loss)
        rose = loss > highest_loss
        highest, highest_gradient = (
            torch.where(_wide(rose), new, old) for new, old in ((x, highest), (gradient, highest_gradient))
        )
        highest_loss = torch.where(rose, loss, highest_loss)
        if done in due:
            window = torch.stack(history[last_check : done + 1])
            n_rises = (window[1:] > window[:-1]).sum(dim=0)
            stuck = ~was_halved & (checked_loss >= highest_loss)
            halved = (n_rises <= rho * (done - last_check)) | stuck
            step = torch.where(_wide(halved), step / 2, step)
            x, gradient = (
                torch.where(_wide(halved), best, now) for best, now in ((highest, x), (highest_gradient, gradient))
            )
            checked_loss, was_halved, last_check = highest_loss, halved, done
    return Climbed(highest=highest, loss=highest_loss, fooling=fooling, right=right)


def _wide(flags: Tensor) -> Tensor:
    return flags[:, None, None, None]
