"""A hardware profile: the limits, precision, memory formulas, energies and times of a chip, each number with its source.

A profile is a TOML file of sections. A number is a table `{ value, unit, status, source }`: the unit is the one the key
asks for, the status says how the number is known, and the source names an entry of `[sources]`, optionally followed by
a comma and the place in it. What nobody published has the status `unknown` and no value; it stays n/a in every report.
`extends = "loihi2"` takes everything the file does not say from another profile. docs/how-to-describe-a-chip.md shows how.
"""

from __future__ import annotations

from toolchain.profile.model import (
    STATUSES,
    Anchor,
    AnyProfile,
    ArithmeticProfile,
    BudgetMemory,
    ChipLimits,
    Coefficients,
    CoreLimits,
    Count,
    Energy,
    HardwareProfile,
    LayerCores,
    LayerProfile,
    ListMemory,
    Maybe,
    Operations,
    Precision,
    Quantity,
    Times,
)
from toolchain.profile.read import from_dict, load, read
from toolchain.profile.show import quantities, render, to_dict

__all__ = [
    "STATUSES",
    "Anchor",
    "AnyProfile",
    "ArithmeticProfile",
    "BudgetMemory",
    "ChipLimits",
    "Coefficients",
    "CoreLimits",
    "Count",
    "Energy",
    "HardwareProfile",
    "LayerCores",
    "LayerProfile",
    "ListMemory",
    "Maybe",
    "Operations",
    "Precision",
    "Quantity",
    "Times",
    "from_dict",
    "load",
    "quantities",
    "read",
    "render",
    "to_dict",
]
