"""Integrate-and-fire neurons, fused over time, and the surrogate gradients they are trained and attacked with.

Equation, for input x_t, threshold V and v_0 = 0::

    u_t = (1 - leak) * v_{t-1} + x_t        o_t = 1[u_t >= V]        v_t = (1 - o_t) * u_t

Backward, with s_t the surrogate of d = u_t - V, g_o the upstream gradient and g_v what arrives from step t + 1::

    q_t = (g_o[t] - g_v[t] * u_t) * s_t      g_u = q_t + g_v[t] * (1 - o_t)
    dL/dx_t = g_u      g_v[t-1] = (1 - leak) * g_u        dL/dV = -sum q_t

Shapes: steps and images share the first axis, step-major: (T * B, ...). Membranes are float32 (float64 for float64 input).
Source: Ozdenizci and Legenstein, TMLR 2024 (arXiv 2311.09266).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from toolchain.recipe import parse_surrogate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

V_TH_MIN = 0.03
"""Least threshold: forward computes with nothing smaller."""

Mode = Literal["ann", "snn"]


@dataclass(frozen=True, slots=True)
class PiecewiseLinear:
    """max(0, width - |d|) / width^2."""

    width: float = 1.0

    def __str__(self) -> str:
        return f"piecewise-linear({self.width:g})"


@dataclass(frozen=True, slots=True)
class Exponential:
    """height * exp(-slope * |d|)."""

    height: float
    slope: float

    def __str__(self) -> str:
        return f"exponential({self.height:g}, {self.slope:g})"


@dataclass(frozen=True, slots=True)
class Rectangular:
    """1[|d| < width / 2] / width."""

    width: float = 1.0

    def __str__(self) -> str:
        return f"rectangular({self.width:g})"


@dataclass(frozen=True, slots=True)
class StraightThrough:
    """1, everywhere."""

    def __str__(self) -> str:
        return "straight-through"


@dataclass(frozen=True, slots=True)
class Bptr:
    """Backward through the rate: g_o[t] passes where the neuron spikes at all, and steps are not coupled."""

    def __str__(self) -> str:
        return "bptr"


@dataclass(frozen=True, slots=True)
class RateGradient:
    """Slope of a firing rate: g_o[t] / (2 V) passes where the mean input lies in [0, 2 V]; steps are not coupled.

    Source: Bu et al., CVPR 2023, for a neuron without leak, with the constants of the authors' code.
    """

    def __str__(self) -> str:
        return "rate-gradient"


Surrogate = PiecewiseLinear | Exponential | Rectangular | StraightThrough | Bptr | RateGradient


def surrogate(text: str) -> Surrogate:
    """The surrogate a text such as `exponential(0.3, 2)` names; `str` is its inverse. Raises ValueError."""
    kind, numbers = parse_surrogate(text)
    match kind:
        case "piecewise-linear":
            return PiecewiseLinear(*numbers)
        case "exponential":
            return Exponential(*numbers)
        case "rectangular":
            return Rectangular(*numbers)
        case "straight-through":
            return StraightThrough()
        case "rate-gradient":
            return RateGradient()
        case _:
            return Bptr()


def derivative(kind: Surrogate, d: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The stand-in for the derivative of 1[d >= 0], a new tensor or in `out`. Shapes: any -> the same."""
    match kind:
        case PiecewiseLinear(width):
            return torch.abs(d, out=out).mul_(-1 / (width * width)).add_(1 / width).clamp_(min=0)
        case Exponential(height, slope):
            return torch.abs(d, out=out).mul_(-slope).exp_().mul_(height)
        case Rectangular(width):
            near = torch.abs(d, out=out)
            return torch.lt(near, width / 2, out=near).div_(width)
        case _:
            return torch.ones_like(d) if out is None else out.fill_(1)


class _Fire(torch.autograd.Function):
    """Forward and backward of the module's docstring. Shapes: x (T, B, ...), or (1, B, ...) the same at each step, v_th () -> spikes (T, B, ...).

    The surrogate is the one the layer has when the backward pass runs: one forward pass serves several of them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, v_th: Tensor, layer: IF) -> Tensor:
        v = torch.zeros_like(x[0])
        # Steps one after the other, each in its own memory format, even where x is one step shown at all.
        shape, strides = (layer.timesteps, *v.shape), (v.numel(), *v.stride())
        u, spikes = (x.new_empty_strided(shape, strides) for _ in range(2))
        for t, now in enumerate(_steps(x, layer)):
            torch.add(v, now, out=u[t])
            torch.ge(u[t], v_th, out=spikes[t])
            torch.addcmul(u[t], u[t], spikes[t], value=-1, out=v)  # exact: u - u * o is u or 0
            if layer.leak:
                v *= 1 - layer.leak
        ctx.save_for_backward(u, v_th)
        ctx.layer, ctx.constant = layer, len(x) < layer.timesteps
        return spikes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (g_o,) = gradients
        u, v_th = ctx.saved_tensors
        kind = ctx.layer.surrogate
        if isinstance(kind, Bptr | RateGradient):
            passed = (g_o.sum(dim=0, keepdim=True) if ctx.constant else g_o) * _uncoupled(kind, u, v_th)
            return passed, None, None
        g_x, g_v_th = torch.zeros_like(u[:1]) if ctx.constant else torch.empty_like(u), torch.zeros_like(v_th)
        carried, d, other = (torch.empty_like(u[0]) for _ in range(3))
        g_v = carried
        last = u.shape[0] - 1
        for t in range(last, -1, -1):  # everything of one step, which a cache can hold, before the next
            torch.sub(u[t], v_th, out=d)
            q = derivative(kind, d, out=d)
            q *= g_o[t] if t == last else torch.addcmul(g_o[t], g_v, u[t], value=-1, out=other)
            if ctx.needs_input_grad[1]:
                g_v_th -= q.sum()
            g_u = g_v if ctx.constant else g_x[t]
            if t == last:  # no step follows, from which anything came
                g_u.copy_(q)
            else:
                torch.addcmul(q, g_v, torch.lt(u[t], v_th, out=other), out=g_u)
            if ctx.constant:
                g_x += g_u
            g_v = torch.mul(g_u, 1 - ctx.layer.leak, out=carried) if ctx.layer.leak else g_u
        return g_x, g_v_th, None


def _uncoupled(kind: Bptr | RateGradient, u: Tensor, v_th: Tensor) -> Tensor:
    """What a gradient is multiplied by at every step, where steps are not coupled."""
    if isinstance(kind, Bptr):
        return u.amax(dim=0) >= v_th
    # What came in was reset away, or is in the last membrane.
    mean = (u[-1] + (u[:-1] * (u[:-1] >= v_th)).sum(dim=0)) / len(u)
    return ((mean >= 0) & (mean <= 2 * v_th)) / (2 * v_th)


def _spikes(x: Tensor, v_th: Tensor, layer: IF) -> Tensor:
    """The spikes of `_Fire`, where no gradient will be asked for and no membrane need be kept."""
    u = torch.zeros_like(x[0])
    spikes = x.new_empty_strided((layer.timesteps, *u.shape), (u.numel(), *u.stride()))
    for t, now in enumerate(_steps(x, layer)):
        torch.ge(u.add_(now), v_th, out=spikes[t])
        u.addcmul_(u, spikes[t], value=-1)
        if layer.leak:
            u *= 1 - layer.leak
    return spikes


def _steps(x: Tensor, layer: IF) -> Sequence[Tensor]:
    """The input at each step. Shapes: (T, B, ...) or (1, B, ...) -> T of (B, ...)."""
    return x.unbind() * (layer.timesteps // len(x))


class IF(nn.Module):
    """A layer of neurons: ReLU in mode `ann`, integrate-and-fire with one trainable threshold in mode `snn`.

    leak: the share of a membrane that is gone by the next step; no training here gives neurons one, but networks bring theirs.

    Shapes: (B, ...) in mode `ann`; (T * B, ...), step-major, in mode `snn`, where a layer whose input is `constant`, the
    same at every step, takes it once: (B, ...) -> (T * B, ...).
    """

    def __init__(self, *, v_th: float = 1.0, timesteps: int = 8, leak: float = 0.0) -> None:
        super().__init__()
        self.v_th = nn.Parameter(torch.tensor(v_th))
        self.mode: Mode = "ann"
        self.timesteps = timesteps
        self.leak = leak
        self.surrogate: Surrogate = PiecewiseLinear()
        self.constant = False

    def forward(self, x: Tensor) -> Tensor:
        """Activations of the layer's inputs."""
        if self.mode == "ann":
            return torch.relu(x)
        x = x if x.dtype == torch.float64 else x.float()
        steps = x[None] if self.constant else x.reshape(self.timesteps, -1, *x.shape[1:])
        v_th = self.v_th.to(x.dtype).clamp(min=V_TH_MIN)
        fire = _Fire.apply if torch.is_grad_enabled() else _spikes
        spikes: Tensor = fire(steps, v_th, self)
        return spikes.flatten(0, 1)

    def extra_repr(self) -> str:
        """What print(net) shows of this layer."""
        return f"{self.mode}, v_th={self.v_th.item():.4g}, T={self.timesteps}"


def neurons(module: nn.Module) -> list[IF]:
    """Every IF layer of a module, in order."""
    return [layer for layer in module.modules() if isinstance(layer, IF)]


def configure(
    module: nn.Module, *, mode: Mode | None = None, timesteps: int | None = None, surrogate: Surrogate | None = None
) -> None:
    """Every IF layer of `module` has the given settings; None leaves one as it is."""
    for layer in neurons(module):
        layer.mode = layer.mode if mode is None else mode
        layer.timesteps = layer.timesteps if timesteps is None else timesteps
        layer.surrogate = layer.surrogate if surrogate is None else surrogate


@contextmanager
def configured(
    module: nn.Module, *, mode: Mode | None = None, timesteps: int | None = None, surrogate: Surrogate | None = None
) -> Iterator[None]:
    """Inside, the IF layers of `module` have the given settings; afterwards their own again, whatever happened."""
    before = [(layer, layer.mode, layer.timesteps, layer.surrogate) for layer in neurons(module)]
    configure(module, mode=mode, timesteps=timesteps, surrogate=surrogate)
    try:
        yield
    finally:
        for layer, own_mode, own_timesteps, own_surrogate in before:
            layer.mode, layer.timesteps, layer.surrogate = own_mode, own_timesteps, own_surrogate


def clamp_thresholds(module: nn.Module) -> None:
    """Every threshold is at least V_TH_MIN."""
    with torch.no_grad():
        for layer in neurons(module):
            layer.v_th.clamp_(min=V_TH_MIN)
