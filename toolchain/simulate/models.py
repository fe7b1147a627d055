"""Process models of our own for Lava's stock Conv, Dense, Sparse and LIFReset: the same integers, sooner.

A run configuration takes them in place of the stock models (`FAST`); the processes, their ports, variables and delays stay
the stock ones. What a fast model does not cover it leaves to the stock model it inherits from. numpy and scipy only: torch
hangs inside a Lava process. Lava reads the class attributes; their annotations are for the reader.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.process import Conv
from lava.proc.dense.models import PyDenseModelBitAcc
from lava.proc.dense.process import Dense
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.lif.process import LIFReset
from lava.proc.sparse.models import PySparseModelBitAcc
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights
from scipy.sparse import csr_matrix

from toolchain.simulate import kernels
from toolchain.simulate.record import Writer

_INT32_REACH = 1 << 31


def received(port: Any) -> Any:
    """Return the values that `port.recv()` does, without adding the message of an only sender to zeros."""
    if len(port.csp_ports) != 1:
        return port.recv()
    (sender,) = port.csp_ports
    return port._transformer.transform(sender.recv(), sender)  # noqa: SLF001  what recv does


@implements(proc=Conv, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyConvModelFast(PyConvModelFixed):  # type: ignore[misc]  # Lava has no types
    """The stock fixed-point convolution, by `kernels.Convolution`."""

    a_buf: Any

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._convolve: kernels.Convolution | None = None
        self._received: Any = None

    def run_spk(self) -> None:
        """Send the sums of the step before, as the stock model does, then take this step's frame."""
        self.a_out.send(self.a_buf)
        signal = received(self.s_in)
        if self.num_message_bits.item() == 0:
            self.a_buf = self._kernel()(signal.astype(bool, copy=False))
        # Messages stay the same for all steps of a sample.
        elif self._received is None or not np.array_equal(signal, self._received):
            self.a_buf, self._received = self._kernel()(signal), signal

    def _kernel(self) -> kernels.Convolution:
        if self._convolve is None:
            stride, padding, dilation = (
                (int(pair[0]), int(pair[1])) for pair in (self.stride, self.padding, self.dilation)
            )
            self._convolve = kernels.Convolution(
                weight=self.weight, stride=stride, padding=padding, dilation=dilation, groups=int(self.groups[0])
            )
        return self._convolve


class _Matrix:
    """What fast Dense and Sparse share: a_out of a matrix of weights, scaled as the stock models do.

    Raises: nothing of its own; sums that 32 bits do not hold are left to the stock expressions.
    """

    weights: Any
    a_buff: Any

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)  # type: ignore[call-arg]  # the stock model's
        self._products: kernels.Products | None = None
        self._received: Any = None

    def run_spk(self) -> None:
        """Send the sums of the step before, as the stock model does, then take this step's frame."""
        model: Any = self
        products = self._products or self._prepared(model)
        model.a_out.send(self.a_buff)
        signal = received(model.s_in)
        if model.num_message_bits.item() == 0:
            self.a_buff = self._shifted(self._sums(products, signal.astype(bool, copy=False)))
        elif self._received is None or not np.array_equal(signal, self._received):
            self.a_buff, self._received = self._shifted(self._sums(products, signal)), signal

    def _prepared(self, model: Any) -> kernels.Products:
        """The weights are what the stock model makes of them in its first step; returns their products."""
        parameters = model.proc_params
        bits = parameters.get("num_weight_bits", 8)
        sign = parameters.get("sign_mode") or determine_sign_mode(self.weights)
        self.weights = truncate_weights(clip_weights(self.weights, sign, num_bits=8), sign, bits)
        model.weights_set = True
        model.weight_exp = parameters.get("weight_exp", 0)
        dense = self.weights.toarray() if isinstance(self.weights, csr_matrix) else self.weights
        self._products = kernels.Products(dense[None, :, None, None, :])
        return self._products

    def _sums(self, products: kernels.Products, signal: Any) -> Any:
        windows = kernels.Windows(signal=signal.reshape(1, 1, -1))
        if products.ways(windows)[1] >= _INT32_REACH:
            return self.weights.dot(signal)
        return products(windows)[0].reshape(-1).astype(np.int32, copy=False)

    def _shifted(self, sums: Any) -> Any:
        exponent: int = self.weight_exp  # type: ignore[attr-defined]  # the stock model's
        return np.left_shift(sums, exponent) if exponent > 0 else np.right_shift(sums, -exponent)


@implements(proc=Dense, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyDenseModelFast(_Matrix, PyDenseModelBitAcc):  # type: ignore[misc]
    """The stock bit-accurate dense layer, by `kernels.Products`."""


@implements(proc=Sparse, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySparseModelFast(_Matrix, PySparseModelBitAcc):  # type: ignore[misc]
    """The stock bit-accurate sparse layer, by `kernels.Products`."""


@implements(proc=LIFReset, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyLifResetModelFast(PyLifResetModelBitAcc):  # type: ignore[misc]
    """The stock bit-accurate neuron; where it does not leak, in place and in 32 bits.

    Spikes travel as one byte each instead of four. Where the process has a parameter `record`, a `record.Layer`, its spikes, or
    the sums it receives, are kept.
    """

    s_out: Any = LavaPyType(PyOutPort.VEC_DENSE, np.bool_, precision=1)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        layer = proc_params.get("record")
        self._writer = Writer(layer) if layer else None
        self._keeps_sums = bool(layer) and layer.kind == "sums"

    def run_spk(self) -> None:
        """Take this step's sums and send this step's spikes."""
        if self.time_step % self.reset_interval == self.reset_offset:
            self.u[...] = 0
            self.v[...] = 0
        sums = received(self.a_in)
        sums = sums.astype(np.promote_types(np.int16, sums.dtype), copy=False)  # the type it has in the stock model
        if not self.isbiasscaled:
            self.scale_bias()
        if not self.isthrscaled:
            self.scale_threshold()
        if sums.dtype == np.int32 and not self._leaks():
            self._integrate(sums)
        else:
            self.subthr_dynamics(activation_in=sums)
        spikes = self.spiking_activation()
        np.putmask(self.v, spikes, 0)
        self.s_out.send(spikes)
        if self._writer:
            self._writer.take(self.time_step, sums if self._keeps_sums else spikes)

    def on_var_update(self) -> None:
        """The bias may have been set between runs; the stock model scales it anew in each step."""
        self.isbiasscaled = False

    def _leaks(self) -> bool:
        return (int(self.du) + self.ds_offset, int(self.dv) + self.dm_offset) != (self.decay_unity, 0)

    def _integrate(self, sums: Any) -> None:
        """Do what `subthr_dynamics` does for i_decay 4096 and v_decay 0: u = 64 a, wrapped; v = clip(v + u + bias)."""
        top = self.max_uv_val
        np.left_shift(sums, self.act_shift, out=self.u)
        if self.u.max() > top or self.u.min() <= -top:
            current = self.u.copy()
            np.subtract(self.u, 2 * top, out=self.u, where=self.u > top)
            np.add(current, 2 * top, out=self.u, where=self.u <= -top)
        self.v += self.u
        self.v += self.effective_bias
        np.clip(self.v, 1 - top, top - 1, out=self.v)


FAST = {
    Conv: PyConvModelFast,
    Dense: PyDenseModelFast,
    Sparse: PySparseModelFast,
    LIFReset: PyLifResetModelFast,
}
"""Which model a run with fast kernels takes for which process."""
