"""Neurons in weight units, whose backward pass is that of the float network: surrogates are stretched by the unit.

Equation: with unit s (what one weight unit stands for), u = s U and v_th = s theta, a float neuron's surrogate of u - v_th is
s * surrogate(s (U - theta)) for a change of U; all else of `spiking` is the same in either unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from toolchain.spiking import IF, Bptr, RateGradient, derivative

if TYPE_CHECKING:
    from toolchain.spiking import Surrogate


class Neurons(IF):
    """Integrate-and-fire neurons with a threshold and a unit a layer or a channel.

    A neuron spikes where its membrane reaches `bar`, which no membrane lies between and `theta`, the surrogates' centre; no
    membrane falls below `floor`, None for none, whose gradient passes as if there were none. In mode `ann` a drive of so
    many units is the ReLU of the number it stands for.
    Shapes: theta, bar, unit () or (C, 1, 1); drives (B, C, H, W), or (T * B, C, H, W) step-major.
    """

    theta: Tensor
    bar: Tensor
    unit: Tensor

    def __init__(self, *, theta: Tensor, bar: Tensor, unit: Tensor, floor: float | None, timesteps: int) -> None:
        super().__init__(timesteps=timesteps)
        self.v_th.requires_grad_(False)  # it has no part in this: `theta` has
        for name, tensor in {"theta": theta, "bar": bar, "unit": unit}.items():
            self.register_buffer(name, tensor)
        self.floor = floor
        self.mode = "snn"

    def forward(self, x: Tensor) -> Tensor:
        """Activations of drives."""
        if self.mode == "ann":
            return torch.relu(x * self.unit)
        spikes: Tensor = _Fire.apply(self.steps(x), self.theta, self)  # type: ignore[no-untyped-call]
        return spikes.flatten(0, 1)

    def steps(self, x: Tensor) -> Tensor:
        """Drives step by step. Shapes: (T * B, ...), or (B, ...) where it is constant -> (T, B, ...)."""
        x = x.to(self.theta.dtype)
        return x.expand(self.timesteps, *x.shape) if self.constant else x.reshape(self.timesteps, -1, *x.shape[1:])

    def membranes(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Membranes as they are compared with the threshold, and the spikes. Shapes: (T, B, C, H, W) -> two of the same."""
        v = torch.zeros_like(steps[0])
        u, spikes = (torch.empty(steps.shape, dtype=steps.dtype, device=steps.device) for _ in range(2))
        sinks = self.floor is not None and steps.numel() > 0 and len(steps) * float(steps.min()) <= self.floor
        for t in range(len(steps)):
            torch.add(v, steps[t], out=u[t])
            if sinks:
                u[t].clamp_(min=self.floor)
            torch.ge(u[t], self.bar, out=spikes[t])
            torch.addcmul(u[t], u[t], spikes[t], value=-1, out=v)  # exact: u - u * o is u or 0
        return u, spikes


class _Fire(torch.autograd.Function):
    """The recursion of `spiking`, by the surrogate the layer has when the backward pass runs. Shapes: (T, B, ...) -> the same.

    Equation: dL/dtheta = -sum q, over the channel or the layer that has it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, _theta: Tensor, layer: Neurons) -> Tensor:
        u, spikes = layer.membranes(x)
        ctx.save_for_backward(u)
        ctx.layer = layer
        return spikes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (g_o,), (u,), layer = gradients, ctx.saved_tensors, ctx.layer
        kind: Surrogate = layer.surrogate
        if isinstance(kind, Bptr):
            return g_o * (u >= layer.bar).any(dim=0) * layer.unit, None, None
        if isinstance(kind, RateGradient):
            mean = (u[-1] + (u[:-1] * (u[:-1] >= layer.bar)).sum(dim=0)) / len(u)
            return g_o * ((mean >= 0) & (mean <= 2 * layer.theta)) / (2 * layer.theta), None, None
        g_x, g_theta = torch.empty_like(u), torch.zeros_like(layer.theta)
        g_v, d, other = (torch.zeros_like(u[0]) for _ in range(3))
        for t in range(len(u) - 1, -1, -1):
            q = derivative(kind, torch.sub(u[t], layer.theta, out=d).mul_(layer.unit)).mul_(layer.unit)
            q *= torch.addcmul(g_o[t], g_v, u[t], value=-1, out=other)
            if ctx.needs_input_grad[1]:
                g_theta -= q.sum_to_size(layer.theta.shape)
            torch.addcmul(q, g_v, torch.lt(u[t], layer.bar, out=other), out=g_x[t])
            g_v = g_x[t]
        return g_x, g_theta, None
