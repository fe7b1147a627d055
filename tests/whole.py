"""Integers that a float network is exactly: nothing is rounded between them, so that whatever differs was planted."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from toolchain import spiking
from toolchain.ir import Conv, Dense, Input, Network, Neuron, Readout
from toolchain.nets import Net

UNITS = {"conv1": 0.0021, "conv2": 0.053, "dense": 0.071, "logits": 0.11}
SCALES = {name: (unit,) for name, unit in UNITS.items()}
THETAS = {"conv1": 510, "conv2": 24, "dense": 18}
OFFSET = 77


def integers(*, bias=None):
    """A convolution, one behind a pool, a dense layer behind another, and a readout.

    Weights are even, biases odd and steps odd, so that no sum over steps is 0 or a multiple of T, which floats would miss.
    """
    rng = np.random.default_rng(5)

    def weight(*shape: int, most: int = 9):
        return 2 * rng.integers(-most, most + 1, shape)

    first = Conv(
        name="conv1",
        weight=weight(3, 1, 3, 3),
        neuron=Neuron(theta=np.array(THETAS["conv1"]), bias=1 + weight(3, most=60)),
        padding=(1, 1),
    )
    second = Conv(
        name="conv2",
        weight=weight(4, 3, 3, 3),
        neuron=Neuron(theta=np.array(THETAS["conv2"]), bias=1 + weight(4, most=3)),
        padding=(1, 1),
        pool=2,
    )
    third = Dense(
        name="dense",
        weight=weight(6, 16),
        neuron=Neuron(theta=np.array(THETAS["dense"]), bias=1 + weight(6, most=2)),
        pool=2,
    )
    readout = Readout(name="logits", weight=weight(5, 6), bias=weight(5))
    source = Input(shape=(1, 8, 8), offset=np.array([OFFSET]), bias=bias)
    return Network(input=source, layers=(first, second, third), readout=readout, timesteps=5)


def floats(network):
    """The float network that the integers are exactly, in float64: weights and thresholds in float units, pools that average."""
    std = 0.31
    body = nn.Sequential()
    for layer in network.chain:
        unit = UNITS[layer.name]
        gain = 255 * std if layer is network.layers[0] else layer.pool**2
        if layer.pool > 1:
            body.add_module(f"pool{len(body)}", nn.AvgPool2d(layer.pool))
        if not isinstance(layer, Conv) and not any(isinstance(one, nn.Flatten) for one in body):
            body.add_module("flatten", nn.Flatten())
        module = (
            nn.Conv2d(*layer.weight.shape[1::-1], 3, padding=1)
            if isinstance(layer, Conv)
            else nn.Linear(*layer.weight.shape[::-1])
        )
        whole_bias = layer.bias if isinstance(layer, Readout) else layer.neuron.bias
        with torch.no_grad():
            module.weight = nn.Parameter(torch.from_numpy(layer.weight * unit * gain).double())
            module.bias = nn.Parameter(torch.from_numpy(whole_bias * unit).double())
        body.add_module(layer.name, module)
        if not isinstance(layer, Readout):
            neurons = spiking.IF()
            # A hair below the threshold, so that sums that meet it exactly do so in float64 too.
            neurons.v_th = nn.Parameter(torch.tensor(THETAS[layer.name] * unit * (1 - 1e-9), dtype=torch.float64))
            body.add_module(f"act{len(body)}", neurons)
    net = Net(body, input_shape=(1, 8, 8), mean=(0.0,), std=(std,))
    net.double()
    net.mean = torch.tensor([OFFSET / 255], dtype=torch.float64)
    net.std = torch.tensor([std], dtype=torch.float64)
    spiking.configure(net, mode="snn", timesteps=network.timesteps)
    return net.eval()


def images():
    return np.random.default_rng(6).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
