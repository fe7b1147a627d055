"""The integer network: what the cores compute, and nothing else.

A `Network` is a chain: input messages, hidden layers of spiking neurons, and a readout that sums. All arrays are int32,
read-only and in PyTorch's axis order. Every constructor checks shapes, types and ranges, so that a network that exists is
a network Lava's fixed-point processes can run.

One step of a layer, for the spikes (or, in the first layer, messages) ``s`` of the same step's layer before::

    a = W * sum_pool(s, pool)                            int24 (convolutions wrap; see `emulate.reference`)
    u = trunc(u * (4096 - i_decay) / 4096) + 64 * a      int32, then wraps once beyond 2^23
    v = clip(trunc(v * (4096 - v_decay) / 4096) + u + 64 * bias, +-(2^23 - 1))
    o = v > 64 * (theta - 1);   v = 0 where o            for an integrate-and-fire neuron: o = [v / 64 >= theta]

Where: theta and bias are in weight units, u and v are 64 times finer. u and v start each image at 0.
Where the chip takes no messages, the first layer has no synapses there: see `BiasCoding`.
Source: lava-nc 0.10.0, `lava.proc.lif.models.PyLifResetModelBitAcc` and `lava.proc.conv`, `lava.proc.dense`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import ConfigError
from toolchain.ir.values import ints, pooled, positive
from toolchain.ir.written import dense_weight, without_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Ints = npt.NDArray[np.int32]

Shape = tuple[int, int, int]
"""(channels, height, width)"""

THETA_MAX = 131_072
"""Largest theta: netx's vThMant = theta - 1 is an unsigned 17 bit number."""
BIAS_MAX = 32_767
"""Largest |bias| Lava's int16 mantissa holds; a profile may allow less."""
WEIGHT_BITS_MAX = 8
_DIVISOR_MAX = 1 << 24
TIMESTEPS_MAX = 65_536
"""More steps than any image needs; a file that asks for more is refused before memory is."""
NEURONS_MAX = 1 << 25
"""More neurons than any layer has, likewise."""
COUNTED_MAX = 4096
"""More classes than any last layer has whose spikes are counted, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasCoding:
    """The host computes what drives the first layer and sets it as its neurons' bias, anew for each image.

    Equation: bias = clip(floor((W m + b) / divisor + 1/2), -limit, limit), with W and b of the first layer, m the messages.
    A bias of at least theta spikes at every step and one below 1 at none, so clipping changes no spike while theta <= limit.
    Shapes: divisor () or (C,), of the first layer's channels; 1 or more.
    """

    divisor: Ints
    limit: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "divisor", ints(self.divisor, "bias.divisor", (), 1, _DIVISOR_MAX))
        positive("bias", limit=self.limit)
        if self.limit > BIAS_MAX:
            raise ConfigError(where="bias", faults=(f"limit: expected 1 to {BIAS_MAX}, got {self.limit}",))

    def biases(self, sums: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the biases of W m + b. Shapes: (..., C, H, W) -> the same."""
        divisor = self.divisor.astype(np.int64).reshape(-1, 1, 1)
        return np.asarray(np.clip((2 * sums + divisor) // (2 * divisor), -self.limit, self.limit))


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Images become signed messages: message = pixel - offset of its channel, sent again at each step.

    With `bias`, no message is sent: the host turns them into biases of the first layer.
    Shapes: shape = (C, H, W); offset (C,), 0 to 255.
    """

    shape: Shape
    offset: Ints
    bits: int = 9
    bias: BiasCoding | None = None

    def __post_init__(self) -> None:
        positive("input", channels=self.shape[0], height=self.shape[1], width=self.shape[2], bits=self.bits)
        object.__setattr__(self, "offset", ints(self.offset, "input.offset", ((self.shape[0],),), 0, 255))

    def encode(self, images: npt.NDArray[np.uint8]) -> Ints:
        """Return the messages of uint8 images. Shapes: (samples, C, H, W) -> the same. Raises ConfigError."""
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            fault = f"expected uint8 (samples, {', '.join(map(str, self.shape))}), got {images.dtype} {images.shape}"
            raise ConfigError(where="images", faults=(fault,))
        return images.astype(np.int32) - self.offset[:, None, None]

    @property
    def message_range(self) -> tuple[Ints, Ints]:
        """Least and greatest message of each channel, (C,) each."""
        return -self.offset, 255 - self.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Neuron:
    """A CUBA neuron with hard reset; integrate-and-fire is i_decay 4096 and v_decay 0.

    Shapes: theta () or (C,); bias (C,) or (C, H, W). Units: weight units.
    """

    theta: Ints
    bias: Ints
    i_decay: int = 4096
    v_decay: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", ints(self.theta, "neuron.theta", (), 1, THETA_MAX))
        object.__setattr__(self, "bias", ints(self.bias, "neuron.bias", (), -BIAS_MAX, BIAS_MAX))
        faults = []
        if not 1 <= self.i_decay <= 4096:
            faults.append(f"i_decay: expected 1 to 4096, got {self.i_decay}")
        if not 0 <= self.v_decay <= 4095:
            faults.append(f"v_decay: expected 0 to 4095, got {self.v_decay}")
        if faults:
            raise ConfigError(where="neuron", faults=tuple(faults))

    @property
    def leaks(self) -> bool:
        """Whether the neuron is anything but integrate-and-fire."""
        return (self.i_decay, self.v_decay) != (4096, 0)

    @property
    def bias_map(self) -> npt.NDArray[np.int64]:
        """The bias, ready to be added to a map. Shape: (C, H, W) or (C, 1, 1)."""
        return self.bias.astype(np.int64).reshape(len(self.bias), *(self.bias.shape[1:] or (1, 1)))

    def per_channel(self, channels: int) -> Ints:
        """Theta of each channel. Shape: (channels,)."""
        return np.broadcast_to(self.theta, (channels,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """A convolution over sum-pooled spikes, then neurons.

    relays: source channels whose spikes are sent on unchanged, by channels behind the weight's own: neurons of theta 1 without
    bias that hear a spike by one synapse of weight 1, from the centre of their window. They carry a skip connection along the chain. The
    weight hears the first Cin source channels; a source channel is heard, relayed or both.

    Shapes: weight (Cout, Cin/groups, kh, kw); neurons Cout + relays; stride, padding, dilation (y, x); relays first and one past
    last; pool q: input spikes are summed over q x q cells first (average pooling: its 1/q^2 sits in theta and bias).
    """

    name: str
    weight: Ints
    neuron: Neuron
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    pool: int = 1
    weight_bits: int = 8
    relays: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        _check_layer(self, dimensions=4)
        where = self.name
        positive(where, groups=self.groups, stride=min(self.stride), dilation=min(self.dilation))
        if min(self.padding) < 0:
            raise ConfigError(where=where, faults=(f"padding: expected 0 or more, got {self.padding}",))
        channels = self.weight.shape[0]
        if channels % self.groups:
            raise ConfigError(where=where, faults=(f"{channels} channels do not divide into {self.groups} groups",))
        _check_neuron(self)
        if self.relays != (0, 0):
            _check_relays(self)

    @property
    def n_relays(self) -> int:
        """Channels that relay one of the source's."""
        return self.relays[1] - self.relays[0]

    @property
    def n_channels(self) -> int:
        """Channels of neurons, relays included."""
        return self.weight.shape[0] + self.n_relays

    @property
    def n_sources(self) -> int:
        """Source channels."""
        return max(self.weight.shape[1] * self.groups, self.relays[1])

    @property
    def own(self) -> Conv:
        """The layer without its relays: what its weight does, on the source channels that it hears."""
        if not self.n_relays:
            return self
        n = self.weight.shape[0]
        neuron = replace(self.neuron, theta=self.neuron.theta[:n], bias=self.neuron.bias[:n])
        return replace(self, neuron=neuron, relays=(0, 0))

    @property
    def dense_weight(self) -> Ints:
        """The weight with its relays written out, nearly all zeros. Shape: (n_channels, n_sources, kh, kw), or as it is without relays."""
        return dense_weight(self)

    def output_shape(self, source: Shape) -> Shape:
        """Shape of this layer's neurons for a source layer of shape (C, H, W). Raises ConfigError."""
        channels, *extent = pooled(self.name, source, self.pool)
        if channels != self.n_sources:
            fault = f"expected {self.n_sources} source channels, got {channels}"
            raise ConfigError(where=self.name, faults=(fault,))
        height, width = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(
                extent, self.padding, self.dilation, self.weight.shape[2:], self.stride, strict=True
            )
        )
        if height < 1 or width < 1:
            raise ConfigError(where=self.name, faults=(f"the kernel is larger than its {source} input",))
        bias = self.neuron.bias
        if bias.ndim == 3 and bias.shape[1:] != (height, width):
            fault = f"bias: expected shape {(bias.shape[0], height, width)}, got {bias.shape}"
            raise ConfigError(where=self.name, faults=(fault,))
        return self.n_channels, height, width


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A fully connected layer over sum-pooled spikes flattened in C, H, W order, then neurons.

    Shapes: weight (out, in); its neurons have shape (out, 1, 1). pool as in `Conv`.
    """

    name: str
    weight: Ints
    neuron: Neuron
    pool: int = 1
    weight_bits: int = 8

    def __post_init__(self) -> None:
        _check_layer(self, dimensions=2)
        _check_neuron(self)

    def output_shape(self, source: Shape) -> Shape:
        """Shape of this layer's neurons, (out, 1, 1), for a source layer of shape (C, H, W). Raises ConfigError."""
        return _dense_shape(self, source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """The last dense layer: it never spikes; its logits are the sums over all T steps of weight * o + bias.

    Shapes: weight (classes, in); bias (classes,). pool as in `Conv`.
    """

    name: str
    weight: Ints
    bias: Ints
    pool: int = 1
    weight_bits: int = 8

    def __post_init__(self) -> None:
        _check_layer(self, dimensions=2)
        bias = ints(self.bias, f"{self.name}.bias", ((self.weight.shape[0],),), -BIAS_MAX, BIAS_MAX)
        object.__setattr__(self, "bias", bias)

    def output_shape(self, source: Shape) -> Shape:
        """Shape (classes, 1, 1) for a source layer of shape (C, H, W). Raises ConfigError."""
        return _dense_shape(self, source)


Layer = Conv | Dense
AnyLayer = Conv | Dense | Readout


def _check_layer(layer: AnyLayer, *, dimensions: int) -> None:
    if not isinstance(layer.name, str) or not layer.name or "/" in layer.name:
        raise ConfigError(where="layer", faults=(f"name: expected characters other than '/', got {layer.name!r}",))
    positive(layer.name, pool=layer.pool)
    if not 1 <= layer.weight_bits <= WEIGHT_BITS_MAX:
        fault = f"weight_bits: expected 1 to {WEIGHT_BITS_MAX}, got {layer.weight_bits}"
        raise ConfigError(where=layer.name, faults=(fault,))
    bound = 1 << (layer.weight_bits - 1)
    weight = ints(layer.weight, f"{layer.name}.weight", (), -bound, max(bound - 1, 1))
    if weight.ndim != dimensions or 0 in weight.shape:
        fault = f"weight: expected {dimensions} dimensions, none of them 0, got shape {weight.shape}"
        raise ConfigError(where=layer.name, faults=(fault,))
    object.__setattr__(layer, "weight", weight)


def _check_neuron(layer: Layer) -> None:
    channels = layer.n_channels if isinstance(layer, Conv) else layer.weight.shape[0]
    theta, bias = layer.neuron.theta, layer.neuron.bias
    faults = []
    if theta.shape not in {(), (channels,)}:
        faults.append(f"theta: expected shape () or ({channels},), got {theta.shape}")
    if bias.shape != (channels,) and not (isinstance(layer, Conv) and bias.ndim == 3 and bias.shape[0] == channels):
        faults.append(f"bias: expected shape ({channels},), or for a convolution also a map, got {bias.shape}")
    if faults:
        raise ConfigError(where=layer.name, faults=tuple(faults))


def _check_relays(layer: Conv) -> None:
    neuron, own, (first, last) = layer.neuron, layer.weight.shape[0], layer.relays
    faults = []
    if not 0 <= first < last or first > layer.weight.shape[1]:
        faults.append(f"relays: expected a range that begins in or right behind its sources, got {layer.relays}")
    if any(
        k % 2 == 0 or p != d * (k // 2)
        for k, p, d in zip(layer.weight.shape[2:], layer.padding, layer.dilation, strict=True)
    ):
        faults.append("relays: expected an odd kernel padded by half of its reach")
    if layer.groups > 1 or layer.pool > 1 or neuron.i_decay != 4096:  # a leak of v finds nothing in a relay
        faults.append("relays: expected one group, no pool and an i_decay of 4096")
    if neuron.theta.ndim == 0 or (neuron.theta[own:] != 1).any() or neuron.bias[own:].any():
        faults.append("relays: expected theta 1 and bias 0")
    if faults:
        raise ConfigError(where=layer.name, faults=tuple(faults))


def _check_coding(layer: Layer, coding: BiasCoding) -> None:
    faults = []
    channels, greatest = layer.weight.shape[0], int(layer.neuron.theta.max())
    if coding.divisor.shape not in {(), (channels,)}:
        faults.append(f"divisor: expected shape () or ({channels},), got {coding.divisor.shape}")
    if greatest > coding.limit:
        faults.append(f"theta: expected at most {coding.limit}, the limit of the biases that drive it, got {greatest}")
    if layer.neuron.i_decay != 4096:
        faults.append(f"i_decay: expected 4096 where biases drive the neurons, got {layer.neuron.i_decay}")
    if faults:
        raise ConfigError(where=layer.name, faults=tuple(faults))


def _dense_shape(layer: Dense | Readout, source: Shape) -> Shape:
    channels, height, width = pooled(layer.name, source, layer.pool)
    out, expected = layer.weight.shape
    if expected != channels * height * width:
        fault = f"weight: expected {channels * height * width} columns for its {source} input, got {expected}"
        raise ConfigError(where=layer.name, faults=(fault,))
    return out, 1, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A chain of integer layers that runs `timesteps` steps an image.

    Attributes: shapes[k] is the shape of the neurons of layer k (hidden layers first, the readout last).
    """

    input: Input
    layers: tuple[Layer, ...]
    readout: Readout
    timesteps: int
    shapes: tuple[Shape, ...] = field(init=False)

    def __post_init__(self) -> None:
        positive("network", timesteps=self.timesteps)
        if self.timesteps > TIMESTEPS_MAX:
            fault = f"timesteps: expected 1 to {TIMESTEPS_MAX:,}, got {self.timesteps:,}"
            raise ConfigError(where="network", faults=(fault,))
        if not self.layers:
            raise ConfigError(where="network", faults=("expected at least one layer of spiking neurons",))
        names = [layer.name for layer in self.chain]
        if len(set(names)) < len(names):
            raise ConfigError(where="network", faults=(f"layer names repeat: {', '.join(names)}",))
        if self.layers[0].pool > 1:
            raise ConfigError(where=names[0], faults=("the first layer cannot pool its messages; pool the images",))
        if isinstance(self.layers[0], Conv) and self.layers[0].n_relays:
            raise ConfigError(where=names[0], faults=("the first layer cannot relay messages, only spikes",))
        shapes: list[Shape] = []
        for layer in self.chain:
            shapes.append(layer.output_shape(shapes[-1] if shapes else self.input.shape))
        object.__setattr__(self, "shapes", tuple(shapes))
        if self.input.bias:
            _check_coding(self.layers[0], self.input.bias)

    @property
    def chain(self) -> tuple[AnyLayer, ...]:
        """Hidden layers and readout, in order."""
        return *self.layers, self.readout

    def is_driven(self, layer: AnyLayer) -> bool:
        """Whether the host drives the layer by biases, so that it has no synapses on the chip."""
        return self.input.bias is not None and layer is self.layers[0]

    def driven(self, layer: Layer, sums: npt.NDArray[np.int64]) -> tuple[Neuron, npt.NDArray[np.int64]]:
        """Return a layer's neurons and what drives them: its synaptic sums, or what the host makes of those.

        The host's biases include the neurons' own, which they replace. Shapes: sums (..., C, H, W) -> the same.
        """
        coding, neuron = self.input.bias, layer.neuron
        if coding is None or layer is not self.layers[0]:
            return neuron, sums
        return replace(neuron, bias=np.zeros_like(neuron.bias)), coding.biases(sums + neuron.bias_map)

    def without_pools(self) -> Network:
        """The network with every pool spread into its kernel, as netx writes it; it computes the same."""
        layers = tuple(without_pool(layer, source) for layer, source, _ in self.wired())
        return Network(input=self.input, layers=layers[:-1], readout=layers[-1], timesteps=self.timesteps)

    @property
    def relays(self) -> bool:
        """Whether any layer relays spikes."""
        return any(isinstance(layer, Conv) and layer.n_relays > 0 for layer in self.layers)

    def wired(self) -> Iterator[tuple[AnyLayer, Shape, Shape]]:
        """Yield (layer, shape of its source, its own shape) in order, the readout last."""
        yield from zip(self.chain, (self.input.shape, *self.shapes), self.shapes, strict=False)
