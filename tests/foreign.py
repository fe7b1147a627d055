"""Neurons as other libraries define them, written from their equations: what `adopt` knows them by, without the libraries."""

from __future__ import annotations

import torch
from torch import nn


class IFNode(nn.Module):
    """SpikingJelly's: v += x; spike iff v >= v_threshold; then v = v_reset, or v -= v_threshold where that is None."""

    def __init__(self, v_threshold=1.0, v_reset=0.0, step_mode="s") -> None:
        super().__init__()
        self.v_threshold, self.v_reset, self.step_mode = v_threshold, v_reset, step_mode
        self.v = 0.0

    def reset(self):
        self.v = 0.0

    def step(self, x):
        v = self.v + x
        spike = (v >= self.v_threshold).to(x)
        soft = v - spike * self.v_threshold
        self.v = soft if self.v_reset is None else (1 - spike) * v + spike * self.v_reset
        return spike

    def forward(self, x):
        return torch.stack([self.step(one) for one in x]) if self.step_mode == "m" else self.step(x)


class LIFNode(IFNode):
    """SpikingJelly's leaky one."""


class Leaky(nn.Module):
    """snnTorch's: v = beta v + x; spike iff v > threshold; the reset comes at the start of the next step.

    early: the reset of its versions before 0.7, which forgets the input of the step after a spike too.
    """

    def __init__(
        self, beta, threshold=1.0, reset_mechanism="subtract", init_hidden=True, inhibition=False, early=False
    ) -> None:
        super().__init__()
        self.register_buffer("beta", torch.as_tensor(beta))
        self.register_buffer("threshold", torch.as_tensor(threshold))
        self.reset_mechanism, self.init_hidden = reset_mechanism, init_hidden
        self.inhibition, self.state_quant, self.graded_spikes_factor = inhibition, False, 1.0
        self.early = early
        self.mem = torch.zeros(1)

    def forward(self, x, mem=None):
        mem = torch.zeros_like(x) + (self.mem if mem is None else mem)
        spiked = (mem > self.threshold).to(x)
        if self.reset_mechanism == "zero":
            mem = (self.beta * mem + x) * (1 - spiked) if self.early else self.beta * mem * (1 - spiked) + x
        else:
            mem = self.beta * mem + x - spiked * self.threshold
        self.mem = mem
        spike = (mem > self.threshold).to(x)
        return spike if self.init_hidden else (spike, mem)


def reset(module):
    """Every neuron of a module is as at the start of an image."""
    for layer in module.modules():
        if isinstance(layer, IFNode):
            layer.reset()
        elif isinstance(layer, Leaky):
            layer.mem = torch.zeros(1)
