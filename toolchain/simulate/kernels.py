"""Convolution as Lava's stock kernel computes it, by matrix products; numpy only.

Lava's `lava.proc.conv.utils.conv` loops over pairs of channels in Python. Here windows are gathered once and multiplied by
BLAS. A float32 product of integers is exact while no partial sum can reach 2^24, which sum |w| * max |s| bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int32]
    Floats = npt.NDArray[np.floating[Any]]
    Pair = tuple[int, int]

_FLOAT32_EXACT = 1 << 24


class Convolution:
    """A convolution in Lava's axis order.

    Shapes: weight (Cout, kw, kh, Cin / groups); stride, padding, dilation (x, y).
    """

    def __init__(self, *, weight: Ints, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> None:
        self.weight, self.groups = weight, groups
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.bound = int(np.abs(weight.astype(np.int64)).sum(axis=(1, 2, 3)).max())
        self._matrices: dict[type, Floats] = {}

    def __call__(self, signal: npt.NDArray[Any]) -> Ints:
        """Return the sums, wrapped to 24 bits. Shapes: (W, H, Cin) -> (Wout, Hout, Cout)."""
        width, height = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(
                signal.shape, self.padding, self.dilation, self.weight.shape[1:3], self.stride, strict=False
            )
        )
        greatest = int(np.abs(signal.astype(np.int64)).max())
        if greatest == 0:
            return np.zeros((width, height, len(self.weight)), dtype=np.int32)
        matrix = self._matrix(np.float32 if self.bound * greatest < _FLOAT32_EXACT else np.float64)
        windows = self._windows(signal.astype(matrix.dtype), width, height)
        sums = np.matmul(windows, matrix).transpose(1, 0, 2).reshape(width, height, -1)
        return wrapped(sums.astype(np.int32))

    def _matrix(self, kind: type) -> Floats:
        """Return the flipped kernel. Shape: (groups, kw * kh * Cin / groups, Cout / groups)."""
        if kind not in self._matrices:
            flipped = self.weight[:, ::-1, ::-1].reshape(self.groups, len(self.weight) // self.groups, -1)
            self._matrices[kind] = np.ascontiguousarray(flipped.transpose(0, 2, 1), dtype=kind)
        return self._matrices[kind]

    def _windows(self, signal: Floats, width: int, height: int) -> Floats:
        """Return what each output sees. Shape: (groups, width * height, kw * kh * Cin / groups)."""
        (px, py), (sx, sy), (dx, dy) = self.padding, self.stride, self.dilation
        padded = np.pad(signal, ((px, px), (py, py), (0, 0)))
        along_x, along_y, along_c = padded.strides
        _, columns, rows, channels = self.weight.shape
        view = np.lib.stride_tricks.as_strided(
            padded,
            (self.groups, width, height, columns, rows, channels),
            (channels * along_c, sx * along_x, sy * along_y, dx * along_x, dy * along_y, along_c),
            writeable=False,
        )
        return view.reshape(self.groups, width * height, -1)


def wrapped(sums: Ints) -> Ints:
    """Return sums as a signed 24 bit register holds them."""
    return (sums + (1 << 23)) % (1 << 24) - (1 << 23)
