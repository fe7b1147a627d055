"""Random small networks whose layers relay spikes: channels heard, relayed, both, through strides, dilated kernels and leaks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from networks import Case

from toolchain.emulate import reference
from toolchain.ir import Conv, Input, Network, Neuron, Readout

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.ir import Shape

    Ints = npt.NDArray[np.int64]
    Rng = np.random.Generator


def seeded(seed: int) -> Case:
    """Return the same random network for the same seed; each of its layers spikes."""
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 4)), int(rng.integers(4, 8)), int(rng.integers(4, 8))
    coded = Input(shape=shape, offset=rng.integers(0, 256, shape[0]))
    images = rng.integers(0, 256, (3, *shape)).astype(np.uint8)
    timesteps = int(rng.integers(2, 6))
    signal = np.repeat(coded.encode(images)[:, None].astype(np.int64), timesteps, axis=1)
    layers: list[Conv] = []
    for index in range(int(rng.integers(2, 6))):
        layer = _layer(rng, f"spiking{9 - index}", signal.shape[2:], relays=index > 0)
        drive = reference.synapses(layer, signal.reshape(-1, *signal.shape[2:]))
        layer = _spiking(rng, layer, drive.reshape(*signal.shape[:2], *drive.shape[1:]))
        layers.append(layer)
        signal, _ = reference.neurons(layer.neuron, drive.reshape(*signal.shape[:2], *drive.shape[1:]))
    weight = rng.integers(-9, 10, (3, int(np.prod(signal.shape[2:]))))
    weight[:, 0] = 9  # netx computes some matrices without positive entries wrongly
    readout = Readout(name="logits", weight=weight, bias=rng.integers(-5, 6, 3))
    return Case(Network(input=coded, layers=tuple(layers), readout=readout, timesteps=timesteps), images)


def densified(network: Network) -> Network:
    """Return the network with every relay written as a kernel of a single 1."""
    layers = tuple(
        Conv(
            name=layer.name,
            weight=layer.dense_weight,
            neuron=layer.neuron,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            pool=layer.pool,
            weight_bits=layer.weight_bits,
        )
        for layer in network.layers
        if isinstance(layer, Conv)
    )
    return Network(input=network.input, layers=layers, readout=network.readout, timesteps=network.timesteps)


def _layer(rng: Rng, name: str, source: Shape | tuple[int, ...], *, relays: bool) -> Conv:
    channels, *extent = source
    reach, dilation = int(rng.integers(0, 2)), int(rng.integers(1, 3))
    heard = int(rng.integers(1, channels + 1)) if relays else channels
    first = int(rng.integers(0, heard + (heard < channels)))
    last = channels if heard < channels else int(rng.integers(first, channels + 1))
    own = int(rng.integers(1, 5))
    n_relays = last - first if relays else 0
    weight = rng.integers(-128, 128, (own, heard, 2 * reach + 1, 2 * reach + 1))
    weight[rng.random(weight.shape) < 0.5] = 0
    return Conv(
        name=name,
        weight=weight,
        neuron=_neuron(np.ones(own, dtype=int), np.zeros(own, dtype=int), n_relays),
        stride=(int(rng.integers(1, 3)), int(rng.integers(1, 3))) if min(extent) > 2 else (1, 1),
        padding=(reach * dilation, reach * dilation),
        dilation=(dilation, dilation),
        relays=(first, last) if n_relays else (0, 0),
    )


def _spiking(rng: Rng, layer: Conv, drive: Ints) -> Conv:
    own = len(layer.weight)
    bias = rng.integers(-20, 21, own)
    driven = np.maximum(drive[:, :, :own] + bias[:, None, None], 1)
    theta = np.quantile(driven, rng.uniform(0.5, 0.9), axis=(0, 1, 3, 4)).astype(np.int64)
    fields: dict[str, Any] = {name: getattr(layer, name) for name in type(layer).__slots__}
    neuron = replace(_neuron(np.maximum(theta, 1), bias, layer.n_relays), v_decay=int(rng.choice([0, 300, 4095])))
    return Conv(**{**fields, "neuron": neuron})


def _neuron(theta: Ints, bias: Ints, n_relays: int) -> Neuron:
    return Neuron(
        theta=np.concatenate([theta, np.ones(n_relays, dtype=int)]),
        bias=np.concatenate([bias, np.zeros(n_relays, dtype=int)]),
    )
