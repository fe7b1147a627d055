"""The strongest of several gradients: a spiking network has no true one, and a single stand-in flatters it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from toolchain import spiking
from toolchain.attacks.gradient import evaluating
from toolchain.spiking import Bptr, Exponential, PiecewiseLinear, Rectangular, Surrogate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One gradient of an ensemble: that of a surrogate, or, with None, the model's own."""

    surrogate: Surrogate | None

    @property
    def name(self) -> str:
        """The surrogate's name, or `true gradient`."""
        return "true gradient" if self.surrogate is None else str(self.surrogate)

    @contextmanager
    def installed(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` is differentiated by this member; afterwards as before."""
        with spiking.configured(model, surrogate=self.surrogate):
            yield


MEMBERS = tuple(
    Member(surrogate=surrogate)
    for surrogate in (
        Exponential(0.3, 2),
        Exponential(1, 2),
        PiecewiseLinear(1),
        PiecewiseLinear(0.5),
        Bptr(),
        Rectangular(1),
    )
)
"""The surrogates a spiking network is attacked with, strongest first."""

TRUE_GRADIENT = (Member(surrogate=None),)
"""What a network without spikes is attacked with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """What an ensemble did to a batch.

    Shapes: right (B,) bool, classified right clean and under every member; members[name] (B,) bool, likewise under this
    member, False also where an earlier member had broken the image and this one was spared the work.
    """

    right: Tensor
    members: dict[str, Tensor]


def strongest(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    *,
    members: Sequence[Member],
    survivors_only: bool = True,
) -> Broken:
    """An image counts as right if it is so clean and under every member; members attack survivors, or all images.

    The model is left as it was: mode, surrogates, buffers, gradients.
    """
    with evaluating(model), torch.no_grad():
        clean = model(images).argmax(dim=1) == labels
        right, outcomes = clean.clone(), {}
        for member in members:
            attacked = (right if survivors_only else clean).nonzero().squeeze(1)
            outcome = torch.zeros_like(right)
            if len(attacked):
                with member.installed(model):
                    adversarial = attack(model, images[attacked], labels[attacked])
                outcome[attacked] = model(adversarial).argmax(dim=1) == labels[attacked]
            outcomes[member.name] = outcome
            right &= outcome
    return Broken(right=right, members=outcomes)
