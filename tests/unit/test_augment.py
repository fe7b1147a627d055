"""Augmentation, against what an image may become and against a loop over pixels."""

import math

import pytest
import torch
import torch.nn.functional as F

from toolchain.data.augment import augment, boxes


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, side=16, channels=2):
    return torch.rand(n, channels, side, side, generator=seeded(9))


def test_none_draws_nothing_and_returns_the_images():
    generator, x = seeded(), images(3)
    assert augment(x, "none", generator) is x
    assert torch.equal(generator.get_state(), seeded().get_state())


def test_crop_flip_moves_by_up_to_an_eighth_over_black_and_mirrors_half():
    x = images(600)
    padded = F.pad(x, (2, 2, 2, 2))
    out = augment(x, "crop-flip", seeded())
    seen = {}
    for mirrored in (False, True):
        candidate = out.flip(3) if mirrored else out
        for dy in range(5):
            for dx in range(5):
                same = (candidate == padded[:, :, dy : dy + 16, dx : dx + 16]).flatten(1).all(dim=1)
                seen[mirrored, dy, dx] = int(same.sum())
    assert sum(seen.values()) == 600
    assert min(seen.values()) > 0
    assert 250 < sum(n for (mirrored, _, _), n in seen.items() if mirrored) < 350


def test_images_of_32_pixels_move_by_up_to_four():
    marked = torch.zeros(400, 1, 32, 32)
    marked[:, 0, 16, 16] = 1
    out = augment(marked, "crop-flip", seeded())
    rows = out.amax(dim=(1, 3)).argmax(dim=1)
    assert (int(rows.min()), int(rows.max())) == (12, 20)


def test_boxes_have_the_areas_and_ratios_asked_for_and_lie_inside():
    y, x, height, width = boxes(4000, seeded()).unbind(dim=1)
    area, ratio = height * width, width / height
    assert 0.08 <= area.min() < 0.1
    assert 0.9 < area.max() <= 1
    assert ratio.min() >= 3 / 4 - 1e-5
    assert ratio.max() <= 4 / 3 + 1e-5
    for centre, side in ((y, height), (x, width)):
        assert (centre - side / 2).min() >= -1e-6
        assert (centre + side / 2).max() <= 1 + 1e-6


def test_a_resized_crop_is_its_box_scaled_up_bilinearly():
    x = images(6)
    out, box = augment(x, "random-resized-crop", seeded(3)), boxes(6, seeded(3))

    def pixel(image, y, x):
        y, x = min(max(y, 0), 15), min(max(x, 0), 15)
        y0, x0 = math.floor(y), math.floor(x)
        y1, x1 = min(y0 + 1, 15), min(x0 + 1, 15)
        top = image[:, y0, x0] * (1 - (x - x0)) + image[:, y0, x1] * (x - x0)
        bottom = image[:, y1, x0] * (1 - (x - x0)) + image[:, y1, x1] * (x - x0)
        return top * (1 - (y - y0)) + bottom * (y - y0)

    mirrored = 0
    for image, found, (cy, cx, height, width) in zip(x, out, box.tolist(), strict=True):
        expected = torch.empty_like(image)
        for row in range(16):
            for column in range(16):
                y = 16 * (cy - height / 2) + (row + 0.5) * height - 0.5
                x_ = 16 * (cx - width / 2) + (column + 0.5) * width - 0.5
                expected[:, row, column] = pixel(image, y, x_)
        straight = torch.allclose(found, expected, atol=1e-4)
        assert straight or torch.allclose(found.flip(2), expected, atol=1e-4)
        mirrored += not straight
    assert 0 < mirrored < 6


@pytest.mark.parametrize("kind", ["crop-flip", "random-resized-crop"])
def test_equal_generators_draw_equal_variations_that_stay_in_range(kind):
    x = images(5)
    one, other, third = (augment(x, kind, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    assert one.shape == x.shape
    assert 0 <= one.min() <= one.max() <= 1
