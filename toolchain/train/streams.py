"""What every stage draws from and looks at: random numbers by name, and pixels as numbers of [0, 1]."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor


def stream(*names: object) -> torch.Generator:
    """A generator of its own for each sequence of names, such as (seed, stage, epoch)."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def pixels(images: Any) -> Tensor:
    """Float images of [0, 1]. Shapes: uint8 (N, C, H, W), of numpy or torch -> float32, the same."""
    return (images.float() if isinstance(images, Tensor) else torch.tensor(images, dtype=torch.float32)) / 255
