"""The float SNN with the forward pass of the integers that it becomes, so that it can be trained to be good as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolchain.deployed.chain import straight_through
from toolchain.deployed.neurons import Neurons
from toolchain.emulate.synapses import plain_sums
from toolchain.errors import UnsupportedError
from toolchain.ir import Readout
from toolchain.spiking import IF, V_TH_MIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolchain.ir import Network
    from toolchain.nets import Net
    from toolchain.quantize.scale import Widths


class Rounded(nn.Module):
    """A float SNN, by its own parameters, that computes as integers do.

    Equation: with w, b and v_th as `quantize.fold` has them and a layer's scale s, the forward pass takes clip(round(w / s)),
    clip(round(b / s)) and ceil(v_th / s), adds whole numbers, and compares; backward each of these passes the gradient straight
    through, and a spike's is the surrogate of the float network, stretched by s. Batch norm stays at its running statistics:
    a chip has no others. What 24 bits would do to sums is left out.

    It begins as the integers given, whatever they were chosen by: `net` is changed so that these are what it rounds to. scales: what one
    weight unit of each layer stands for, () or (C,), by its name; the attribute, from then on. widths: what its integers may be.
    Shapes: images float (B, C, H, W) in [0, 1] -> logits (B, classes), in the float network's units.
    Source: straight-through estimation, Bengio 2013 (arXiv 1308.3432).
    Raises: UnsupportedError for a network that is no chain, or whose neurons leak.
    """

    offset: Tensor
    rest: Tensor

    def __init__(
        self, net: Net, network: Network, scales: Mapping[str, Sequence[float]], widths: Mapping[str, Widths]
    ) -> None:
        super().__init__()
        self.net = net
        offset = (255 * net.mean.double()).round().clamp(0, 255)
        self.register_buffer("offset", offset.float()[:, None, None], persistent=False)
        self.register_buffer("rest", (offset - 255 * net.mean.double())[:, None, None], persistent=False)
        self._parts = _parts(net)
        self._widths = dict(widths)
        self._scales = {
            name: torch.tensor(each if len(each) > 1 else each[0], dtype=torch.float64) for name, each in scales.items()
        }
        with torch.no_grad():
            for part, layer in zip(self._parts, network.chain, strict=True):
                if not isinstance(layer, Readout):
                    self._meet_threshold(part, torch.from_numpy(layer.neuron.theta.astype(np.float64)))
                self._meet_weights(part, torch.from_numpy(layer.weight.astype(np.float64)))

    @property
    def scales(self) -> dict[str, tuple[float, ...]]:
        """What one weight unit of each layer stands for, by its name."""
        return {name: tuple(scale.reshape(-1).tolist()) for name, scale in self._scales.items()}

    def _meet_threshold(self, part: _Part, theta: Tensor) -> None:
        """The layer's threshold is `theta` units: what a unit stands for, and with it all that drives the neurons, is scaled."""
        assert part.neurons is not None
        scale = part.neurons.v_th.double().clamp(min=V_TH_MIN) / theta
        factor = (scale / self._scales[part.name]).float()
        for parameter in (part.norm or part.module).parameters():
            parameter.mul_(factor.reshape(-1, *[1] * (parameter.ndim - 1)) if factor.ndim else factor)
        self._scales[part.name] = scale

    def _meet_weights(self, part: _Part, whole: Tensor) -> None:
        """The layer's weights round to `whole`: those that do not are moved just far enough."""
        units, found = self._in_units(part)[0], self._whole(part)[0].double()
        moved = (found != whole) & (units != 0)
        wanted = whole - torch.sign(whole - units) * 0.49
        part.module.weight.mul_(torch.where(moved, wanted / units, 1.0).float())

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the pixels that a sensor delivers of images."""
        signal = straight_through(torch.round, 255 * images) - self.offset
        with plain_sums(gradients=True):
            for part in self._parts:
                weight, bias = self._whole(part)
                scale = self._scales[part.name].to(weight.device)
                if part.neurons is None:
                    steps = signal.reshape(self.net.timesteps, -1, *signal.shape[1:]).sum(dim=0)
                    sums = _synapses(part, weight, steps) + self.net.timesteps * bias
                    return sums.flatten(1) * (scale / self.net.timesteps).float()
                drive = _synapses(part, weight, signal) + bias
                signal = self._fired(part, part.neurons, drive, scale)
        raise AssertionError("a network ends with its readout")

    def _fired(self, part: _Part, neurons: IF, drive: Tensor, scale: Tensor) -> Tensor:
        unit = _over_map(scale)
        theta = straight_through(torch.ceil, neurons.v_th.double().clamp(min=V_TH_MIN) / unit * (1 - 1e-6)).clamp(min=1)
        whole = Neurons(
            theta=theta.float(),
            bar=theta.detach().float(),
            unit=unit.float(),
            floor=None,
            timesteps=self.net.timesteps,
        )
        whole.surrogate, whole.constant = neurons.surrogate, part.first
        fired: Tensor = whole(drive)
        return fired

    def _in_units(self, part: _Part) -> tuple[Tensor, Tensor]:
        """Weights and biases in weight units, nothing rounded. Shapes: as of the module; (C, 1, 1) or (C, H, W)."""
        weight, bias = part.folded()
        if part.first:
            weight, bias = self._of_messages(part, weight, bias)
        scale = self._scales[part.name].to(weight.device)
        each = scale.reshape(-1, *[1] * (weight.ndim - 1)) if scale.ndim else scale
        return weight / each, bias / _over_map(scale)

    def _whole(self, part: _Part) -> tuple[Tensor, Tensor]:
        """Weights and biases, whole numbers. Shapes: as `_in_units`."""
        weight, bias = self._in_units(part)
        widths = self._widths[part.name]
        one_bit = widths.weight_bits == 1
        whole = straight_through(torch.sign, weight) if one_bit else _clipped(weight, widths.weight_max)
        return whole.float(), _clipped(bias, widths.bias_max).float()

    def _of_messages(self, part: _Part, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers of the first layer as it hears pixels less their offset: see `quantize.fold`."""
        gain = 1 / (255 * self.net.std.double())
        rest = self.rest.expand(self.net.input_shape)
        if isinstance(part.module, nn.Conv2d):
            groups = part.module.groups
            per_output = gain.reshape(groups, -1).repeat_interleave(len(weight) // groups, dim=0)
            weight = weight * per_output[:, :, None, None]
        else:
            weight = weight * gain[:, None, None].expand(self.net.input_shape).reshape(1, -1)
        return weight, bias + _synapses(part, weight, rest[None])[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A layer of synapses with what is folded into it; neurons is None for the readout."""

    name: str
    module: nn.Conv2d | nn.Linear
    norm: nn.BatchNorm2d | None
    neurons: IF | None
    pool: int
    first: bool

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weights and biases with batch norm and pool folded in, in float64. Shapes: as of the module; (C, 1, 1)."""
        weight = self.module.weight.double() / self.pool**2
        bias = weight.new_zeros(len(weight)) if self.module.bias is None else self.module.bias.double()
        if self.norm is not None:
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            gain = (self.norm.running_var.double() + self.norm.eps).rsqrt() * self.norm.weight.double()
            weight = weight * gain[:, None, None, None]
            bias = (bias - self.norm.running_mean.double()) * gain + self.norm.bias.double()
        return weight, bias[:, None, None]


def _parts(net: Net) -> list[_Part]:
    """The layers of a chain, in order, each as `quantize.fold` takes it. Raises UnsupportedError."""
    parts: list[_Part] = []
    pool = 1
    for name, module in net.body.named_children():
        match module:
            case nn.Conv2d() | nn.Linear():
                parts.append(_Part(name=name, module=module, norm=None, neurons=None, pool=pool, first=not parts))
                pool = 1
            case nn.BatchNorm2d():
                parts[-1] = replace(parts[-1], norm=module)
            case IF(leak=0):
                parts[-1] = replace(parts[-1], neurons=module)
            case nn.AvgPool2d(kernel_size=int(side)) | nn.AvgPool2d(kernel_size=(int(side), _)):
                pool *= side
            case nn.Flatten() | nn.Dropout():
                pass
            case _:
                reason = (
                    f"{type(module).__name__} cannot be trained as integers; only a chain without skip connections can"
                )
                raise UnsupportedError(where=name, reason=reason)
    return parts


def _synapses(part: _Part, weight: Tensor, signal: Tensor) -> Tensor:
    """What a layer's synapses make of pixels or spikes. Shapes: (n, C, H, W) -> (n, Cout, Hout, Wout)."""
    signal = signal.to(weight.dtype)
    if part.pool > 1:
        signal = F.avg_pool2d(signal, part.pool, divisor_override=1)
    if isinstance(part.module, nn.Linear):
        return F.linear(signal.flatten(1), weight)[:, :, None, None]
    conv = part.module
    return F.conv2d(signal, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)


def _clipped(values: Tensor, greatest: int) -> Tensor:
    """The nearest whole numbers from -greatest to greatest, straight through."""
    return straight_through(lambda x: x.round().clamp(-greatest, greatest), values)


def _over_map(scale: Tensor) -> Tensor:
    """A scale so that it broadcasts over (C, H, W)."""
    return scale[:, None, None] if scale.ndim else scale
