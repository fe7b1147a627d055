"""What every reader of images returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import FormatError

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Images with their labels.

    Shapes: images uint8 (N, C, H, W); labels int64 (N,). Both are read-only.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for array in (self.images, self.labels):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int) -> Split:
        """The first n images, or all where there are fewer."""
        return Split(images=self.images[:n], labels=self.labels[:n])


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The images of one part of a data set, and how the axes of what was read were meant."""

    layout: str
    split: Split


def averaged(split: Split, n: int, *, source: str) -> Split:
    """Images in which the mean of n x n pixels, rounded, is one. Raises FormatError where n does not divide a side."""
    if n == 1:
        return split
    *_, height, width = split.images.shape
    if height % n or width % n:
        raise FormatError(path=source, reason=f"data.average: {n}x{n} cells do not divide {height}x{width} images")
    shape = (*split.images.shape[:2], height // n, n, width // n, n)
    sums = split.images.reshape(shape).sum(axis=(3, 5), dtype=np.uint32)
    return Split(images=((2 * sums + n * n) // (2 * n * n)).astype(np.uint8), labels=split.labels)
