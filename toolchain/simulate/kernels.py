"""Synaptic sums as Lava's stock kernels compute them, in a fraction of the time; numpy and scipy only.

Stock Lava convolves pair by pair of channels in Python, over all weights and all inputs. Here one of three ways is taken,
each exact, whichever a rule expects to be the fastest: matrix products by BLAS, the nonzero weights times all windows, or
the spikes times their rows of weights. Integer sums in 16 or 32 bits are modular: a sum that fits is right however its
partial sums overflowed. A float32 product of integers is exact while no partial sum can reach 2^24.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import gcd
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Pair = tuple[int, int]
    Way = tuple[str, type]
    """How, and the type that sums are computed in"""

_FLOAT32_EXACT = 1 << 24
_WRAPS = 1 << 23
"""A convolution's sums are kept in 24 bits."""

# What the rule expects, in ns. Source: fitted to the layers of a VGG-16 at 0, 90 and 99 % sparsity on one core of a Xeon with
# AVX-512; `make bench ONLY=kernels` measures the ways anew, and what the rule loses to the fastest.
_MATRIX: dict[Any, float] = {np.float32: 0.07, np.float64: 0.14}  # a product
_MATRIX_LOAD: dict[Any, float] = {np.float32: 0.7, np.float64: 1.4}  # a weight, where few windows share it
_SYNAPSE = 2.0  # a nonzero weight
_SYNAPSE_PRODUCT: dict[Any, float] = {np.int16: 0.06, np.int32: 0.27}  # this weight times an input of one window
_SPIKE = 12.0  # an active input of a window
_SPIKE_PRODUCT: dict[Any, float] = {np.int16: 0.06, np.int32: 0.15}  # this input times one weight
_WINDOW = 0.4  # any input of a window


class Convolution:
    """A convolution in Lava's axis order.

    A kernel that repeats its weights over blocks, as netx's notation for an average pool does, is undone: the signal is
    summed over blocks first.

    Shapes: weight (Cout, kw, kh, Cin / groups); stride, padding, dilation (x, y).
    """

    def __init__(self, *, weight: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> None:
        self._kernel, self._stride, self._padding = weight.shape[1:3], stride, padding
        px, py = self.pool = _blocks(weight, stride, padding, dilation)
        self._groups, self._dilation = groups, dilation
        flipped = weight[:, ::px, ::py][:, ::-1, ::-1]
        self.products = Products(flipped.reshape(groups, len(weight) // groups, *flipped.shape[1:]))

    def __call__(self, signal: Array) -> Array:
        """Return the sums, wrapped to 24 bits. Shapes: (W, H, Cin) -> (Wout, Hout, Cout)."""
        windows = self.windows(signal)
        sums, bound = self.products(windows)
        return (wrapped(sums) if bound >= _WRAPS else sums).reshape(*windows.outputs, -1)

    def windows(self, signal: Array) -> Windows:
        """Return what each output sees of the signal, or of its sums over blocks."""
        (px, py), (kw, kh) = self.pool, self._kernel
        extents = zip(signal.shape, self._padding, self._dilation, self._kernel, self._stride, strict=False)
        width, height = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in extents)
        return Windows(
            signal=_summed(signal, self.pool),
            outputs=(width, height),
            kernel=(kw // px, kh // py),
            stride=(self._stride[0] // px, self._stride[1] // py),
            padding=(self._padding[0] // px, self._padding[1] // py),
            dilation=self._dilation,
            groups=self._groups,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """What each output of a layer sees of a signal; a dense layer has one output that sees all.

    Shapes: signal (W, H, C); pairs (x, y).
    """

    signal: Array
    outputs: Pair = (1, 1)
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def count(self) -> int:
        """Number of windows."""
        return self.outputs[0] * self.outputs[1]

    def rows(self, kind: Any) -> Array:
        """Return a window a row. Shape: (groups, windows, kw * kh * C / groups)."""
        padded = self._padded(self.signal, kind, axes=(0, 1))
        along_x, along_y, along_c = padded.strides
        channels = padded.shape[2] // self.groups
        shape = self.groups, *self.outputs, *self.kernel, channels
        return _view(padded, shape, (channels * along_c, *self._steps(along_x, along_y), along_c)).reshape(
            self.groups, self.count, -1
        )

    def columns(self, kind: Any) -> Array:
        """Return a window a column. Shape: (kw * kh * C, windows)."""
        padded = self._padded(self.signal.transpose(2, 0, 1), kind, axes=(1, 2))
        along_c, along_x, along_y = padded.strides
        *to_output, next_x, next_y = self._steps(along_x, along_y)
        shape = *self.kernel, padded.shape[0], *self.outputs
        return _view(padded, shape, (next_x, next_y, along_c, *to_output)).reshape(-1, self.count)

    def _steps(self, along_x: int, along_y: int) -> tuple[int, int, int, int]:
        (sx, sy), (dx, dy) = self.stride, self.dilation
        return sx * along_x, sy * along_y, dx * along_x, dy * along_y

    def _padded(self, signal: Array, kind: Any, axes: Pair) -> Array:
        """Return the signal between zeros: as many before it as padded, and after it as many as windows reach."""
        shape, inside = list(signal.shape), [slice(None)] * 3
        for axis, n, k, s, p, d in zip(
            axes, self.outputs, self.kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            inside[axis] = slice(p, p + shape[axis])
            shape[axis] = max(p + shape[axis], (n - 1) * s + d * (k - 1) + 1)
        padded = np.zeros(shape, dtype=kind)
        padded[tuple(inside)] = signal
        return padded


class Products:
    """Sums of weights times windows, by the way that is expected to be the fastest for the signal at hand.

    Each way's copy of the weights is made when it is first taken.

    Shapes: weight (groups, Cout / groups, kw, kh, Cin / groups), not flipped.
    """

    def __init__(self, weight: Array) -> None:
        self._weight = weight
        self._groups, self._outputs = weight.shape[:2]
        self._inputs = int(np.prod(weight.shape[2:]))
        rows = weight.reshape(self._groups * self._outputs, -1)
        self._nonzero = int(np.count_nonzero(rows))
        # What a sum can reach: of spikes or their counts, and of messages of either sign.
        total, size = rows.sum(axis=1, dtype=np.int64), np.abs(rows).sum(axis=1, dtype=np.int64)
        self._reach = int(max((size + total).max(), (size - total).max())) // 2
        self._reach_signed = int(size.max())
        self._copies: dict[Way, Any] = {}

    def __call__(self, windows: Windows) -> tuple[Array, int]:
        """Return the sums, which are right where they fit 32 bits, and a bound of their size. Shape: (windows, Cout)."""
        ways, bound = self.ways(windows)
        if not bound:
            return np.zeros((windows.count, self._groups * self._outputs), dtype=np.int32), bound
        return self.sums(min(ways, key=lambda way: ways[way]), windows), bound

    def ways(self, windows: Windows) -> tuple[dict[Way, float], int]:
        """Return the ways that are exact for these windows, with the ns each is expected to take, and a bound of the sums."""
        signal = windows.signal
        active = int(np.count_nonzero(signal)) / signal.size
        least, greatest = (0, 1) if signal.dtype == np.bool_ else (int(signal.min()), int(signal.max()))
        size = max(greatest, -least) if active else 0
        bound = size * (self._reach if least >= 0 else self._reach_signed)
        loaded = windows.count * self._groups * self._inputs
        kind: type = np.float32 if size * self._reach_signed < _FLOAT32_EXACT else np.float64
        weights = self._groups * self._outputs * self._inputs
        ways: dict[Way, float] = {
            ("matrix", kind): _WINDOW * loaded + weights * max(_MATRIX[kind] * windows.count, _MATRIX_LOAD[kind])
        }
        if bound < 1 << 31:
            kind = np.int16 if bound < 1 << 15 and size < 1 << 15 else np.int32
            per_synapse = _SYNAPSE + _SYNAPSE_PRODUCT[kind] * windows.count
            ways["synapses", kind] = _WINDOW * loaded + self._nonzero * per_synapse
            if self._groups == 1:
                per_spike = _SPIKE + _SPIKE_PRODUCT[kind] * self._outputs
                ways["spikes", kind] = _WINDOW * loaded + active * loaded * per_spike
        return ways, bound

    def sums(self, way: Way, windows: Windows) -> Array:
        """Return the sums computed in one way. Shape: (windows, Cout)."""
        name, kind = way
        if way not in self._copies:
            self._copies[way] = {"matrix": self._matrix, "synapses": self._synapses, "spikes": self._table}[name](kind)
        weights = self._copies[way]
        if name == "matrix":
            products: Array = np.matmul(windows.rows(kind), weights)
            return products.transpose(1, 0, 2).reshape(windows.count, -1).astype(np.int32)
        if name == "synapses":
            return np.asarray((weights @ windows.columns(kind)).T)
        return np.asarray(_compressed(windows.rows(windows.signal.dtype)[0], kind) @ weights)

    def _matrix(self, kind: Any) -> Array:
        """Return the weights for BLAS. Shape: (groups, inputs, Cout / groups)."""
        matrix = self._weight.reshape(self._groups, self._outputs, -1).transpose(0, 2, 1)
        return np.ascontiguousarray(matrix, dtype=kind)

    def _table(self, kind: Any) -> Array:
        """Return what a spike adds, a row an input. Shape: (inputs, Cout)."""
        table: Array = self._matrix(kind)[0]
        return table

    def _synapses(self, kind: Any) -> csr_matrix:
        """Return the nonzero weights, a row an output, a column an input. Shape: (Cout, kw * kh * Cin)."""
        groups, outputs, kw, kh, channels = self._weight.shape
        group, out, x, y, c = np.nonzero(self._weight)
        row, column = group * outputs + out, (x * kh + y) * groups * channels + group * channels + c
        values = self._weight[group, out, x, y, c].astype(kind)
        return csr_matrix((values, (row, column)), shape=(groups * outputs, kw * kh * groups * channels))


def _compressed(rows: Array, kind: Any) -> csr_matrix:
    """Return the matrix without its zeros."""
    ends = np.cumsum(np.count_nonzero(rows, axis=1), dtype=np.int32)
    at = np.flatnonzero(rows)
    values = np.ones(len(at), dtype=kind) if rows.dtype == np.bool_ else rows.reshape(-1)[at].astype(kind)
    columns = (at % rows.shape[1]).astype(np.int32)
    return csr_matrix((values, columns, np.concatenate([[0], ends])), shape=rows.shape, copy=False)


def _view(array: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    return np.lib.stride_tricks.as_strided(array, shape, strides, writeable=False)


def _blocks(weight: Array, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Return the largest blocks (x, y) over which the kernel repeats its weights and by which its windows move."""
    sizes = []
    for axis in (1, 2):
        extent = weight.shape[axis]
        common = gcd(extent, stride[axis - 1], padding[axis - 1]) if dilation[axis - 1] == 1 else 1
        for size in range(common, 0, -1):
            firsts = weight.take(range(0, extent, size), axis=axis) if common % size == 0 else weight[:0]
            if common % size == 0 and np.array_equal(firsts.repeat(size, axis=axis), weight):
                sizes.append(size)
                break
    return sizes[0], sizes[1]


def _summed(signal: Array, blocks: Pair) -> Array:
    """Return the sums over blocks, zeros beyond the edge. Shapes: (W, H, C) -> (ceil(W / bx), ceil(H / by), C)."""
    bx, by = blocks
    if blocks == (1, 1):
        return signal
    beyond = [(0, -signal.shape[0] % bx), (0, -signal.shape[1] % by), (0, 0)]
    if any(after for _, after in beyond):
        signal = np.pad(signal, beyond)
    small = signal.dtype == np.bool_ and bx * by < 128
    signal = signal.view(np.int8) if small else signal.astype(np.int64)
    return reduce(add, (signal[x::bx, y::by] for x in range(bx) for y in range(by)))


def wrapped(sums: Array) -> Array:
    """Return sums as a signed 24 bit register holds them."""
    return (sums + _WRAPS) % (2 * _WRAPS) - _WRAPS
