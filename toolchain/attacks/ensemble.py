"""The strongest of several gradients: a spiking network has no true one, and a single stand-in flatters it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolchain import spiking
from toolchain.attacks.gradient import Model, evaluating, project
from toolchain.spiking import (
    Bptr,
    Exponential,
    Mode,
    PiecewiseLinear,
    RateGradient,
    Rectangular,
    StraightThrough,
    Surrogate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Attack = Callable[[Model, Tensor, Tensor, Sequence[torch.Generator]], Tensor]
"""(model, images, labels, a generator for each image) -> adversarial images"""

Judge = Callable[[Tensor, Tensor], Tensor]
"""(indices of images, what an attack made of them) -> which of those are classified right"""

BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One gradient of an ensemble: that of a surrogate, that of the network in another mode, or the model's own."""

    surrogate: Surrogate | None = None
    mode: Mode | None = None

    @property
    def name(self) -> str:
        """The surrogate's name, `conversion` or `true gradient`."""
        if self.mode is not None:
            return "conversion"
        return "true gradient" if self.surrogate is None else str(self.surrogate)

    @contextmanager
    def installed(self, model: Model) -> Iterator[None]:
        """Inside, `model` is differentiated by this member; afterwards as before."""
        module = model if isinstance(model, nn.Module) else nn.Identity()
        with spiking.configured(module, mode=self.mode, surrogate=self.surrogate):
            yield


CONVERSION = Member(mode="ann")
"""The network's weights and statistics as a ReLU network, whose adversarial images are tried on the spiking one."""

MEMBERS = (
    Member(surrogate=Exponential(0.3, 2)),
    Member(surrogate=Exponential(1, 2)),
    Member(surrogate=PiecewiseLinear(1)),
    Member(surrogate=PiecewiseLinear(0.5)),
    Member(surrogate=Bptr()),
    Member(surrogate=Rectangular(1)),
    Member(surrogate=Exponential(0.3, 1)),
    Member(surrogate=PiecewiseLinear(2)),
    Member(surrogate=Exponential(1, 1)),
    CONVERSION,
    Member(surrogate=Rectangular(0.5)),
    Member(surrogate=Rectangular(2)),
    Member(surrogate=PiecewiseLinear(3)),
    Member(surrogate=Exponential(0.3, 0.5)),
    Member(surrogate=Exponential(1, 0.5)),
    Member(surrogate=Rectangular(4)),
    Member(surrogate=PiecewiseLinear(0.25)),
    Member(surrogate=Rectangular(0.25)),
    Member(surrogate=StraightThrough()),
)
"""The 19 gradients a spiking network is attacked with, in the order of their strength in table A1 of the paper."""

STRONGEST = MEMBERS[:6]
"""What suffices to watch a training run."""

TRUE_GRADIENT = (Member(),)
"""What a network without spikes is attacked with."""

RATE_GRADIENT = (Member(surrogate=RateGradient()),)
"""The member of the RGA attack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """What an ensemble did to a batch.

    Shapes: clean (B,) bool, classified right clean; right (B,) bool, likewise and under every member; members[name] (B,)
    bool, likewise under this member, False also where an earlier member had broken the image and this one was spared the
    work. Of a network behind a sensor also: delivered uint8 (B, C, H, W), the adversarial images it got; unrounded (B,)
    bool, right had they not been rounded.
    """

    clean: Tensor
    right: Tensor
    members: dict[str, Tensor]
    delivered: Tensor | None = None
    unrounded: Tensor | None = None


Streams = Callable[[Member, Tensor], Sequence[torch.Generator]]
"""(member, indices of images) -> a fresh generator for each of them"""


def strongest(
    model: Model,
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    *,
    members: Sequence[Member],
    streams: Streams,
    survivors_only: bool = True,
    batch: int = BATCH,
    clean: Tensor | None = None,
    judge: Judge | None = None,
) -> Broken:
    """An image counts as right if it is so clean and under every member; members attack survivors, or all images.

    Where another network decides than the one attacked: clean (B,) bool, what it is right about, and `judge`.

    Images are gathered into full batches again after each member. The model is left as it was: mode, surrogates, buffers,
    gradients. With a generator of its own for each image and member, an image's fate depends on nothing else.
    """
    with evaluating(model), torch.no_grad():
        clean = judged(model, images, labels, batch=batch) if clean is None else clean
        right, outcomes = clean.clone(), {}
        for member in members:
            outcome = torch.zeros_like(right)
            for chosen in _batches(right if survivors_only else clean, batch):
                with member.installed(model):
                    adversarial = attack(model, images[chosen], labels[chosen], streams(member, chosen))
                outcome[chosen] = _right(model, labels, chosen, adversarial, judge)
            outcomes[member.name] = outcome
            right = right & outcome
    return Broken(clean=clean, right=right, members=outcomes)


def strongest_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    members: Sequence[Member],
    survivors_only: bool = True,
    batch: int = BATCH,
    judge: Judge | None = None,
) -> Broken:
    """What `strongest` says of FGSM, from forward passes that members share.

    Spikes do not depend on the surrogate: one forward pass over clean images judges them and gives every member its
    gradient, until so many of them are broken that a new pass over the survivors is cheaper than going on.
    """
    right = torch.ones_like(labels, dtype=torch.bool)
    clean, outcomes = right.clone(), {member.name: torch.zeros_like(right) for member in members}
    following = torch.zeros_like(labels)  # the member each image meets next
    attacked = right if survivors_only else clean
    blocks = _batches(right, batch)
    with evaluating(model):
        while blocks:
            for chosen in blocks:
                shared = _Shared(model, images[chosen], labels[chosen])
                clean[chosen] &= shared.logits.argmax(dim=1) == labels[chosen]
                right[chosen] &= clean[chosen]
                for number in range(int(following[chosen].min()), len(members)):
                    n_standing = int(attacked[chosen].sum())
                    if 2 * n_standing < (len(chosen) - n_standing) * (len(members) - number):
                        break
                    standing = attacked[chosen] & (following[chosen] <= number)
                    who, member = chosen[standing], members[number]
                    sign = shared.gradient(member, standing).sign()
                    adversarial = project(images[who] + eps * sign, images[who], eps)
                    with torch.no_grad():
                        outcomes[member.name][who] = _right(model, labels, who, adversarial, judge)
                    right[who] &= outcomes[member.name][who]
                    following[who] = number + 1
            blocks = _batches(attacked & (following < len(members)), batch, order=following)
    return Broken(clean=clean, right=right, members=outcomes)


def judged(model: Model, images: Tensor, labels: Tensor, *, batch: int = BATCH) -> Tensor:
    """Which images are classified right. Shapes: -> (B,) bool."""
    right = torch.ones_like(labels, dtype=torch.bool)
    with evaluating(model), torch.no_grad():
        for chosen in _batches(right.clone(), batch):
            right[chosen] = model(images[chosen]).argmax(dim=1) == labels[chosen]
    return right


def _right(model: Model, labels: Tensor, chosen: Tensor, adversarial: Tensor, judge: Judge | None) -> Tensor:
    if judge is not None:
        return judge(chosen, adversarial)
    return model(adversarial).argmax(dim=1) == labels[chosen]


def without_gradient(model: Model, images: Tensor, labels: Tensor, *, members: Sequence[Member]) -> Tensor:
    """At which images every member's gradient of the cross entropy is zero. Shapes: -> (B,) bool."""
    nothing = torch.ones_like(labels, dtype=torch.bool)
    with evaluating(model):
        for chosen in _batches(nothing.clone(), BATCH):
            shared = _Shared(model, images[chosen], labels[chosen])
            everything = torch.ones_like(chosen, dtype=torch.bool)
            for member in members:
                nothing[chosen] &= shared.gradient(member, everything).flatten(1).eq(0).all(dim=1)
    return nothing


class _Shared:
    """A forward pass with gradients of the cross entropy, made without asking for which members."""

    def __init__(self, model: Model, images: Tensor, labels: Tensor) -> None:
        self._model, self._images, self._labels = model, images.detach().requires_grad_(), labels
        with torch.enable_grad():  # type: ignore[no-untyped-call]
            self.logits = model(self._images)
            self._loss = F.cross_entropy(self.logits, labels, reduction="sum")

    def gradient(self, member: Member, standing: Tensor) -> Tensor:
        """A member's gradient at those of the images that stand."""
        with member.installed(self._model):
            if member.mode is None:
                return torch.autograd.grad(self._loss, self._images, retain_graph=True)[0][standing]
            return _Shared(self._model, self._images[standing], self._labels[standing])._own()  # noqa: SLF001

    def _own(self) -> Tensor:
        return torch.autograd.grad(self._loss, self._images)[0]


def _batches(flags: Tensor, size: int, *, order: Tensor | None = None) -> list[Tensor]:
    """The indices of true flags in batches, those of equal `order` beside each other."""
    chosen = flags.nonzero().squeeze(1)
    if order is not None:
        chosen = chosen[order[chosen].argsort(stable=True)]
    return [chosen[first : first + size] for first in range(0, len(chosen), size)]
