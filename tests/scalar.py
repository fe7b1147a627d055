"""A third opinion: a layer computed neuron by neuron in Python integers, from Lava's documented arithmetic alone.

Nothing here is fast, vectorised or shared with the package: agreement must not come from shared code.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from toolchain.ir import Conv

if TYPE_CHECKING:
    from toolchain.ir import AnyLayer, Neuron, Shape

    Map = list[list[list[int]]]
    """[channel][y][x]"""


def signed(value: int, bits: int) -> int:
    """Return what a register of so many bits, in two's complement, makes of the value."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def towards_zero(value: Fraction) -> int:
    """Return the value without its fraction."""
    return int(value)


def synaptic_sum(layer: AnyLayer, source: Map, channel: int, y: int, x: int) -> int:
    """Return what one neuron receives in one step, by walking over every cell of the source that it sees."""
    if not isinstance(layer, Conv):
        return _dense_sum(layer, source, channel)
    q, height, width = layer.pool, len(source[0]), len(source[0][0])
    total = 0
    outputs, inputs, rows, columns = layer.weight.shape
    group = channel // (outputs // layer.groups)
    for c in range(inputs):
        for i in range(rows):
            for j in range(columns):
                top = (y * layer.stride[0] - layer.padding[0] + i * layer.dilation[0]) * q
                left = (x * layer.stride[1] - layer.padding[1] + j * layer.dilation[1]) * q
                for row in range(top, top + q):
                    for column in range(left, left + q):
                        if 0 <= row < height and 0 <= column < width:
                            value = source[group * inputs + c][row][column]
                            total += int(layer.weight[channel][c][i][j]) * value
    return signed(total, 24)


def _dense_sum(layer: AnyLayer, source: Map, channel: int) -> int:
    q, height, width = layer.pool, len(source[0]), len(source[0][0])
    total = 0
    for c, plane in enumerate(source):
        for row, line in enumerate(plane):
            for column, value in enumerate(line):
                position = (c * (height // q) + row // q) * (width // q) + column // q
                total += int(layer.weight[channel][position]) * value
    return total


def neuron_step(
    state: tuple[int, int], drive: int, theta: int, bias: int, neuron: Neuron
) -> tuple[tuple[int, int], bool]:
    """Return (u, v) and the spike after one step of one neuron."""
    u, v = state
    u = signed(towards_zero(Fraction(u * (4096 - neuron.i_decay), 4096)) + (drive << 6), 32)
    if u > 1 << 23:
        u -= 1 << 24
    elif u <= -(1 << 23):
        u += 1 << 24
    v = towards_zero(Fraction(v * (4096 - neuron.v_decay), 4096)) + u + (bias << 6)
    greatest = (1 << 23) - 1
    v = min(max(v, -greatest), greatest)
    spike = v > (theta - 1) << 6
    return (u, 0 if spike else v), spike


def run_layer(layer: AnyLayer, shape: Shape, frames: list[Map]) -> list[Map]:
    """Return the spikes of a hidden layer of this shape, step by step; frames are its source's, one a step."""
    channels, height, width = shape
    neuron = layer.neuron
    out = [[[[0] * width for _ in range(height)] for _ in range(channels)] for _ in frames]
    for channel in range(channels):
        theta = int(neuron.theta if neuron.theta.ndim == 0 else neuron.theta[channel])
        for y in range(height):
            for x in range(width):
                bias = int(neuron.bias[channel] if neuron.bias.ndim == 1 else neuron.bias[channel][y][x])
                state = 0, 0
                for step, source in enumerate(frames):
                    drive = synaptic_sum(layer, source, channel, y, x)
                    state, spike = neuron_step(state, drive, theta, bias, neuron)
                    out[step][channel][y][x] = int(spike)
    return out
