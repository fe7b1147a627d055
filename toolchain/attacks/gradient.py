"""Attacks along the sign of a gradient, inside the ball |x~ - x| <= eps around each pixel and inside [0, 1].

Gradients are taken for the images alone: no parameter's `.grad` is touched. Random numbers come from the generator given,
on the CPU, whatever device the images are on; given one for each image, no image's fate depends on the others of its batch.
Models in training mode must be wrapped in `evaluating`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

Model = Callable[[Tensor], Tensor]
"""Anything that gives images of [0, 1] their logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A generator for n images in a row, of which those given are the ones from `first` on: others attack the rest."""

    generator: torch.Generator
    n: int
    first: int


Randomness = torch.Generator | Sequence[torch.Generator] | Share
"""One generator for all images, one for each, or one for these and others."""

STEP_FACTOR = 2.5
"""Step of PGD = STEP_FACTOR * eps / steps."""


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Inside, every layer of a module is in evaluation mode and no parameter takes a gradient; afterwards each as before."""
    layers, parameters = (list(model.modules()), list(model.parameters())) if isinstance(model, nn.Module) else ([], [])
    training, taking = [layer.training for layer in layers], [one for one in parameters if one.requires_grad]
    for layer in layers:
        layer.training = False
    for parameter in taking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for layer, before in zip(layers, training, strict=True):
            layer.training = before
        for parameter in taking:
            parameter.requires_grad_()


def fgsm(model: Model, images: Tensor, labels: Tensor, *, eps: float) -> Tensor:
    """Images one step of eps along the sign of the cross entropy's gradient. Source: Goodfellow 2015."""
    with evaluating(model):
        return project(images + eps * _sign(model, images, labels), images, eps)


def pgd(model: Model, images: Tensor, labels: Tensor, *, eps: float, steps: int, generator: Randomness) -> Tensor:
    """Images after `steps` projected steps of 2.5 * eps / steps from a uniform start. Source: Madry 2018."""
    adversarial = project(images + eps * (2 * uniform(images, generator) - 1), images, eps)
    with evaluating(model):
        for _ in range(steps):
            step = STEP_FACTOR * eps / steps * _sign(model, adversarial, labels)
            adversarial = project(adversarial + step, images, eps)
    return adversarial


def noise(_model: Model, images: Tensor, _labels: Tensor, *, eps: float, generator: Randomness) -> Tensor:
    """Images with each pixel at a random end of its ball: what eps does without a gradient."""
    return project(images + eps * (2 * uniform(images, generator) - 1).sign(), images, eps)


def kl_pgd(model: Model, images: Tensor, *, eps: float, steps: int, generator: Randomness) -> Tensor:
    """Images that PGD moved to raise KL(p(x) || p(x~)), from a start at 0.001 * N(0, 1). Source: Zhang 2019 (TRADES)."""
    start = normal(images, generator)
    with evaluating(model):
        with torch.no_grad():
            target = model(images).softmax(dim=1)
        adversarial = project(images + 0.001 * start, images, eps)
        for _ in range(steps):
            step = STEP_FACTOR * eps / steps * _kl_sign(model, adversarial, target)
            adversarial = project(adversarial + step, images, eps)
    return adversarial


def kl_rfgsm(model: Model, images: Tensor, logits: Tensor, *, eps: float, generator: Randomness) -> Tensor:
    """Images after a random step of eps / 2 and a step along the KL's gradient; `logits` are those of the clean images.

    Equation: x' = clamp(x + a * sign(N(0, 1))), x~ = project(x' + (eps - a) * sign(grad KL)), a = eps / 2.
    """
    half = eps / 2
    signs = normal(images, generator).sign()
    with evaluating(model):
        start = (images + half * signs).clamp(0, 1)
        sign = _kl_sign(model, start, logits.detach().softmax(dim=1))
    return project(start + (eps - half) * sign, images, eps)


def rfgsm(model: Model, images: Tensor, labels: Tensor, *, eps: float, generator: Randomness) -> Tensor:
    """Images after a random step of eps / 2 and a step along the cross entropy's gradient. Equation: as `kl_rfgsm`."""
    half = eps / 2
    signs = normal(images, generator).sign()
    with evaluating(model):
        start = (images + half * signs).clamp(0, 1)
        sign = _sign(model, start, labels)
    return project(start + (eps - half) * sign, images, eps)


def uniform(images: Tensor, generator: Randomness) -> Tensor:
    """Uniform numbers of [0, 1), shaped as the images, and on their device."""
    return _drawn(torch.rand, images, generator)


def normal(images: Tensor, generator: Randomness) -> Tensor:
    """Numbers of N(0, 1), shaped as the images, and on their device."""
    return _drawn(torch.randn, images, generator)


def _drawn(draw: Callable[..., Tensor], images: Tensor, generator: Randomness) -> Tensor:
    match generator:
        case torch.Generator():
            return draw(images.shape, generator=generator).to(images)
        case Share(generator=one, n=n, first=first):
            return draw((n, *images.shape[1:]), generator=one)[first : first + len(images)].to(images)
        case _:
            drawn = [draw(images.shape[1:], generator=one) for one in generator]
            return torch.stack(drawn).to(images) if drawn else torch.empty_like(images)


def project(images: Tensor, centre: Tensor, eps: float) -> Tensor:
    """Images moved to the nearest point of their ball and of [0, 1]."""
    return torch.minimum(torch.maximum(images, centre - eps), centre + eps).clamp(0, 1).detach()


def _sign(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    with torch.enable_grad():  # type: ignore[no-untyped-call]
        loss = F.cross_entropy(model(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0].sign()


def _kl_sign(model: Model, images: Tensor, target: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    with torch.enable_grad():  # type: ignore[no-untyped-call]
        loss = F.kl_div(model(images).log_softmax(dim=1), target, reduction="sum")
    return torch.autograd.grad(loss, images)[0].sign()
