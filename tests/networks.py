"""Random small networks for the laws: every feature of a layer, every corner of its arithmetic, and layers that spike.

A network is built from the answers of a `Pick`. Hypothesis answers for the laws, so that a failure shrinks; a seeded
generator answers where a suite must name its networks by number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from toolchain import emulate
from toolchain.emulate import reference
from toolchain.export import Deployment
from toolchain.ir import BIAS_MAX, THETA_MAX, BiasCoding, Conv, Dense, Input, Network, Neuron, Readout
from toolchain.placement import Core, Mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from toolchain.ir import Layer, Shape

    Pick = Callable[[int, int], int]
    """Least and greatest -> a number from one to the other"""
    Ints = npt.NDArray[np.int64]
    Rng = np.random.Generator

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """A network and the images to run it on."""

    network: Network
    images: npt.NDArray[np.uint8]


def cases(*, tiny: bool = False) -> st.SearchStrategy[Case]:
    """Return a strategy of random networks; tiny ones have few enough neurons for loops in Python."""

    @st.composite
    def draw_case(draw: st.DrawFn) -> Case:
        return _case(lambda low, high: draw(st.integers(low, high)), tiny=tiny)

    return draw_case()


def seeded(seed: int, *, tiny: bool = False) -> Case:
    """Return the same random network for the same seed."""
    rng = np.random.default_rng(seed)
    return _case(lambda low, high: int(rng.integers(low, high + 1)), tiny=tiny)


def driven(case: Case, divisor: int = 1, limit: int = 4095) -> Case:
    """Return the case with a first layer that the host drives by biases, its thresholds divided as its sums are."""
    network, first = case.network, case.network.layers[0]
    divisors = np.maximum(divisor, -(-first.neuron.theta // limit))
    theta = np.clip(first.neuron.theta // divisors, 1, limit)
    neuron = replace(first.neuron, theta=theta, i_decay=4096)
    coded = replace(network.input, bias=BiasCoding(divisor=divisors, limit=limit))
    return replace(case, network=replace_layers(network, (replace(first, neuron=neuron), *network.layers[1:]), coded))


def replace_layers(network: Network, layers: tuple[Layer, ...], source: Input | None = None) -> Network:
    """Return the network with other hidden layers, and another input where given."""
    return Network(input=source or network.input, layers=layers, readout=network.readout, timesteps=network.timesteps)


def fed(network: Network, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Return what Lava is given of images: messages or biases."""
    return emulate.Emulator(network).biases(images) if network.input.bias else network.input.encode(images)


def corners() -> dict[str, Case]:
    """Return networks for which chance is too rare, by what they show."""
    leaky_weight = np.zeros((3, 8, 6, 6), dtype=int)
    leaky_weight.reshape(3, -1)[:, :259] = np.array([[127], [-127], [100]])
    # On white, 65,795 * 255 = 2^24 + 509 and 65,797 * 255 = 2^24 + 1,019, which float32 rounds to 508 and 1,020.
    odd_weight = np.zeros((2, 16, 6, 6), dtype=int)
    odd_weight.reshape(2, -1)[:, :518] = 127
    odd_weight[:, 15, 5, 5] = 65_795 - 518 * 127, 65_797 - 518 * 127
    wide_weight = np.full((3, 1600), 127)
    wide_weight[1], wide_weight[2, ::2] = -128, -128
    # 1,024 * -128 = -2^17, and 1,032 * 127 + 8 = 2^17.
    limits = np.repeat([[-128], [127], [127]], 1033, axis=1)
    limits[0, 1024:], limits[1, -1], limits[2, -1] = 0, 8, 7
    negative_weight = -(1 + np.arange(48).reshape(3, 16) % 100)
    return {
        "a current past 32 bits, by its leak": _alone(
            leaky_weight, (8, 6, 6), theta=100_000, bias=[0, 1, -7], timesteps=6, i_decay=1
        ),
        "a drive past 32 bits": _alone(wide_weight, (1, 40, 40), theta=THETA_MAX, bias=[0, 0, 5], timesteps=3),
        "odd sums past 24 bits": _alone(odd_weight, (16, 6, 6), theta=[509, 1_020], bias=[0, 0], timesteps=2),
        "sums of more than 16 bits": _crowd(np.repeat([[127], [-128], [64]], 300, axis=1), 300, theta=38_100, pool=1),
        "sums of more than 16 bits by a pool": _crowd(
            np.repeat([[127], [-128], [64]], 70, axis=1), 70, theta=35_560, pool=2
        ),
        "a drive of 2^17 and its neighbours, between layers": _crowd(limits, 1033, theta=THETA_MAX, pool=1),
        "decays whose last bit decides": _alone(
            np.array([[-3], [-2], [-1], [1], [2], [3]] * 8),
            (1, 1, 1),
            theta=3 + np.arange(48),
            bias=[15, 11, 6, -2, -5, -7] * 8,
            timesteps=40,
            i_decay=900,
            v_decay=150,
        ),
        "a dense layer without positive weights": _alone(
            negative_weight, (1, 4, 4), theta=[90, 200, 1000], bias=[30_000, 32_000, 20_000], timesteps=4
        ),
    }


def _alone(weight: Ints, shape: Shape, *, theta: Any, bias: Sequence[int], timesteps: int, **decays: int) -> Case:
    """Return one layer on raw pixels and a readout, on a white, a light and a dark image."""
    neuron = Neuron(theta=np.array(theta), bias=np.array(bias), **decays)
    layer: Layer = (Conv if weight.ndim == 4 else Dense)(name="hidden", weight=weight, neuron=neuron)
    columns = int(np.prod(layer.output_shape(shape)))
    readout = Readout(
        name="logits", weight=np.stack([1 + np.arange(columns), -np.arange(columns)]), bias=np.array([3, -4])
    )
    network_input = Input(shape=shape, offset=np.zeros(shape[0], dtype=int))
    images = np.stack([np.full(shape, level, dtype=np.uint8) for level in (255, 200, 1)])
    return Case(Network(input=network_input, layers=(layer,), readout=readout, timesteps=timesteps), images)


def _crowd(weight: Ints, size: int, *, theta: int, pool: int) -> Case:
    """Return `size` channels that spike at every step on white, and neurons that add their spikes. Shapes: weight (neurons, size)."""
    ones, quiet = np.ones((size, 1, 1, 1), dtype=int), np.zeros(size, dtype=int)
    first = Conv(name="crowd", weight=ones, neuron=Neuron(theta=np.array(200), bias=quiet))
    neuron = Neuron(theta=np.array(theta), bias=np.zeros(len(weight), dtype=int))
    second = Conv(name="sum", weight=weight[:, :, None, None], neuron=neuron, pool=pool)
    readout = Readout(name="logits", weight=np.array([[3, -2, 1]]), bias=np.array([7]))
    images = np.stack([np.full((1, pool, pool), level, dtype=np.uint8) for level in (255, 200, 90)])
    network_input = Input(shape=(1, pool, pool), offset=np.array([0]))
    return Case(Network(input=network_input, layers=(first, second), readout=readout, timesteps=5), images)


def deployed(network: Network) -> Deployment:
    """Return the network with a mask that is its nonzero weights, on one made-up core a layer."""
    shapes = zip(network.chain, network.shapes, strict=True)
    cores = tuple(
        Core(
            index=index,
            chip=0,
            layer=layer.name,
            y=(0, height),
            x=(0, width),
            channels=(0, channels),
            axons_in=1 + index,
            axons_out=2 + index,
            groups=1,
            synapse_words=int(np.count_nonzero(layer.weight)),
            axon_map_words=3,
            axon_mem_words=4,
        )
        for index, (layer, (channels, height, width)) in enumerate(shapes)
    )
    mapping = Mapping(
        profile="made-up",
        profile_sha256="0" * 64,
        formats={layer.name: "shared" if isinstance(layer, Conv) else "dense" for layer in network.chain},
        tiles={layer.name: (h, w, c) for layer, (c, h, w) in zip(network.chain, network.shapes, strict=True)},
        cores=cores,
    )
    masks = {layer.name: layer.weight != 0 for layer in network.chain}
    return Deployment(network=network, mapping=mapping, masks=masks, facts={"accuracy": 0.5, "data": ["digits", None]})


def refusal(network: Network) -> str | None:
    """Return the sentence with which an export must refuse the network, None where netx computes it as it is."""
    flat = False
    for layer in network.chain:
        if isinstance(layer, Conv):
            if flat:
                return f"{layer.name}: netx takes no convolution after a dense layer. Use a dense layer in its place"
            continue
        flat = True
        least = int(layer.weight.min())
        if (layer.weight <= 0).all() and -least in {0, 1, 2, 4, 8, 16, 32, 64, 128}:
            return (
                f"{layer.name}: netx computes a dense matrix without positive entries wrongly when its least entry is {least}. "
                "Use other weight bits, or train the layer so that it keeps a positive weight"
            )
    return None


def _one_of(pick: Pick, options: Sequence[T]) -> T:
    return options[pick(0, len(options) - 1)]


def _case(pick: Pick, *, tiny: bool) -> Case:
    rng = np.random.default_rng(pick(0, 2**32 - 1))
    # `loud` lets u wrap and v saturate; in `deafening`, convolutions leave even 24 bits.
    regime = _one_of(pick, ("plain", "plain", "plain", "plain", "loud") + (() if tiny else ("deafening",)))
    # Sides that pools divide, more often than not.
    sides = (4, 2, 5, 3, 1) if tiny else (4, 6, 8, 4, 6, pick(1, 8))
    height, width = _one_of(pick, sides), _one_of(pick, sides)
    shape = (8, pick(6, 7), pick(6, 8)) if regime == "deafening" else (pick(1, 3), height, width)
    offset = np.array([_one_of(pick, (128, 0, 255, pick(0, 255))) for _ in range(shape[0])])
    network_input = Input(shape=shape, offset=offset)
    images = _images(pick, rng, shape, samples=2 if tiny else 3, regime=regime)
    timesteps = pick(1, 6)

    # The reference serves here only to find thresholds that the layers reach.
    signal = np.repeat(network_input.encode(images)[:, None].astype(np.int64), timesteps, axis=1)
    layers: list[Layer] = []
    for index in range(pick(1, 2 if tiny else 4)):
        # A convolution after a dense layer is sound, but netx cannot say it.
        may_convolve = not layers or isinstance(layers[-1], Conv) or not pick(0, 9)
        name = f"spiking{9 - index}"  # names whose order is not their alphabetical one
        if regime == "deafening" and not layers:
            weight = _weight(
                pick, rng, (pick(1, 2), 8, 6, 6), bits=8, kind=_one_of(pick, ("positive extreme", "extreme"))
            )
            bare: Layer = Conv(name=name, weight=weight, neuron=_quiet(len(weight)), padding=(pick(0, 2), 0))
        elif may_convolve and pick(0, 3):
            bare = _conv(pick, rng, name, signal.shape[2:], first=not layers, tiny=tiny, regime=regime)
        else:
            bare = _dense(pick, rng, name, signal.shape[2:], first=not layers, tiny=tiny, regime=regime)
        drive = _drive(bare, signal)
        layer = replace(bare, neuron=_neuron(pick, rng, drive, regime=regime, bias_map=isinstance(bare, Conv)))
        layers.append(layer)
        signal, _ = reference.neurons(layer.neuron, drive)

    pool, columns = _pool(pick, signal.shape[2:], first=False)
    bits = _bits(pick)
    weight = _weight(pick, rng, (pick(1, 4), columns), bits=bits, kind=_kind(pick, regime))
    bias = rng.integers(-5, 6, len(weight)) if pick(0, 3) else rng.integers(-BIAS_MAX, BIAS_MAX + 1, len(weight))
    readout = Readout(name="logits", weight=weight, bias=bias, pool=pool, weight_bits=bits)
    network = Network(input=network_input, layers=tuple(layers), readout=readout, timesteps=timesteps)
    return Case(network, images)


def _images(pick: Pick, rng: Rng, shape: Shape, *, samples: int, regime: str) -> npt.NDArray[np.uint8]:
    images = np.zeros((samples, *shape), dtype=np.uint8)
    for image in images:
        match _one_of(pick, ("noise", "noise", "black", "white", "black and white", "dim")):
            case "noise" if regime == "deafening":
                image[:] = rng.integers(200, 256, shape)
            case "noise":
                image[:] = rng.integers(0, 256, shape)
            case "white":
                image[:] = 255
            case "black and white":
                image[:] = 255 * rng.integers(0, 2, shape)
            case "dim":
                image[:] = rng.integers(0, 20, shape)
    return images


def _bits(pick: Pick) -> int:
    return _one_of(pick, (8, 8, 8, 8, pick(1, 8)))


def _kind(pick: Pick, regime: str) -> str:
    kinds = ("mixed", "mixed", "mixed", "positive", "negative", "sparse", "sparse", "empty rows", "zeros")
    return _one_of(pick, (*kinds, "extreme", "positive extreme") if regime != "plain" else kinds)


def _weight(pick: Pick, rng: Rng, shape: tuple[int, ...], *, bits: int, kind: str) -> Ints:
    low, high = -(1 << (bits - 1)), max((1 << (bits - 1)) - 1, 1)
    weight = rng.integers(low, high + 1, shape)
    match kind:
        case "positive":
            return np.clip(weight, 0, None)
        case "negative":
            return np.clip(weight, None, 0)
        case "sparse":
            return np.where(rng.random(shape) < 0.8, 0, weight)
        case "empty rows":
            weight[rng.random(len(weight)) < 0.5] = 0
        case "zeros":
            weight[:] = 0
        case "extreme":
            return np.where(weight < 0, low, high)
        case "positive extreme":
            weight[:] = high
    return weight


def _quiet(channels: int) -> Neuron:
    return Neuron(theta=np.array(1), bias=np.zeros(channels, dtype=int))


def _pools(height: int, width: int) -> list[int]:
    return [q for q in range(1, max(height, width) + 1) if height % q == 0 and width % q == 0]


def _pool(pick: Pick, source: tuple[int, ...], *, first: bool) -> tuple[int, int]:
    """Return a pool and the number of cells it leaves."""
    channels, height, width = source
    pools = _pools(height, width)
    pool = 1 if first or not pick(0, 3) else _one_of(pick, pools[1:] or pools)
    return pool, channels * (height // pool) * (width // pool)


def _conv(pick: Pick, rng: Rng, name: str, source: tuple[int, ...], *, first: bool, tiny: bool, regime: str) -> Conv:
    pool, _ = _pool(pick, source, first=first)
    kernel, stride, padding, dilation = [], [], [], []
    keeps_size = pick(0, 1)
    for n in (source[1] // pool, source[2] // pool):
        if keeps_size:
            reach, d = pick(0, 1), _one_of(pick, (1, 1, 2))
            kernel.append(2 * reach + 1)
            stride.append(1)
            padding.append(reach * d)
            dilation.append(d)
            continue
        p, d = pick(0, 3), _one_of(pick, (1, 1, 2, 3))
        kernel.append(min(pick(1, 4 if tiny else 6), (n + 2 * p - 1) // d + 1))
        stride.append(_one_of(pick, (1, 1, 2, 3)))
        padding.append(p)
        dilation.append(d)
    groups = _one_of(pick, [g for g in range(1, source[0] + 1) if source[0] % g == 0])
    out = groups * pick(1, 2 if tiny else 4)
    bits = _bits(pick)
    weight = _weight(pick, rng, (out, source[0] // groups, *kernel), bits=bits, kind=_kind(pick, regime))
    return Conv(
        name=name,
        weight=weight,
        neuron=_quiet(out),
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        dilation=(dilation[0], dilation[1]),
        groups=groups,
        pool=pool,
        weight_bits=bits,
    )


def _dense(pick: Pick, rng: Rng, name: str, source: tuple[int, ...], *, first: bool, tiny: bool, regime: str) -> Dense:
    pool, columns = _pool(pick, source, first=first)
    bits = _bits(pick)
    weight = _weight(pick, rng, (pick(1, 4 if tiny else 9), columns), bits=bits, kind=_kind(pick, regime))
    return Dense(name=name, weight=weight, neuron=_quiet(len(weight)), pool=pool, weight_bits=bits)


def _drive(layer: Layer, signal: Ints) -> Ints:
    samples, steps, *source = signal.shape
    drive = reference.synapses(layer, signal.reshape(-1, *source))
    return drive.reshape(samples, steps, *drive.shape[1:])


def _neuron(pick: Pick, rng: Rng, drive: Ints, *, regime: str, bias_map: bool) -> Neuron:
    channels, height, width = drive.shape[2:]
    kinds = ("none", "channel", "channel", "map" if bias_map else "channel", "greatest")
    match _one_of(pick, kinds):
        case "none":
            bias = np.zeros(channels, dtype=int)
        case "channel":
            bias = rng.integers(-20, 21, channels)
        case "map":
            bias = rng.integers(-200, 201, (channels, height, width))
        case _:
            bias = rng.choice([-BIAS_MAX, BIAS_MAX, 0], channels)
    i_decay, v_decay = 4096, 0
    if not pick(0, 3):
        i_decay, v_decay = _one_of(pick, (4096, 1, 2048, pick(1, 4096))), _one_of(pick, (0, 4095, 300, pick(0, 4095)))
    theta = _theta(pick, drive + bias.reshape(channels, *(bias.shape[1:] or (1, 1))))
    if regime != "plain" and pick(0, 1):
        theta = np.array(THETA_MAX - pick(0, 1))
    return Neuron(theta=theta, bias=bias, i_decay=i_decay, v_decay=v_decay)


def _theta(pick: Pick, driven: Ints) -> npt.NDArray[Any]:
    """Return thresholds that some neurons meet exactly, some exceed and some never reach."""
    potential = np.cumsum(driven, axis=1)[:, : pick(1, driven.shape[1])]
    share = pick(0, 8) / 10
    by_channel = np.quantile(potential, share, axis=(0, 1, 3, 4), method="nearest")
    theta = by_channel if pick(0, 1) else np.quantile(potential, share, method="nearest")
    return np.clip(theta, 1, THETA_MAX).astype(np.int64)
