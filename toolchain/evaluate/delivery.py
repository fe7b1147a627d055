"""Adversarial images on their way to a chip: a sensor rounds them to uint8 pixels, and what the chip says of those counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from toolchain.attacks.gradient import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A deployed network, which adversarial images are for.

    classify: the classes of uint8 images (B, C, H, W), (B,); unrounded: logits of images of [0, 1] that no sensor rounded.
    """

    classify: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int64]]
    unrounded: Model


class Delivery:
    """What became of the adversarial images of some clean ones.

    Shapes: images uint8 (B, C, H, W), of each the one that broke it, else the last one tried, else itself; unrounded (B,)
    bool, whether it withstood all that were tried of it, had no sensor rounded them.
    """

    def __init__(self, target: Target, images: Tensor, labels: Tensor, eps: float) -> None:
        self._target, self._clean, self._labels, self._eps = target, images, labels, eps
        self.images = delivered(images, images, 0.0)
        self._broken = torch.zeros_like(labels, dtype=torch.bool)
        self.unrounded = torch.ones_like(labels, dtype=torch.bool)

    def clean(self) -> Tensor:
        """Which images the network is right about without an attack. Shapes: -> (B,) bool."""
        return self._right(self.images, self._labels)

    def judge(self, chosen: Tensor, adversarial: Tensor) -> Tensor:
        """Which of the chosen images it is right about as a sensor delivers them. Shapes: (n,), (n, C, H, W) -> (n,) bool."""
        labels = self._labels[chosen]
        with torch.no_grad():
            self.unrounded[chosen] &= self._target.unrounded(adversarial).argmax(dim=1) == labels
        rounded = delivered(adversarial, self._clean[chosen], self._eps)
        right = self._right(rounded, labels)
        broken = self._broken[chosen]
        self.images[chosen] = torch.where(broken[:, None, None, None], self.images[chosen], rounded)
        self._broken[chosen] = broken | ~right
        return right

    def _right(self, images: Tensor, labels: Tensor) -> Tensor:
        classes = torch.from_numpy(self._target.classify(images.cpu().numpy()))
        return classes.to(labels) == labels


def delivered(images: Tensor, clean: Tensor, eps: float) -> Tensor:
    """The uint8 pixels nearest to images of [0, 1] among those within eps of clean ones, which are pixels themselves."""
    pixels = (255 * clean).round()
    reach = math.floor(255 * eps + 1e-4)  # a radius of 8/255 means 8, whatever floats make of it
    return torch.minimum(torch.maximum((255 * images).round(), pixels - reach), pixels + reach).clamp(0, 255).byte()
