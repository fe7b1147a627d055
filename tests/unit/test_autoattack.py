"""AutoAttack by its authors' code, where the extra is installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from toy import SHAPE, net, split

from toolchain import evaluate
from toolchain.attacks import auto
from toolchain.data import Split
from toolchain.errors import BackendError, ConfigError
from toolchain.train import pixels


def four_classes(images):
    """A model of four classes: the toy's three and one that is never the greatest."""
    logits = MODEL(images)
    return torch.cat([logits, logits.amin(dim=1, keepdim=True) - 1], dim=1)


MODEL = net()


def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(BackendError) as caught:
        auto.autoattack(MODEL, torch.zeros(1, *SHAPE), torch.tensor([0]), eps=0.1)
    expected = 'autoattack: pyautoattack is not installed. Install it: pip install "rsnn-deploy[autoattack]"'
    assert str(caught.value) == expected


def test_fewer_than_four_classes_are_refused():
    with pytest.raises(ConfigError, match=r"^attack: autoattack takes four classes, got 3$"):
        auto.autoattack(MODEL, torch.zeros(1, *SHAPE), torch.tensor([0]), eps=0.1)


@pytest.mark.slow
def test_it_is_at_least_as_strong_as_apgd_and_leaves_the_random_state_alone():
    images = split(6).images
    with torch.no_grad():
        labels = MODEL(pixels(images)).argmax(dim=1).numpy()
    some = Split(images=images, labels=labels.astype(np.int64))
    torch.manual_seed(4)
    before = torch.get_rng_state()
    outcome = evaluate.attacked(four_classes, some, "autoattack", eps=0.03)
    assert torch.equal(torch.get_rng_state(), before)
    assert not outcome.members
    apgd = evaluate.attacked(four_classes, some, "apgd-ce", eps=0.03)
    assert outcome.right.sum() <= apgd.right.sum()
    moved = auto.autoattack(four_classes, pixels(images), torch.tensor(labels), eps=0.03)
    assert (moved - pixels(images)).abs().max() <= 0.03 + 1e-6
