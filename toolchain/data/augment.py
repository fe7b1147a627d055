"""Random variations of training images, drawn from the generator given: a stage resumed draws what it would have drawn."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["none", "crop-flip", "random-resized-crop"]

_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)


def augment(images: Tensor, kind: Kind, generator: torch.Generator) -> Tensor:
    """Images varied each on its own, in [0, 1] where they were; `none` returns them as they are.

    crop-flip: moved by up to an eighth of a side over black (32 pixels by 4), half of them mirrored.
    random-resized-crop: a box of 8 to 100 % of the area and a ratio of 3:4 to 4:3, scaled up bilinearly, half mirrored.
    Shapes: (B, C, H, W) -> the same.
    """
    match kind:
        case "none":
            return images
        case "crop-flip":
            return _mirrored(_cropped(images, generator), generator)
        case "random-resized-crop":
            return _mirrored(_resized(images, boxes(len(images), generator)), generator)


def boxes(n: int, generator: torch.Generator) -> Tensor:
    """Random boxes as centre y, centre x, height, width, in units of the image's sides. Shapes: (n, 4)."""
    area, ratio, y, x = torch.rand(4, n, generator=generator)
    area = _AREA[0] + (_AREA[1] - _AREA[0]) * area
    ratio = (math.log(_RATIO[0]) + (math.log(_RATIO[1]) - math.log(_RATIO[0])) * ratio).exp()
    height, width = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
    return torch.stack([height / 2 + (1 - height) * y, width / 2 + (1 - width) * x, height, width], dim=1)


def _cropped(images: Tensor, generator: torch.Generator) -> Tensor:
    n, channels, height, width = images.shape
    pads = [max(1, side // 8) for side in (height, width)]
    padded = F.pad(images, (pads[1], pads[1], pads[0], pads[0]))
    starts = [torch.randint(0, 2 * pad + 1, (n, 1), generator=generator).to(images.device) for pad in pads]
    rows, columns = (
        start + torch.arange(side, device=images.device) for start, side in zip(starts, (height, width), strict=True)
    )
    each, channel = torch.arange(n, device=images.device), torch.arange(channels, device=images.device)
    return padded[each[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def _resized(images: Tensor, box: Tensor) -> Tensor:
    y, x, height, width = box.to(images).unbind(dim=1)
    nothing = torch.zeros_like(y)
    transform = torch.stack([width, nothing, 2 * x - 1, nothing, height, 2 * y - 1], dim=1).reshape(-1, 2, 3)
    grid = F.affine_grid(transform, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    mirror = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(mirror[:, None, None, None], images.flip(3), images)
