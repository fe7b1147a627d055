"""Neurons of other libraries, recognised by class and attributes, as our integrate-and-fire or refused with the difference.

No library is imported. What the attributes say is put to the test: each neuron is run for some steps, and one that does not
spike as ours does is refused too, so that a version of a library with other semantics is not taken for this one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.errors import UnsupportedError
from toolchain.spiking import IF

STRICTLY = 1 + 2**-18
"""Makes v >= v_th * STRICTLY of v > v_th: more than the noise that quantization forgives a threshold, less than it can hold."""
_STEPS, _NEURONS = 24, 64

_OTHERS = {
    "LIFNode": "its membrane leaks",
    "ParametricLIFNode": "its membrane leaks",
    "KLIFNode": "its membrane leaks",
    "QIFNode": "its membrane is quadratic",
    "EIFNode": "its membrane is exponential",
    "IzhikevichNode": "it has a recovery variable",
    "Lapicque": "its membrane leaks",
    "Synaptic": "its synapses and its membrane leak",
    "Alpha": "its synapses and its membrane leak",
    "RLeaky": "it is recurrent",
    "RSynaptic": "it is recurrent",
    "SLSTM": "it is recurrent",
    "SConv2dLSTM": "it is recurrent",
    "LIFCell": "its synapses and its membrane leak",
    "LIF": "its synapses and its membrane leak",
    "LIFBoxCell": "its membrane leaks",
}
_IF = "only integrate-and-fire neurons with a hard reset to 0 can be deployed"


def is_neuron(module: nn.Module) -> bool:
    """Whether a module is a layer of neurons, ours or one known by name."""
    return isinstance(module, IF) or type(module).__name__ in {"IFNode", "Leaky", *_OTHERS}


def adopted(path: str, module: nn.Module, timesteps: int) -> IF:
    """Return our neurons in the place of a layer's. Raises UnsupportedError, with the difference where they would not do the same."""
    name = type(module).__name__
    if isinstance(module, IF):
        v_th = _own(path, module)
    elif name == "IFNode":
        v_th = _spikingjelly(path, module)
    elif name == "Leaky":
        v_th = _snntorch(path, module)
    else:
        raise UnsupportedError(where=path, reason=f"{name}: {_OTHERS[name]}; {_IF}")
    made = IF(v_th=v_th, timesteps=timesteps, leak=module.leak if isinstance(module, IF) else 0.0)
    made.mode = "snn"
    if not isinstance(module, IF):
        _compare(path, module, made)
    return made


def _own(path: str, module: IF) -> float:
    if module.mode == "ann":
        remedy = "Turn the module into a spiking one first: spiking.configure(module, mode='snn', timesteps=T)"
        raise UnsupportedError(where=path, reason="its neurons are ReLUs, for their mode is ann", remedy=remedy)
    return module.v_th.item()


def _spikingjelly(path: str, module: Any) -> float:
    """Equation: v += x; spike iff v >= v_threshold; then v = v_reset, or v -= v_threshold where that is None."""
    if module.v_reset is None:
        raise _differs(path, module, "v_reset is None, a soft reset")
    if module.v_reset != 0:
        raise _differs(path, module, f"v_reset is {module.v_reset:g}")
    return _scalar(path, module, "v_threshold")


def _snntorch(path: str, module: Any) -> float:
    """Equation: v = beta v + x; spike iff v > threshold; then v = 0, or as reset_mechanism says."""
    reset, beta = module.reset_mechanism, _scalar(path, module, "beta")
    if reset != "zero":
        raise _differs(
            path, module, f"reset_mechanism is {reset!r}" + (", a soft reset" if reset == "subtract" else "")
        )
    if beta < 1:
        raise _differs(path, module, f"beta is {beta:g}, a leak")
    for name in ("inhibition", "state_quant"):
        if getattr(module, name, False):
            raise _differs(path, module, f"{name} is set")
    if (factor := float(getattr(module, "graded_spikes_factor", 1.0))) != 1:
        raise _differs(path, module, f"graded_spikes_factor is {factor:g}")
    return _scalar(path, module, "threshold") * STRICTLY


def _scalar(path: str, module: Any, name: str) -> float:
    values = torch.as_tensor(getattr(module, name)).detach().double().reshape(-1)
    if not len(values) or bool((values != values[0]).any()):
        raise _differs(path, module, f"{name} differs among its neurons")
    return float(values[0])


def _compare(path: str, module: nn.Module, ours: IF) -> None:
    """Refuse neurons that, whatever their attributes say, do not spike as ours on a drive that makes both spike and fall silent."""
    generator = torch.Generator().manual_seed(0)
    drive = (torch.rand(_STEPS, _NEURONS, generator=generator) - 0.3) * 1.5
    drive[:, ::2] = (drive[:, ::2] * 4).round() / 4  # half of the neurons reach their threshold exactly
    drive *= ours.v_th.item()
    probe = copy.deepcopy(ours)
    probe.timesteps = _STEPS
    with torch.no_grad():
        expected = probe(drive).reshape(_STEPS, _NEURONS) > 0
        try:
            spikes = _run(copy.deepcopy(module).cpu().float().eval(), drive) > 0
        except Exception as error:  # noqa: BLE001  another library's module can raise anything
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise _differs(
                path, module, f"it does not run on a drive of shape {tuple(drive[0].shape)} ({what})"
            ) from None
    if not torch.equal(spikes, expected):
        step = int((spikes != expected).any(dim=1).int().argmax()) + 1
        raise _differs(path, module, f"on a test drive it spikes differently at step {step}")


def _run(module: Any, drive: Tensor) -> Tensor:
    """Return the spikes of another library's neurons. Shapes: (T, n) -> the same."""
    if type(module).__name__ == "IFNode":
        module.reset()
        if module.step_mode == "m":
            return torch.as_tensor(module(drive))
        return torch.stack([module(x) for x in drive])
    spikes = []
    memory: Any = torch.zeros_like(drive[0])
    module.mem = memory.clone()
    for x in drive:
        out = module(x) if module.init_hidden else module(x, memory)
        spike, memory = out if isinstance(out, tuple) else (out, memory)
        spikes.append(spike)
    return torch.stack(spikes)


def _differs(path: str, module: nn.Module, difference: str) -> UnsupportedError:
    return UnsupportedError(where=path, reason=f"{type(module).__name__}: {difference}; {_IF}")
