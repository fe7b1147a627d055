"""NIR, the neuromorphic intermediate representation: its graphs become networks of ours, and ours its graphs.

NIR's neurons are equations in continuous time. With a step of dt seconds (forward Euler, as the libraries read them)::

    IF   v += r dt x                          LIF   v = (1 - dt/tau) v + (r dt/tau) x
    spike iff v > v_threshold;  then v = 0

A graph does not say its dt. An integrator whose r is 1, and a LIF neuron whose tau and r are both infinite (snnTorch's without
leak), take x as it is whatever the step; all others ask for it. Spikes are strictly above a threshold there and at it here,
so that ours are the next float32.
Source: nir 1.0.8; the exporters and importers of snnTorch 1.0.0, Norse 1.1.0, SpikingJelly 2.0.0.
"""

from __future__ import annotations

from toolchain.nirfile.read import Read, read
from toolchain.nirfile.write import write

__all__ = ["Read", "read", "write"]
