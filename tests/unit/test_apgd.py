"""APGD's step rule: against the authors' code, and against the paper's algorithm image by image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pyautoattack.autopgd_base import APGDAttack
from torch import nn
from toy import SHAPE

from toolchain.attacks import apgd
from toolchain.attacks.apgd import checkpoints, climb, dlr
from toolchain.errors import ConfigError

EPS = 0.03


def network():
    """An ANN of ten classes: with three the DLR loss has plateaus."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16), nn.ReLU(), nn.Linear(16, 10)
        )


def images_and_labels(model, n=24):
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(n, *SHAPE, generator=generator).to(next(model.parameters()).dtype)
    with torch.no_grad():
        return images, model(images).argmax(dim=1)


def one_by_one(model, image, label, *, eps, steps, start, losses, rho=0.75):
    """Algorithm 1 of Croce and Hein 2020 for a single image, with numbers in place of masks.

    As in the authors' code, a step's loss is compared with that of the step before it, the first step's with 0, and the
    share may equal rho.
    """

    def at(x):
        x = x.clone().requires_grad_()
        logits = model(x[None])
        loss = losses(logits, label[None])[0]
        return loss.item(), torch.autograd.grad(loss, x)[0], int(logits.argmax()) == int(label)

    def clip(x):
        return torch.clamp(torch.minimum(torch.maximum(x, image - eps), image + eps), 0, 1)

    interval, size = max(int(0.22 * steps), 1), 2 * eps
    x = before = torch.clamp(image + eps * start / (start.abs().max() + 1e-12), 0, 1)
    loss, gradient, right = at(x)
    best, best_loss, best_gradient = x, loss, gradient
    n_rises, since, last_loss, checked_loss, halved = 0, 0, 0.0, loss, True
    for k in range(steps):
        z = clip(x + size * gradient.sign())
        momentum = 1.0 if k == 0 else 0.75
        x, before = clip(x + momentum * (z - x) + (1 - momentum) * (x - before)), x
        loss, gradient, stands = at(x)
        right = right and stands
        n_rises, since, last_loss = n_rises + (loss > last_loss), since + 1, loss
        if loss > best_loss:
            best, best_loss, best_gradient = x, loss, gradient
        if since == interval:
            halved = n_rises <= rho * interval or (not halved and best_loss <= checked_loss)
            if halved:
                size, x, gradient = size / 2, best, best_gradient
            checked_loss, n_rises, since = best_loss, 0, 0
            interval = max(interval - max(int(0.03 * steps), 1), int(0.06 * steps), 1)
    return best, best_loss, right


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("steps", [10, 40])
def test_apgd_is_the_papers_algorithm_image_by_image(loss, steps):
    model = network().double()
    images, labels = images_and_labels(model)
    found = climb(model, images, labels, eps=EPS, steps=steps, generator=torch.Generator().manual_seed(8), loss=loss)
    starts = 2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(8)).double() - 1
    losses = dlr if loss == "dlr" else lambda logits, y: F.cross_entropy(logits, y, reduction="none")
    for index, start in enumerate(starts):
        best, best_loss, right = one_by_one(
            model, images[index], labels[index], eps=EPS, steps=steps, start=start, losses=losses
        )
        torch.testing.assert_close(found.highest[index], best, rtol=0, atol=1e-9)
        assert found.loss[index].item() == pytest.approx(best_loss, abs=1e-9)
        assert bool(found.right[index]) == right
    assert 0 < found.right.sum() < len(images)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("steps", [10, 50])
def test_apgd_equals_the_authors_code_sample_for_sample(loss, steps):
    model = network()
    images, labels = images_and_labels(model)
    theirs = APGDAttack(model, n_iter=steps, eps=EPS, loss=loss, rho=0.75, device="cpu")
    theirs.init_hyperparam(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        highest, right, highest_loss, fooling = theirs.attack_single_run(images.clone(), labels)
    found = climb(model, images, labels, eps=EPS, steps=steps, generator=torch.Generator().manual_seed(11), loss=loss)
    torch.testing.assert_close(found.highest, highest.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.loss, highest_loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.fooling, fooling.detach(), rtol=0, atol=1e-6)
    assert torch.equal(found.right, right.bool())
    assert 0 < right.sum() < len(images)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (10, [2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (50, [11, 21, 30, 38, 45]),
        (100, [22, 41, 57, 70, 80, 87, 93, 99]),
    ],
)
def test_the_checkpoints_are_the_papers(steps, expected):
    found = list(checkpoints(steps))
    assert found[: len(expected)] == expected


def test_apgd_returns_what_fools_where_anything_did():
    model = network().double()
    images, labels = images_and_labels(model)
    settings = {"eps": EPS, "steps": 10}
    moved = apgd(model, images, labels, generator=torch.Generator().manual_seed(1), **settings)
    reached = climb(model, images, labels, generator=torch.Generator().manual_seed(1), **settings)
    with torch.no_grad():
        assert torch.equal(model(moved).argmax(dim=1) == labels, reached.right)
    assert torch.equal(moved[reached.right], reached.highest[reached.right])


def test_dlr_is_its_formula_and_knows_no_scale():
    logits = torch.tensor([[4.0, 1.0, 2.0, 0.0], [1.0, 4.0, 2.0, 0.0]])
    labels = torch.tensor([0, 0])
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-(4 - 2) / (4 - 1), -(1 - 4) / (4 - 1)]))
    torch.testing.assert_close(dlr(1000 * logits, labels), dlr(logits, labels))


def test_dlr_of_two_classes_is_refused():
    with pytest.raises(ConfigError, match=r"^attack: the DLR loss takes three classes, got 2$"):
        dlr(torch.zeros(1, 2), torch.tensor([0]))
