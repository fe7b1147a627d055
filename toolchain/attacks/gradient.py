"""Attacks along the sign of a gradient, inside the ball |x~ - x| <= eps around each pixel and inside [0, 1].

Gradients are taken for the images alone: no parameter's `.grad` is touched. Random numbers come from the generator given,
on the CPU, whatever device the images are on. Models in training mode must be wrapped in `evaluating`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Model = Callable[[Tensor], Tensor]

STEP_FACTOR = 2.5
"""Step of PGD = STEP_FACTOR * eps / steps."""


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Inside, every layer of a module is in evaluation mode; afterwards each is in its own mode again."""
    layers = list(model.modules()) if isinstance(model, nn.Module) else []
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.training = training


def fgsm(model: Model, images: Tensor, labels: Tensor, *, eps: float) -> Tensor:
    """Images one step of eps along the sign of the cross entropy's gradient. Source: Goodfellow 2015."""
    with evaluating(model):
        return _project(images + eps * _sign(model, images, labels), images, eps)


def pgd(model: Model, images: Tensor, labels: Tensor, *, eps: float, steps: int, generator: torch.Generator) -> Tensor:
    """Images after `steps` projected steps of 2.5 * eps / steps from a uniform start. Source: Madry 2018."""
    noise = torch.rand(images.shape, generator=generator).to(images)
    adversarial = _project(images + eps * (2 * noise - 1), images, eps)
    with evaluating(model):
        for _ in range(steps):
            step = STEP_FACTOR * eps / steps * _sign(model, adversarial, labels)
            adversarial = _project(adversarial + step, images, eps)
    return adversarial


def kl_pgd(model: Model, images: Tensor, *, eps: float, steps: int, generator: torch.Generator) -> Tensor:
    """Images that PGD moved to raise KL(p(x) || p(x~)), from a start at 0.001 * N(0, 1). Source: Zhang 2019 (TRADES)."""
    noise = torch.randn(images.shape, generator=generator).to(images)
    with evaluating(model):
        with torch.no_grad():
            target = model(images).softmax(dim=1)
        adversarial = _project(images + 0.001 * noise, images, eps)
        for _ in range(steps):
            step = STEP_FACTOR * eps / steps * _kl_sign(model, adversarial, target)
            adversarial = _project(adversarial + step, images, eps)
    return adversarial


def kl_rfgsm(model: Model, images: Tensor, logits: Tensor, *, eps: float, generator: torch.Generator) -> Tensor:
    """Images after a random step of eps / 2 and a step along the KL's gradient; `logits` are those of the clean images.

    Equation: x' = clamp(x + a * sign(N(0, 1))), x~ = project(x' + (eps - a) * sign(grad KL)), a = eps / 2.
    """
    half = eps / 2
    noise = torch.randn(images.shape, generator=generator).sign().to(images)
    with evaluating(model):
        start = (images + half * noise).clamp(0, 1)
        sign = _kl_sign(model, start, logits.detach().softmax(dim=1))
    return _project(start + (eps - half) * sign, images, eps)


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


def _project(images: Tensor, centre: Tensor, eps: float) -> Tensor:
    return torch.minimum(torch.maximum(images, centre - eps), centre + eps).clamp(0, 1).detach()
