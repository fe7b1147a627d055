"""Average pools that small maps on a CPU are fast through."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL_SIDE = 16
"""Least side of a map that torch's own pool takes: smaller ones, their channels first, are sooner multiplied by a matrix."""


class Pool(nn.AvgPool2d):
    """The mean of every cell, cells side by side. Shapes: (B, C, H, W) -> (B, C, H / kernel, W / kernel)."""

    def forward(self, x: Tensor) -> Tensor:
        """The pooled maps. Sums of spikes are exact either way."""
        height, width = x.shape[2:]
        if x.device.type != "cpu" or min(height, width) >= SMALL_SIDE or not x.is_contiguous():
            return super().forward(x)
        means, sides = _means(height, width, self.kernel_size, x.dtype)
        return (x.flatten(2) @ means).reshape(*x.shape[:2], *sides)


@functools.lru_cache(maxsize=32)
def _means(
    height: int, width: int, kernel: int | tuple[int, int], dtype: torch.dtype
) -> tuple[Tensor, tuple[int, int]]:
    """The matrix of a pool, a row a pixel and a column a cell, and the sides of what it leaves."""
    with torch.inference_mode(mode=False), torch.no_grad():
        pixels = torch.eye(height * width, dtype=dtype).reshape(-1, 1, height, width)
        pooled = F.avg_pool2d(pixels, kernel)
    return pooled.flatten(1), (pooled.shape[2], pooled.shape[3])
