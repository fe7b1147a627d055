"""Processes that `torchrun` started and that train one network together; without it, one process that is all of them.

Rank r of n takes the r-th part of every batch. Gradients are averaged by DistributedDataParallel, batch statistics are those
of the whole batch, random numbers are drawn for the whole batch by every rank: the result is that of one process, but for
the order of sums (and dropout, which each rank draws for itself). Only rank 0 writes a run's files; the others read them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import torch
    from torch import Tensor, nn

Key = TypeVar("Key")
Value = TypeVar("Value")


def rank() -> int:
    """Which of the processes this one is, from 0."""
    return int(os.environ.get("RANK", "0")) if size() > 1 else 0


def size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined() -> Iterator[None]:
    """Inside, the processes can speak to each other: by nccl where there are GPUs, else by gloo."""
    import torch
    from torch import distributed

    if size() == 1 or distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def device() -> torch.device:
    """Where this process computes: on a GPU of its own, or on the CPU."""
    import torch

    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


def wait() -> None:
    """Every process has come this far."""
    from torch import distributed

    if size() > 1:
        distributed.barrier()


def part(n: int) -> slice:
    """The part of n images in a row that is this rank's; parts differ by one image at the most."""
    return slice(rank() * n // size(), (rank() + 1) * n // size())


def mine(keys: Iterable[Key]) -> list[Key]:
    """The share of things to do that is this rank's: every n-th."""
    return list(keys)[rank() :: size()]


def gathered(found: Mapping[Key, Value]) -> dict[Key, Value]:
    """What all ranks found, together."""
    from torch import distributed

    if size() == 1:
        return dict(found)
    everyone: list[Any] = [None] * size()
    distributed.all_gather_object(everyone, dict(found))
    return {key: value for one in everyone for key, value in one.items()}


def mean(value: float) -> float:
    """The mean of a number over the ranks."""
    return sum(gathered({rank(): value}).values()) / size()


def together(module: nn.Module) -> nn.Module:
    """The module with its gradients averaged over the ranks."""
    from torch.nn.parallel import DistributedDataParallel

    if size() == 1:
        return module
    # A threshold of an ANN has no gradient; buffers are equal, because batch statistics are everyone's.
    return DistributedDataParallel(module, find_unused_parameters=True, broadcast_buffers=False)


@contextmanager
def synchronized(module: nn.Module) -> Iterator[None]:
    """Inside, batch normalisation in training mode takes the statistics of all ranks' images."""
    import functools

    from torch import nn

    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)] if size() > 1 else []
    for norm in norms:
        norm.forward = functools.partial(_normalized, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _normalized(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch normalisation over all ranks, differentiable; torch's own SyncBatchNorm takes GPUs only. Shapes: (B, C, H, W)."""
    import torch
    from torch.nn import functional as F

    if not norm.training:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    channels = x.shape[1]
    n_own = x.new_full((1,), x.numel() / channels)
    sums = _summed(torch.cat([x.sum(dim=(0, 2, 3)), n_own]))
    n = float(sums[-1])
    centre = sums[:channels] / n
    centred = x - centre[:, None, None]
    variance = _summed(centred.pow(2).sum(dim=(0, 2, 3))) / n
    with torch.no_grad():
        if norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None:
            norm.running_mean.lerp_(centre, norm.momentum)
            norm.running_var.lerp_(variance * n / (n - 1), norm.momentum)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return centred * scale[:, None, None] + norm.bias[:, None, None]


def _summed(x: Tensor) -> Tensor:
    """The sum of a tensor over the ranks, whose gradient is summed over them too."""
    from torch.distributed.nn import functional as everyone

    total: Tensor = everyone.all_reduce(x)  # type: ignore[no-untyped-call]
    return total
