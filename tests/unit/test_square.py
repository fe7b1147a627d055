"""Square: its published schedule, its queries counted, its squares looked at."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.square import SquareAttack
from toy import SHAPE, net

from toolchain import attacks
from toolchain.attacks.square import share, square_side

EPS = 0.1

PUBLISHED = [(0, 1), (10, 1), (11, 2), (50, 2), (51, 4), (200, 4), (201, 8), (500, 8), (501, 16), (1000, 16)]
PUBLISHED += [(1001, 32), (2000, 32), (2001, 64), (4000, 64), (4001, 128), (6000, 128), (6001, 256), (8000, 256)]
PUBLISHED += [(8001, 512), (9999, 512)]
"""Queries of 10,000, and what divides p from there on: section 5 of the supplement of Andriushchenko et al. 2020."""


@pytest.mark.parametrize(("query", "divisor"), PUBLISHED)
def test_the_schedule_is_the_published_one(query, divisor):
    assert share(query, 10_000) == 0.8 / divisor


@pytest.mark.parametrize("queries", [500, 1000, 5000])
def test_fewer_queries_follow_the_schedule_in_proportion(queries):
    for query, divisor in PUBLISHED:
        if query * queries % 10_000 == 0:
            assert share(query * queries // 10_000, queries) == 0.8 / divisor
    assert square_side(queries - 1, queries, 32, 32) == 1
    assert square_side(1, 5000, 32, 32) == round((0.8 * 32 * 32) ** 0.5) == 29


def test_the_schedule_is_the_authors_codes():
    for queries in (500, 1000, 5000):
        theirs = SquareAttack(None, eps=EPS, n_queries=queries, p_init=0.8, resc_schedule=True)
        assert [share(query, queries) for query in range(queries)] == [theirs.p_selection(q) for q in range(queries)]


class Counted:
    """A model that counts the images it is asked about, and keeps them."""

    def __init__(self, right) -> None:
        self.right, self.asked, self.n = right, [], 0

    def __call__(self, images) -> torch.Tensor:
        self.asked.append(images.clone())
        self.n += len(images)
        return torch.tensor([[1.0, 0.0, 0.0] if self.right(image) else [0.0, 1.0, 0.0] for image in images])


def one_each(n):
    return [torch.Generator().manual_seed(index) for index in range(n)]


@pytest.mark.parametrize("queries", [1, 2, 17])
def test_an_image_that_stands_asks_exactly_its_queries(queries):
    model = Counted(lambda _image: True)
    images, labels = torch.full((3, *SHAPE), 0.5), torch.zeros(3, dtype=torch.long)
    attacks.square(model, images, labels, eps=EPS, queries=queries, generator=one_each(3))
    assert model.n == 3 * queries


def test_an_image_that_is_misclassified_asks_no_more():
    asked = []

    def model(images):
        asked.append(len(images))
        logits = torch.zeros(len(images), 3)
        logits[:, 0] = 1.0
        if len(asked) == 3:
            logits[0, 1] = 2.0
        return logits

    images, labels = torch.full((4, *SHAPE), 0.5), torch.zeros(4, dtype=torch.long)
    attacks.square(model, images, labels, eps=EPS, queries=6, generator=one_each(4))
    assert asked == [4, 4, 4, 3, 3, 3]


def test_it_starts_from_stripes_and_repaints_one_square_at_the_ends_of_the_ball():
    model = Counted(lambda _image: True)
    images, labels = torch.full((2, 3, 8, 8), 0.5), torch.zeros(2, dtype=torch.long)
    attacks.square(model, images, labels, eps=EPS, queries=40, generator=one_each(2))
    start = model.asked[0]
    assert torch.equal(start, start[:, :, :1].expand_as(start))
    torch.testing.assert_close((start - images).abs(), torch.full_like(images, EPS))
    for query, tried in enumerate(model.asked[1:]):
        # A margin that never falls keeps the stripes as the best there is.
        side = square_side(query, 40, 8, 8)
        torch.testing.assert_close((tried - images).abs(), torch.full_like(images, EPS))
        for image, stripes in zip(tried, start, strict=True):
            changed = (image != stripes).any(dim=0).nonzero()
            if len(changed):
                assert ((changed.amax(dim=0) - changed.amin(dim=0) + 1) <= side).all()


def test_it_keeps_what_lowers_the_margin_of_a_linear_model():
    weight = torch.linspace(-1, 1, 64)

    def model(images):
        score = images.flatten(1) @ weight
        return torch.stack([100 + score, torch.zeros_like(score), torch.zeros_like(score)], dim=1)

    images, labels = torch.full((5, *SHAPE), 0.5), torch.zeros(5, dtype=torch.long)
    margins = [
        model(attacks.square(model, images, labels, eps=EPS, queries=n, generator=one_each(5)))[:, 0].mean().item()
        for n in (1, 30, 1000)
    ]
    optimum = (100 + (images.flatten(1) @ weight) - EPS * weight.abs().sum())[0].item()
    assert margins[0] > margins[1] > margins[2]
    assert margins[2] == pytest.approx(optimum, abs=0.05 * EPS * weight.abs().sum().item())


def test_it_takes_no_gradient():
    model = net(mode="snn")
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    seen = []

    def watched(x):
        logits = model(x)
        seen.append(logits.requires_grad)
        return logits

    attacks.square(watched, images, model(images).argmax(dim=1), eps=EPS, queries=5, generator=one_each(4))
    assert seen
    assert not any(seen)
