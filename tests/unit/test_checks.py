"""The checks pass a model that is what it seems, and name what is wrong with one that is not."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toy import net, split

from toolchain import attacks, data, evaluate, nets, resources, store
from toolchain.attacks import Member
from toolchain.evaluate import checks as checks_of
from toolchain.spiking import StraightThrough
from toolchain.train import pixels

EPS = 32 / 255


@functools.cache
def shipped():
    """The shipped robust model and some test images."""
    model = store.load(resources.model_path("digits-cnn.pt"))
    return nets.restore(model), data.load_test(model.data_source, model.recipe.data).first(40)


def verdict(model, images, *, members=None, outcomes=None, eps=EPS):
    if outcomes is None:
        outcomes = [evaluate.attacked(model, images, "fgsm", eps=eps, members=members)]
    return evaluate.sanity(model, images, outcomes, eps=eps, members=members, n=40)


def failed(found):
    return [check["check"] for check in found["checks"] if not check["passed"]]


def test_a_sound_model_shows_no_sign_of_gradient_masking(monkeypatch):
    monkeypatch.setattr(checks_of, "QUERIES", 100)
    found = verdict(*shipped())
    assert failed(found) == []
    assert (found["verdict"], found["passed"], found["n"]) == ("no sign of gradient masking", True, 40)
    assert len(found["checks"]) == 7


class Saturated(nn.Module):
    """A network that multiplies its logits, so that softmax is exactly 1 and its gradient exactly 0."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images):
        return 1e5 * self.model(images)


@pytest.mark.parametrize("mode", ["ann", "snn"])
def test_saturated_logits_are_caught(mode, monkeypatch):
    monkeypatch.setattr(checks_of, "QUERIES", 100)
    model = net(mode=mode)
    images = split(40).images
    with torch.no_grad():
        labels = model(pixels(images)).argmax(dim=1).numpy().astype(np.int64)
    some = type(split())(images=images, labels=labels)
    honest, masked = (verdict(one, some, eps=0.06) for one in (model, Saturated(model)))
    assert failed(honest) == []
    assert masked["passed"] is False
    assert masked["verdict"].startswith("not to be believed: ")
    names = failed(masked)
    assert any(name.startswith("every gradient is zero on ") for name in names)
    assert any("where nothing should be" in name for name in names)
    assert any(name.startswith("square-100 is stronger than the gradients, by ") for name in names)


def test_an_attack_by_the_straight_through_gradient_alone_is_caught():
    model, images = shipped()
    alone = (Member(surrogate=StraightThrough()),)
    names = failed(verdict(model, images, members=alone))
    assert any(name.startswith("18 of 19 gradients took no part, among them exponential(0.3, 2)") for name in names)
    assert any(name.startswith("square-500 is stronger than the gradients, by ") for name in names)


class Noisy(nn.Module):
    """A network that any change of its images breaks, but that hides where to change them."""

    def __init__(self, images, labels) -> None:
        super().__init__()
        self.images, self.labels = images, labels

    def forward(self, images):
        known = (images[:, None] - self.images[None]).abs().flatten(2).amax(dim=2) == 0
        wanted = torch.where(known.any(dim=1), self.labels[known.float().argmax(dim=1)], 3)
        return nn.functional.one_hot(wanted, 4).float() + 0 * images.flatten(1).sum(dim=1, keepdim=True)


def test_a_model_that_noise_breaks_and_gradients_do_not_is_caught():
    some = split(12)
    names = failed(verdict(Noisy(pixels(some.images), torch.tensor(some.labels)), some))
    assert "random noise breaks 12 images, gradients 0" in names
    assert "every gradient is zero on 100% of the images" in names


def test_an_outcome_that_beats_its_member_is_caught():
    model, images = shipped()
    outcome = evaluate.attacked(model, images.first(8), "fgsm", eps=EPS, exhaustive=True)
    assert checks_of._ensemble([outcome])["passed"]
    wrong = dataclasses.replace(outcome, right=np.ones_like(outcome.right))
    found = checks_of._ensemble([wrong])
    assert (found["passed"], found["check"]) == (False, "fgsm-ens beat one of its members")


def test_an_outcome_of_square_on_all_images_is_compared_with_the_gradients():
    model, images = shipped()
    gradients = evaluate.attacked(model, images, "fgsm", eps=EPS)
    square = dataclasses.replace(gradients, attack="square-1000", members={}, right=np.zeros_like(gradients.right))
    found = evaluate.sanity(model, images, [gradients, square], eps=EPS, n=4)
    assert failed(found) == [f"square-1000 is stronger than the gradients, by {gradients.right.sum()} of 40 images"]


@pytest.mark.parametrize(("only_square", "only_gradients", "passed"), [(3, 2, False), (2, 2, True), (2, 3, True)])
def test_one_image_that_square_breaks_more_is_a_sign(only_square, only_gradients, passed):
    by_gradients, by_square = np.ones(40, bool), np.ones(40, bool)
    by_square[:only_square] = False
    by_gradients[20 : 20 + only_gradients] = False
    square = SimpleNamespace(attack="square-500", right=by_square)
    found = checks_of._black_box(SimpleNamespace(rivals=[], right=by_gradients, attacked=lambda _name: square))
    said = {
        True: f"not stronger than the gradients: it alone breaks {only_square} images, they alone {only_gradients}",
        False: "stronger than the gradients, by 1 of 40 images, which may be chance",
    }
    assert (found["passed"], found["check"]) == (passed, f"square-500 is {said[passed]}")


def test_more_steps_that_help_the_defender_are_caught():
    calls = iter([np.zeros(40, bool), np.ones(40, bool)])

    def attacked(*_attack: object, **_changed: object):
        return SimpleNamespace(right=next(calls))

    found = checks_of._steps(SimpleNamespace(steps=10, members=attacks.MEMBERS, attacked=attacked))
    assert (found["passed"], found["check"]) == (False, "40 steps are weaker than 10, by 100% of the images")


def test_the_command_says_no_where_a_check_fails(monkeypatch, capsys):
    from click.testing import CliRunner

    from toolchain.cli import commands

    bad = {"check": "every gradient is zero on 100% of the images", "passed": False}
    answer = {"verdict": f"not to be believed: {bad['check']}", "passed": False, "eps": 0.1, "n": 5, "checks": [bad]}
    monkeypatch.setattr("toolchain.evaluate.stored.sanity", lambda *_args, **_settings: answer)
    done = CliRunner().invoke(commands, ["evaluate", "digits-cnn", "--attack", "noise", "--samples", "5"])
    assert done.exit_code == 1
    assert "NO  every gradient is zero on 100% of the images" in done.output
    assert "not to be believed" in done.output
