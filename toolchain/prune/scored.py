"""Masks learned as scores: a uniform share of each layer (HYDRA), or a share that each layer learns (HARP)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from toolchain import nets
from toolchain.prune.choose import greatest, n_kept

if TYPE_CHECKING:
    from toolchain.attacks import Randomness
    from toolchain.nets import Net
    from toolchain.prune.choose import Mask
    from toolchain.train import Loss

QUOTA_START = 0.1
"""Share of each layer that HARP keeps at the start; the asked share where that is more."""
QUOTA_MIN = 0.1
"""Least share of a layer that HARP keeps, of the share asked for."""


class _Top(torch.autograd.Function):
    """Forward: the mask of the greatest |scores|, as numbers.

    Backward: dL/dscore = dL/dmask * sign(score); dL/dquota = sum of dL/dmask.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, kept: Tensor, _quota: Tensor | None) -> Tensor:
        ctx.save_for_backward(scores)
        return kept.to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor | None]:
        (scores,) = ctx.saved_tensors
        quota = gradients[0].sum() if ctx.needs_input_grad[2] else None
        return gradients[0] * scores.sign(), None, quota


class Scored(nn.Module):
    """`net` with its weights frozen and masked by trainable scores (HYDRA); batch norm trains along.

    Equation: S = sqrt(6 / fan_in) * W / max|W| at the start; weight in use = W * [|S| among the greatest of its layer].
    Source: Sehwag 2020 (arXiv 2002.10509).
    """

    def __init__(self, net: Net, sparsity: float) -> None:
        super().__init__()
        self.net = net
        self.sparsity = sparsity
        self._weights = nets.prunable(net)
        norms = {id(p) for m in net.body.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
        self._frozen = [parameter for parameter in net.body.parameters() if id(parameter) not in norms]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        self.scores = nn.ParameterDict({_key(n): nn.Parameter(_initial_scores(w)) for n, w in self._weights.items()})
        self._sorted: dict[str, tuple[tuple[int, int], Tensor]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Logits under the present mask."""
        weights = {}
        for name, weight in self._weights.items():
            kept = _Top.apply(self.scores[_key(name)], self._mask(name), self._quota(name))  # type: ignore[no-untyped-call]
            weights[f"body.{name}"] = weight * kept
        logits: Tensor = torch.func.functional_call(self.net, weights, (images,))  # type: ignore[attr-defined]
        return logits

    def mask(self) -> Mask:
        """The present mask."""
        return {name: self._mask(name) for name in self._weights}

    def release(self) -> None:
        """The network's weights can be trained again."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
            parameter.grad = None

    def _mask(self, name: str) -> Tensor:
        """A layer's mask: sorted anew only when an optimizer has moved what it depends on."""
        scores = self.scores[_key(name)]
        quota = self._quota(name)
        sparsity = self.sparsity if quota is None else 1 - quota.item()
        state = (scores._version, n_kept(scores.numel(), sparsity))  # noqa: SLF001 - torch's own count of changes
        if name not in self._sorted or self._sorted[name][0] != state:
            self._sorted[name] = state, greatest(scores.detach().abs(), state[1])
        return self._sorted[name][1]

    def _quota(self, _name: str) -> Tensor | None:
        """The share of a layer that is kept, where it is learned."""
        return None


class Quotas(Scored):
    """Scores, and of each layer the share r that is kept, both trained (HARP).

    Equation, for the kept share k asked for and n weights in layer l::

        r_l = r_min + (1 - r_min) * sigmoid(a_l)      r_min = 0.1 * k      r_l = max(0.1, k) at the start
        penalty = gamma * max(0, sum(r_l * n_l) / (k * sum(n_l)) - 1)      dL/dr_l = sum over the layer of dL/dM

    gamma is (epoch + 1) * pressure * k until the shares meet k at an epoch's start, and stays from then on.
    Source: Zhao and Wressnegger, ICLR 2023 (HARP), which gives gamma = 0.01 at k = 0.01.
    """

    gamma: Tensor
    met: Tensor

    def __init__(self, net: Net, sparsity: float, *, pressure: float) -> None:
        super().__init__(net, sparsity)
        self.kept = 1 - sparsity
        self.least = QUOTA_MIN * self.kept
        self.pressure = pressure
        share = (max(QUOTA_START, self.kept) - self.least) / (1 - self.least)
        start = math.log(share / (1 - share)) if share < 1 else math.inf
        if not math.isfinite(start):  # nothing is to be pruned: a quota of nearly all
            start = 10.0
        where = next(iter(self._weights.values())).device
        self.quotas = nn.ParameterDict(
            {_key(name): nn.Parameter(torch.tensor(start, device=where)) for name in self._weights}
        )
        self.register_buffer("gamma", torch.tensor(0.0, device=where))
        self.register_buffer("met", torch.tensor(data=False, device=where))

    def begin(self, epoch: int) -> None:
        """The penalty is that of an epoch, numbered from 0; it stops growing once the shares meet the target."""
        with torch.no_grad():
            if epoch > 0:
                self.met |= self.excess() <= 0
            if not self.met:
                self.gamma.fill_((epoch + 1) * self.pressure * self.kept)

    def excess(self) -> Tensor:
        """How far the kept share is above the one asked for, relative to it; negative where it is below."""
        sizes = {name: weight.numel() for name, weight in self._weights.items()}
        kept = torch.stack([self._quota(name) * n for name, n in sizes.items()]).sum()
        return kept / (self.kept * sum(sizes.values())) - 1

    def penalized(self, loss: Loss) -> Loss:
        """The loss with the penalty on what is kept too many."""

        def with_penalty(model: nn.Module, images: Tensor, labels: Tensor, generator: Randomness) -> Tensor:
            return loss(model, images, labels, generator) + self.gamma * self.excess().clamp(min=0)

        return with_penalty

    def settle(self) -> None:
        """As much is kept as was asked for: what each layer keeps above its least is scaled, all by one factor."""
        sizes = {name: weight.numel() for name, weight in self._weights.items()}
        above = {name: self._share(name) - self.least for name in sizes}
        wanted = self.kept * sum(sizes.values())
        low, high = 0.0, 1 / min(above.values())
        for _ in range(100):
            factor = (low + high) / 2
            shares = {name: min(1.0, self.least + factor * share) for name, share in above.items()}
            if sum(share * sizes[name] for name, share in shares.items()) > wanted:
                high = factor
            else:
                low = factor
        with torch.no_grad():
            for name, share in above.items():
                part = min(1.0, self.least + low * share) - self.least
                self.quotas[_key(name)].copy_(torch.tensor(part / (1 - self.least)).logit(eps=1e-6))

    def _share(self, name: str) -> float:
        return self.least + (1 - self.least) * float(self.quotas[_key(name)].detach().double().sigmoid())

    def _quota(self, name: str) -> Tensor:
        quota: Tensor = self.least + (1 - self.least) * self.quotas[_key(name)].sigmoid()
        return quota


def _key(name: str) -> str:
    """A weight's name as ParameterDict takes it."""
    return name.replace(".", "_")


def _initial_scores(weight: Tensor) -> Tensor:
    weight = weight.detach()
    fan_in = weight[0].numel()
    return math.sqrt(6 / fan_in) * weight / weight.abs().max()
