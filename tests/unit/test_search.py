"""Search: what its steps and trials look at, and what trials find that steps along a wrong gradient miss."""

from __future__ import annotations

import pytest
import torch
from toy import SHAPE

from toolchain import attacks
from toolchain.attacks.search import TRIALS

EPS = 0.1


def generator():
    return torch.Generator().manual_seed(0)


class Lying(torch.autograd.Function):
    """A sum of pixels whose gradient has the wrong sign at some."""

    @staticmethod
    def forward(ctx, x, lies) -> torch.Tensor:
        ctx.save_for_backward(lies)
        return x.sum(dim=1, keepdim=True)

    @staticmethod
    def backward(ctx, gradient) -> tuple[torch.Tensor, None]:
        (lies,) = ctx.saved_tensors
        return gradient * (1 - 2 * lies.float()), None


def misled(n_lies, threshold):
    """A model that is wrong where all pixels sum to less than a threshold, and lies about the direction of some."""
    lies = torch.arange(64) < n_lies

    def model(images):
        total = Lying.apply(images.flatten(1), lies)
        return torch.cat([total - threshold, torch.zeros_like(total)], dim=1)

    return model


def attacked(verb, model, n=8):
    images, labels = torch.full((n, *SHAPE), 0.5), torch.zeros(n, dtype=torch.long)
    return verb(model, images, labels, eps=EPS, steps=10, generator=generator()), labels


def test_trials_leave_out_pixels_whose_gradient_lies():
    # By steps alone 24 of 64 pixels go the wrong way: the sum ends at 32 - (40 - 24) * EPS.
    model = misled(24, 32 - 17 * EPS)
    by_steps, labels = attacked(attacks.pgd, model)
    by_search, _ = attacked(attacks.search, model)
    assert (model(by_steps).argmax(dim=1) == labels).all()
    assert (model(by_search).argmax(dim=1) != labels).all()


def test_the_optimum_of_a_linear_model_is_found():
    adversarial, _ = attacked(attacks.search, misled(0, 0.0))
    torch.testing.assert_close(adversarial, torch.full_like(adversarial, 0.5 - EPS))


@pytest.mark.parametrize("steps", [1, 3])
def test_it_asks_for_a_gradient_a_step_and_for_its_trials(steps):
    asked = []

    def model(images):
        asked.append((len(images), torch.is_grad_enabled()))
        return torch.cat(
            [images.flatten(1).sum(dim=1, keepdim=True), -torch.ones(len(images), 1)], dim=1
        ) * 0 + torch.tensor([1.0, 0.0])

    images, labels = torch.full((3, *SHAPE), 0.5), torch.zeros(3, dtype=torch.long)
    attacks.search(model, images, labels, eps=EPS, steps=steps, generator=generator())
    assert asked == [(3, True)] * (1 + steps) + [(3, False)] * (TRIALS * steps)  # no trial is better: no new gradient


def test_an_image_that_is_misclassified_is_not_tried_again():
    asked = []

    def model(images):
        asked.append(len(images))
        bright = images.flatten(1).mean(dim=1, keepdim=True) > 0.8
        return torch.cat([bright.float(), 0.5 + 0 * images.flatten(1).sum(dim=1, keepdim=True)], dim=1)

    images = torch.stack([torch.full(SHAPE, level) for level in (0.9, 0.2, 1.0)])
    attacks.search(model, images, torch.zeros(3, dtype=torch.long), eps=0.01, steps=1, generator=generator())
    assert asked == [3, 3, *[2] * TRIALS]
