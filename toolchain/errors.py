"""What can go wrong, as facts: attributes carry them, and the one sentence a user reads is derived from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class ToolchainError(Exception):
    """Base of every error a user can cause or meet; `exit_code` is what the command line returns."""

    exit_code: ClassVar[int] = 2


@dataclass(kw_only=True, eq=False)
class ConfigError(ToolchainError):
    """A profile, recipe or setting is wrong; every fault found is listed, each with its path.

    `faults` are sentences such as `core.neurons: expected an integer, got '1k'`.
    """

    where: str
    faults: tuple[str, ...]

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return f"{self.where}: {self.faults[0]}"
        return "\n  ".join([f"{self.where}: {len(self.faults)} faults", *self.faults])


@dataclass(kw_only=True, eq=False)
class FormatError(ToolchainError):
    """A file cannot be read as what it should be, or cannot be written."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(kw_only=True, eq=False)
class UnsupportedError(ToolchainError):
    """Something is well formed but cannot be deployed."""

    where: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" + (f". {self.remedy}" if self.remedy else "")


@dataclass(kw_only=True, eq=False)
class RangeError(ToolchainError):
    """A number leaves the range the hardware computes in."""

    exit_code: ClassVar[int] = 1
    where: str
    quantity: str
    used: int
    limit: int
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.quantity} {self.used:,} of {self.limit:,}. {self.remedy}"


@dataclass(kw_only=True, eq=False)
class CapacityError(ToolchainError):
    """A network does not fit: which layer, on which core, exceeds which limit by how much, and what would help.

    `core` is None where the limit is the whole chip's or no core at all could take the layer.
    """

    exit_code: ClassVar[int] = 1
    layer: str
    core: int | None
    profile: str
    resource: str
    unit: str
    used: int
    limit: int
    remedy: str

    def __str__(self) -> str:
        place = self.layer if self.core is None else f"{self.layer} on core {self.core}"
        return f"{place} of {self.profile}: {self.resource} {self.used:,} {self.unit} of {self.limit:,}. {self.remedy}"


@dataclass(kw_only=True, eq=False)
class MismatchError(ToolchainError):
    """Two computations that must agree do not."""

    exit_code: ClassVar[int] = 1
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(kw_only=True, eq=False)
class BackendError(ToolchainError):
    """Lava is missing, failed, or did not finish in time."""

    backend: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}" + (f". {self.remedy}" if self.remedy else "")
