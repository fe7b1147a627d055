"""The loop of every stage of training: epochs of SGD, from any finished one on.

Everything random is derived from (seed, stage, epoch), so that a stage resumed after any epoch ends as if it had never stopped.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from toolchain import ranks, spiking
from toolchain.attacks import Share
from toolchain.data.augment import Kind, augment
from toolchain.errors import ConfigError
from toolchain.train.streams import pixels, stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.attacks import Randomness
    from toolchain.data import Split
    from toolchain.train.losses import Loss

MOMENTUM = 0.9


class Schedule(Protocol):
    """The settings every stage of training has."""

    @property
    def epochs(self) -> int:
        """Passes over the images."""

    @property
    def lr(self) -> float:
        """Learning rate at the start; a cosine takes it to 0."""

    @property
    def weight_decay(self) -> float:
        """L2 penalty."""

    @property
    def batch(self) -> int:
        """Images a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A finished epoch: `number` of `total`, its mean loss, and the state from which the next one starts."""

    number: int
    total: int
    loss: float
    model: dict[str, Tensor]
    optimizer: dict[str, Any]


AfterEpoch = Callable[[Epoch], None]
BeforeEpoch = Callable[[int], None]
"""It is given the number of the epoch that begins, from 0."""


def ignore(_epoch: Epoch | int) -> None:
    """Nothing happens before or after an epoch."""


def fit(
    model: nn.Module,
    split: Split,
    schedule: Schedule,
    loss: Loss,
    *,
    seed: tuple[int, str],
    masks: Mapping[nn.Parameter, Tensor] | None = None,
    augmentation: Kind = "none",
    start: Epoch | None = None,
    before: BeforeEpoch = ignore,
    after: AfterEpoch = ignore,
) -> None:
    """`model` has gone through the schedule's epochs of SGD, from `start` where given; it ends in evaluation mode.

    masks: weights to keep at zero, exactly, where their mask is False. augmentation: how training images are varied.
    """
    masks = masks or {}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=schedule.lr, momentum=MOMENTUM, weight_decay=schedule.weight_decay)
    done = 0
    if start is not None:
        model.load_state_dict(start.model)
        optimizer.load_state_dict(copy.deepcopy(start.optimizer))
        done = start.number
    images, labels = torch.tensor(split.images), torch.tensor(split.labels)
    batches = _batches(len(labels), schedule.batch)
    model.train()
    objective = ranks.together(_Objective(model, loss)) if done < schedule.epochs else model
    for epoch in range(done, schedule.epochs):
        before(epoch)
        generator = stream(*seed, epoch)
        torch.manual_seed(stream(*seed, epoch, "dropout").initial_seed())  # it draws from no other generator
        order = torch.randperm(len(labels), generator=generator)
        total = 0.0
        for index, chosen in enumerate(batches):
            fraction = (epoch + index / len(batches)) / schedule.epochs
            optimizer.param_groups[0]["lr"] = schedule.lr * (1 + math.cos(math.pi * fraction)) / 2
            optimizer.zero_grad()
            batch = order[chosen]
            varied = augment(pixels(images[batch]), augmentation, generator)
            value = _share_of_mean(objective, varied, labels[batch], generator, parameters[0].device)
            value.backward()  # type: ignore[no-untyped-call]
            _step(optimizer, model, masks)
            total += value.item()
        state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        after(
            Epoch(
                number=epoch + 1,
                total=schedule.epochs,
                loss=ranks.mean(total / len(batches)),
                model=state,
                optimizer=copy.deepcopy(optimizer.state_dict()),
            )
        )
    model.eval()


class _Objective(nn.Module):
    """A model's loss as a module, so that all passes through the model are one pass, whose gradients ranks average once."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, images: Tensor, labels: Tensor, generator: Randomness) -> Tensor:
        return self.loss(self.model, images, labels, generator)


def _batches(n_images: int, size: int) -> list[slice]:
    """The places of each batch in an epoch's order; a last one of a single image, which has no batch statistics, is left out.

    Raises: ConfigError where a batch has fewer images than there are ranks.
    """
    starts = range(0, n_images, size)
    batches = [slice(start, min(start + size, n_images)) for start in starts if n_images - start > 1 or start == 0]
    least = min(batch.stop - batch.start for batch in batches)
    if least < ranks.size():
        fault = f"a batch of {least} of {n_images} images cannot be shared by {ranks.size()} processes; change batch"
        raise ConfigError(where="torchrun", faults=(fault,))
    return batches


def _share_of_mean(
    objective: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, device: torch.device
) -> Tensor:
    """The loss of this rank's images, weighted so that its mean over ranks is the batch's mean."""
    mine = ranks.part(len(labels))
    x, y = images[mine].to(device), labels[mine].to(device)
    if ranks.size() == 1:
        value: Tensor = objective(x, y, generator)
        return value
    share = Share(generator=generator, n=len(labels), first=mine.start)
    with ranks.synchronized(objective):
        weighted: Tensor = objective(x, y, share) * (len(y) * ranks.size() / len(labels))
    return weighted


def _step(optimizer: torch.optim.Optimizer, model: nn.Module, masks: Mapping[nn.Parameter, Tensor]) -> None:
    """One step of SGD that leaves pruned weights, and their momentum, at zero and thresholds above their bound."""
    for weight, kept in masks.items():
        if weight.grad is not None:
            weight.grad.masked_fill_(~kept, 0.0)
    optimizer.step()
    with torch.no_grad():
        for weight, kept in masks.items():
            weight.masked_fill_(~kept, 0.0)
    spiking.clamp_thresholds(model)
