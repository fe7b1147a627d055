"""How many weights remain, and which: by size, or by lot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from toolchain import nets
from toolchain.train import stream

if TYPE_CHECKING:
    from toolchain.nets import Net

Mask = dict[str, Tensor]
"""True where a weight is kept, by the weight's name in the network's body"""


def n_kept(n_weights: int, sparsity: float) -> int:
    """How many of n weights remain: so many that at least the share `sparsity` is pruned, and never none."""
    return max(1, n_weights - math.ceil(round(sparsity * n_weights, 6)))


def greatest(values: Tensor, n: int) -> Tensor:
    """True at the n greatest values of a tensor; of equal ones the first. Shapes: any -> the same."""
    order = values.reshape(-1).argsort(descending=True, stable=True)
    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    mask[order[:n]] = True
    return mask.reshape(values.shape)


def top(values: Tensor, sparsity: float) -> Tensor:
    """True at the greatest values of a tensor, exactly `n_kept` of them."""
    return greatest(values, n_kept(values.numel(), sparsity))


def magnitude(net: Net, sparsity: float) -> Mask:
    """The mask that keeps each layer's greatest weights (LWM)."""
    return {name: top(weight.detach().abs(), sparsity) for name, weight in nets.prunable(net).items()}


def random(net: Net, sparsity: float, seed: int) -> Mask:
    """A mask that keeps weights of each layer by lot, the same for the same seed."""
    return {
        name: top(torch.rand(weight.shape, generator=stream(seed, "random mask", name)), sparsity).to(weight.device)
        for name, weight in nets.prunable(net).items()
    }
