"""What a run costs: counted events times published coefficients, each figure with how it is known and its source.

Three models that must not be confused. `eq12` prices the additions of the trained network as the literature does; it is
arithmetic, not hardware. `lemaire` adds addressing and memory accesses of an ideal processor in 45 nm. `hardware` prices
the events of the deployed network by what the profile of a chip knows.
"""

from toolchain.energy.eq12 import eq12, psi
from toolchain.energy.figures import Figure, Run, events, figure, rates
from toolchain.energy.hardware import PROXY, hardware, priced_by
from toolchain.energy.lemaire import lemaire
from toolchain.energy.load import loads

__all__ = [
    "PROXY",
    "Figure",
    "Run",
    "eq12",
    "events",
    "figure",
    "hardware",
    "lemaire",
    "loads",
    "priced_by",
    "psi",
    "rates",
]
