"""What a network is trained for: an objective and the attack it is trained against, PGD for an ANN, RFGSM for a spiking network.

With p the softmax of the logits f, x~ the attacked images and w the recipe's `loss.weight`, per sample::

    natural      CE(f(x), y)
    adversarial  CE(f(x~), y)                                                      x~ raises CE
    trades       CE(f(x), y) + w KL(p(x) || p(x~))                                 x~ raises the KL
    mart         BCE(p(x~), y) + w KL(p(x) || p(x~)) (1 - p_y(x))                  x~ raises CE
                 BCE(p, y) = -log p_y - log(1 - max over k != y of p_k)

Clean images pass in training mode, then x~ is made in evaluation mode, then passes in training mode. Nothing is detached in
the outer loss. `loss.kl = "adversarial"` exchanges the arguments of the KL.
Sources: Madry 2018; Zhang 2019 (arXiv 1901.08573); Wang 2020 (ICLR, MART).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from toolchain import attacks

if TYPE_CHECKING:
    from toolchain.recipe import LossSettings

Loss = Callable[[nn.Module, Tensor, Tensor, attacks.Randomness], Tensor]
"""(model, images, labels, generator) -> mean loss of the images"""

_TINY = 1e-12
"""Keeps the logarithm of a share finite."""


def ann_loss(settings: LossSettings) -> Loss:
    """The objective against PGD."""
    eps, steps = settings.eps, settings.steps

    def from_kl(model: nn.Module, images: Tensor, _logits: Tensor, generator: attacks.Randomness) -> Tensor:
        return attacks.kl_pgd(model, images, eps=eps, steps=steps, generator=generator)

    def from_labels(model: nn.Module, images: Tensor, labels: Tensor, generator: attacks.Randomness) -> Tensor:
        return attacks.pgd(model, images, labels, eps=eps, steps=steps, generator=generator)

    return _objective(settings, from_kl, from_labels)


def snn_loss(settings: LossSettings) -> Loss:
    """The objective against RFGSM."""

    def from_kl(model: nn.Module, images: Tensor, logits: Tensor, generator: attacks.Randomness) -> Tensor:
        return attacks.kl_rfgsm(model, images, logits, eps=settings.eps, generator=generator)

    def from_labels(model: nn.Module, images: Tensor, labels: Tensor, generator: attacks.Randomness) -> Tensor:
        return attacks.rfgsm(model, images, labels, eps=settings.eps, generator=generator)

    return _objective(settings, from_kl, from_labels)


def natural(model: nn.Module, images: Tensor, labels: Tensor, _generator: attacks.Randomness) -> Tensor:
    """Cross entropy."""
    return F.cross_entropy(model(images), labels)


def _objective(settings: LossSettings, from_kl: Loss, from_labels: Loss) -> Loss:
    """The objective of the settings; the attacks are given logits or labels, whatever they start from."""
    match settings.objective:
        case "natural":
            return natural
        case "adversarial":
            return _adversarial(from_labels)
        case "mart":
            return _mart(settings, from_labels)
        case "trades":
            return _trades(settings, from_kl)


def _adversarial(craft: Loss) -> Loss:
    def loss(model: nn.Module, images: Tensor, labels: Tensor, generator: attacks.Randomness) -> Tensor:
        return F.cross_entropy(model(craft(model, images, labels, generator)), labels)

    return loss


def _trades(settings: LossSettings, craft: Loss) -> Loss:
    def loss(model: nn.Module, images: Tensor, labels: Tensor, generator: attacks.Randomness) -> Tensor:
        logits = model(images)
        adversarial = model(craft(model, images, logits, generator))
        divergence = _divergence(settings, logits, adversarial).mean()
        return F.cross_entropy(logits, labels) + settings.weight * divergence

    return loss


def _mart(settings: LossSettings, craft: Loss) -> Loss:
    def loss(model: nn.Module, images: Tensor, labels: Tensor, generator: attacks.Randomness) -> Tensor:
        logits = model(images)
        adversarial = model(craft(model, images, labels, generator))
        target = F.one_hot(labels, logits.shape[1]).bool()
        runner_up = adversarial.softmax(dim=1).masked_fill(target, 0.0).amax(dim=1)
        boosted = F.cross_entropy(adversarial, labels, reduction="none") - (1 - runner_up + _TINY).log()
        doubt = 1 - logits.softmax(dim=1)[target]
        divergence = _divergence(settings, logits, adversarial)
        each: Tensor = boosted + settings.weight * divergence * doubt
        return each.mean()

    return loss


def _divergence(settings: LossSettings, logits: Tensor, adversarial: Tensor) -> Tensor:
    """KL(p(x) || p(x~)) of each sample, or the other way round."""
    pair = [logits.log_softmax(dim=1), adversarial.log_softmax(dim=1)]
    first, second = pair if settings.kl == "clean" else reversed(pair)
    divergence: Tensor = F.kl_div(second, first, log_target=True, reduction="none").sum(dim=1)
    return divergence
