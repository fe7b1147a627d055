"""Wide residual networks: pre-activation blocks, whose shortcuts carry real values even where the blocks spike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from toolchain.errors import ConfigError
from toolchain.nets.pool import Pool
from toolchain.spiking import IF

if TYPE_CHECKING:
    from collections.abc import Iterator

STEM = 16
"""Channels of the first convolution."""


class Block(nn.Module):
    """A residual block, whose sum is weighted.

    Equation: h = act1(bn1(x)); r = conv2(act2(bn2(conv1(h)))); out = mix[0] * s + mix[1] * r, with the shortcut s = x, or
    where the shape changes a 1x1 convolution of h.
    Shapes: (B, C, H, W) -> (B, channels, H / stride, W / stride); in mode `snn` with T * B for B, where x may have B.
    Source: Zagoruyko 2016 (arXiv 1605.07146); the weighted sum is that of arXiv 2311.09266.
    """

    def __init__(self, source: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(source)
        self.act1 = IF()
        self.conv1 = nn.Conv2d(source, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = IF()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        changes = source != channels or stride != 1
        self.shortcut = nn.Conv2d(source, channels, 1, stride=stride, bias=False) if changes else None
        self.mix = nn.Parameter(torch.tensor([0.5, 0.5]))

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        h = self.act1(self.bn1(x))
        rest: Tensor = self.conv2(self.act2(self.bn2(self.conv1(h))))
        if self.shortcut is not None:
            x = self.shortcut(h)
        elif len(x) < len(rest):  # the same at every step
            x = x.repeat(len(rest) // len(x), 1, 1, 1)
        return self.mix[0] * x + self.mix[1] * rest


def layers(
    depth: int, width: int, input_shape: tuple[int, int, int], n_classes: int
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of WRN-`depth` with their names; its groups have `width`, 2 and 4 times that many channels.

    Raises: ConfigError where the strides do not divide the images.
    """
    channels, *sides = input_shape
    if any(side % 4 for side in sides):
        fault = f"two strides of 2 do not divide {sides[0]}x{sides[1]} images; crop or pad them to multiples of 4"
        raise ConfigError(where="model", faults=(fault,))
    yield "conv1", nn.Conv2d(channels, STEM, 3, padding=1, bias=False)
    source = STEM
    for group in range(3):
        for number in range((depth - 4) // 6):
            stride = 2 if group and not number else 1
            yield f"block{group + 1}_{number + 1}", Block(source, width << group, stride)
            source = width << group
    yield "bn2", nn.BatchNorm2d(source)
    yield "act1", IF()
    yield "pool1", Pool((sides[0] // 4, sides[1] // 4))
    yield "flatten", nn.Flatten()
    yield "readout", nn.Linear(source, n_classes)
