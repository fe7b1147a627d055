"""Every limit of a profile, recomputed from the network and the placements alone.

Nothing the mapping computed is trusted: its words and axons are figures to be compared (R17), not used. This package shares
no code with `mapping`, so that their agreement means something. `rules` documents each rule.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from toolchain.check import layered
from toolchain.check.measure import measure
from toolchain.check.rules import CORE_RULES, RULES, Finding
from toolchain.errors import CapacityError

if TYPE_CHECKING:
    from toolchain.ir import Network
    from toolchain.placement import Mapping
    from toolchain.profile import HardwareProfile, LayerProfile

__all__ = ["RULES", "Finding", "Verdict", "check", "check_layers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `check` found: every violation, and for each rule and layer its fullest place.

    cores: what each core uses of each of its resources, by `CORE_RULES`; too long for `to_dict`.
    """

    profile: str
    violations: tuple[Finding, ...]
    usage: tuple[Finding, ...]
    cores: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain types that JSON can hold."""
        return {
            "profile": self.profile,
            "ok": not self.violations,
            "violations": [asdict(finding) for finding in self.violations],
            "usage": [asdict(finding) for finding in self.usage],
        }

    def errors(self) -> tuple[CapacityError, ...]:
        """The violations as errors, whose text is the sentence for a user."""
        return tuple(
            CapacityError(
                layer=finding.layer,
                core=finding.core,
                profile=self.profile,
                resource=finding.resource,
                unit=finding.unit,
                used=finding.used,
                limit=finding.limit,
                remedy=f"{finding.remedy} [{finding.rule}]",
            )
            for finding in self.violations
        )


def check(network: Network, mapping: Mapping, profile: HardwareProfile) -> Verdict:
    """Return every violation of the profile's limits by the network at its placements."""
    facts = measure(network, mapping, profile)
    violations: list[Finding] = []
    fullest: dict[tuple[str, str, str], Finding] = {}
    cores: list[Finding] = []
    for rule in RULES:
        for finding in rule(facts):
            if rule in CORE_RULES:
                cores.append(finding)
            if finding.exceeded:
                violations.append(finding)
            key = finding.rule, finding.layer, finding.resource
            if key not in fullest or finding.used > fullest[key].used:
                fullest[key] = finding
    return Verdict(
        profile=profile.name, violations=tuple(violations), usage=tuple(fullest.values()), cores=tuple(cores)
    )


def check_layers(network: Network, profile: LayerProfile) -> Verdict:
    """Return every violation by the network of a chip that runs a layer a core."""
    found = tuple(layered.findings(network, profile))
    return Verdict(profile=profile.name, violations=tuple(one for one in found if one.exceeded), usage=found)
