"""Training: the loop of every stage, its losses, and the first stage, the dense network.

A stage is a verb that changes a network in place and calls `after_epoch` with all it takes to go on from there. Everything
random is derived from (seed, stage, epoch), so that a stage resumed after any epoch ends as if it had never stopped.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolchain import attacks, spiking

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.data import Split
    from toolchain.nets import Net
    from toolchain.recipe import LossSettings, Recipe

MOMENTUM = 0.9

Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
"""(model, images, labels, generator) -> mean loss of the batch"""


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


def train(net: Net, split: Split, recipe: Recipe, *, start: Epoch | None = None, after: AfterEpoch = ignore) -> None:
    """`net` is a dense ANN trained by the recipe's objective."""
    fit(net, split, recipe.train, ann_loss(recipe.loss), seed=(recipe.seed, "train"), start=start, after=after)


def stream(*names: object) -> torch.Generator:
    """A generator of its own for each sequence of names, such as (seed, stage, epoch)."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def pixels(images: Any) -> Tensor:
    """Float images of [0, 1]. Shapes: uint8 numpy (N, C, H, W) -> float32, the same."""
    return torch.tensor(images, dtype=torch.float32) / 255


def ann_loss(settings: LossSettings) -> Loss:
    """TRADES with a PGD attack, or plain cross entropy."""

    def craft(model: nn.Module, images: Tensor, _logits: Tensor, generator: torch.Generator) -> Tensor:
        return attacks.kl_pgd(model, images, eps=settings.eps, steps=settings.steps, generator=generator)

    return natural if settings.objective == "natural" else _trades(settings, craft)


def snn_loss(settings: LossSettings) -> Loss:
    """TRADES with an RFGSM attack, or plain cross entropy."""

    def craft(model: nn.Module, images: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
        return attacks.kl_rfgsm(model, images, logits, eps=settings.eps, generator=generator)

    return natural if settings.objective == "natural" else _trades(settings, craft)


def natural(model: nn.Module, images: Tensor, labels: Tensor, _generator: torch.Generator) -> Tensor:
    """Cross entropy."""
    return F.cross_entropy(model(images), labels)


def _trades(settings: LossSettings, craft: Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]) -> Loss:
    """CE(f(x), y) + weight * KL(p(x) || p(x~)), per sample; `kl = "adversarial"` exchanges the KL's arguments.

    The clean images pass in training mode, then x~ is made in evaluation mode, then passes in training mode.
    Source: Zhang 2019 (arXiv 1901.08573).
    """

    def loss(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        logits = model(images)
        adversarial = model(craft(model, images, logits, generator))
        pair = [logits.log_softmax(dim=1), adversarial.log_softmax(dim=1)]
        first, second = pair if settings.kl == "clean" else reversed(pair)
        divergence = F.kl_div(second, first, log_target=True, reduction="batchmean")
        return F.cross_entropy(logits, labels) + settings.weight * divergence

    return loss


def fit(
    model: nn.Module,
    split: Split,
    schedule: Schedule,
    loss: Loss,
    *,
    seed: tuple[int, str],
    masks: Mapping[nn.Parameter, Tensor] | None = None,
    start: Epoch | None = None,
    before: BeforeEpoch = ignore,
    after: AfterEpoch = ignore,
) -> None:
    """`model` has gone through the schedule's epochs of SGD, from `start` where given; it ends in evaluation mode.

    masks: weights to keep at zero, exactly, where their mask is False.
    """
    masks = masks or {}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=schedule.lr, momentum=MOMENTUM, weight_decay=schedule.weight_decay)
    done = 0
    if start is not None:
        model.load_state_dict(start.model)
        optimizer.load_state_dict(copy.deepcopy(start.optimizer))
        done = start.number
    images, labels = pixels(split.images), torch.tensor(split.labels)
    # The last batch may be smaller, but batch statistics take two images at the least.
    n_batches = max(1, math.ceil(len(labels) / schedule.batch) - (len(labels) % schedule.batch == 1))
    model.train()
    for epoch in range(done, schedule.epochs):
        before(epoch)
        generator = stream(*seed, epoch)
        torch.manual_seed(stream(*seed, epoch, "dropout").initial_seed())  # it draws from no other generator
        order = torch.randperm(len(labels), generator=generator)
        total = 0.0
        for index in range(n_batches):
            batch = order[index * schedule.batch : (index + 1) * schedule.batch]
            fraction = (epoch + index / n_batches) / schedule.epochs
            optimizer.param_groups[0]["lr"] = schedule.lr * (1 + math.cos(math.pi * fraction)) / 2
            optimizer.zero_grad()
            value = loss(model, images[batch], labels[batch], generator)
            value.backward()  # type: ignore[no-untyped-call]
            _step(optimizer, model, masks)
            total += value.item()
        state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        after(
            Epoch(
                number=epoch + 1,
                total=schedule.epochs,
                loss=total / n_batches,
                model=state,
                optimizer=copy.deepcopy(optimizer.state_dict()),
            )
        )
    model.eval()


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
