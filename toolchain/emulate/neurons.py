"""Neurons of a whole layer over all steps, in torch: in float32 where that is exact, else in integers.

An integrate-and-fire neuron whose |a| stays below 2^17 never wraps u, and float32 then holds each of its membranes exactly, in weight
units: v is whole, or else the lower end -(2^17 - 1/64) plus whole numbers, a multiple of 1/64 below 2^18 in magnitude. A sum beyond that is
rounded, but it either saturates or spikes all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from toolchain.emulate import compiled
from toolchain.emulate.fired import Fired, Kernels
from toolchain.emulate.reference import LIMIT

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.ir import Neuron

FLOAT_BOUND = LIMIT // 64
"""|a| below which u does not wrap, and float32 is exact for a neuron without leaks"""
FLOOR = -(FLOAT_BOUND - 1 / 64)
"""Lower end of v, in weight units"""
_FORGETS = 4096
"""The i_decay with which nothing of the last current is left"""
_WORTH_COMPILING = 1 << 18
"""Neuron-steps for which the compiled loop is fetched"""
_CACHED = 1 << 17
"""Neurons handled together: few enough for their states to stay in a processor's cache, enough to share out to its threads"""


def fire(
    neuron: Neuron, drive: Tensor, steps: int, bound: int, *, activity: bool = True, kernels: Kernels = "torch"
) -> Fired:
    """Return in frames what neurons do on a drive whose |a| is at most `bound`.

    Shapes: drive (T, samples, C, H, W), or (1, samples, ...) where every step is the same.
    """
    if not exact_in_floats(neuron, drive, bound):
        return _fire_integer(neuron, drive, steps, bound, activity=activity)
    compiles = kernels == "compiled" or (kernels == "measured" and steps * drive[0].numel() >= _WORTH_COMPILING)
    if compiles and drive.device.type == "cpu" and compiled.available():
        return compiled.fire(neuron, drive.float(), steps, activity=activity)
    return _fire_float(neuron, drive.float(), steps, activity=activity)


def exact_in_floats(neuron: Neuron, drive: Tensor, bound: int) -> bool:
    """Return whether float32 holds every membrane exactly; a bound that does not prove it is replaced by a look at the drive."""
    return not neuron.leaks and (bound < FLOAT_BOUND or _greatest(drive) < FLOAT_BOUND)


def _greatest(drive: Tensor) -> float:
    return float(drive.abs().amax()) if drive.numel() else 0.0


def _on(device: torch.device, values: npt.NDArray[np.int32], dtype: torch.dtype) -> Tensor:
    """Return theta or bias so that it broadcasts over (C, H, W)."""
    tensor = torch.from_numpy(values.astype(np.int64)).to(device, dtype)
    return tensor[:, None, None] if tensor.ndim == 1 else tensor


def _fire_float(neuron: Neuron, drive: Tensor, steps: int, *, activity: bool) -> Fired:
    theta, bias = (_on(drive.device, values, torch.float32) for values in (neuron.theta, neuron.bias))
    level = theta - 1
    held, samples, *shape = drive.shape
    spikes = drive.new_empty((steps, samples, *shape))
    counts = drive.new_zeros((samples, *shape))
    sums = drive.new_zeros((steps if activity else 0, *shape))
    tally = torch.zeros((3, steps), dtype=torch.int64, device=drive.device)
    together = max(1, _CACHED // int(np.prod(shape))) if drive.device.type == "cpu" else max(1, samples)
    for first in range(0, samples, together):
        part = slice(first, first + together)
        driven = drive[:, part] + bias
        saturates = steps * float(driven.min()) <= -FLOAT_BOUND
        v = torch.zeros_like(driven[0])
        for t in range(steps):
            now, out = driven[min(t, held - 1)], spikes[t, part]
            v.add_(now)
            if saturates:
                tally[2, t] += torch.count_nonzero(v <= -FLOAT_BOUND)
                v.clamp_(min=FLOOR)
            torch.gt(v, level, out=out)
            v.addcmul_(v, out, value=-1)  # exact: v - v * o is v or 0
            counts[part] += out
            if activity:
                tally[0, t] += torch.count_nonzero(now)
                sums[t] += out.sum(dim=0)
    return Fired(spikes, counts, sums, tally)


def _fire_integer(neuron: Neuron, drive: Tensor, steps: int, bound: int, *, activity: bool) -> Fired:
    # A leak multiplies 24 bit states by 12 bit factors, and 64 * a needs 6 bits more than a.
    dtype = torch.int64 if neuron.leaks or bound >= 1 << 24 else torch.int32
    theta, bias = (_on(drive.device, values, dtype) for values in (neuron.theta, neuron.bias))
    level, offset = 64 * theta - 64, 64 * bias
    u = v = torch.zeros_like(drive[0], dtype=dtype)
    spikes = torch.empty((steps, *drive.shape[1:]), dtype=torch.float32, device=drive.device)
    tally = torch.zeros((3, steps), dtype=torch.int64, device=drive.device)
    for t in range(steps):
        if t < len(drive):
            drive_now = drive[t].to(dtype) * 64
            active_now = torch.count_nonzero(drive_now + offset)
        u = drive_now if neuron.i_decay == _FORGETS else drive_now + _decay(u, neuron.i_decay)
        if neuron.i_decay != _FORGETS or 64 * bound >= LIMIT:
            u, current = _wrapped(u), u
            tally[1, t] = torch.count_nonzero(u != current)
        voltage = _decay(v, neuron.v_decay) + u + offset
        v = voltage.clamp(1 - LIMIT, LIMIT - 1)
        spiking = v > level
        spikes[t] = spiking
        tally[0, t] = active_now
        tally[2, t] = torch.count_nonzero(voltage <= -LIMIT)
        v.masked_fill_(spiking, 0)
    return Fired(spikes, spikes.sum(dim=0), spikes.sum(dim=1) if activity else spikes[:0, 0], tally)


def _wrapped(exact: Tensor) -> Tensor:
    current = exact.to(torch.int32).to(exact.dtype)  # Lava adds in 32 bit
    u = torch.where(current > LIMIT, current - 2 * LIMIT, current)
    return torch.where(u <= -LIMIT, current + 2 * LIMIT, u)


def _decay(state: Tensor, amount: int) -> Tensor:
    return torch.div(state * (4096 - amount), 4096, rounding_mode="trunc") if amount else state
