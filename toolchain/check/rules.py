"""The rules: functions whose docstrings are their documentation, each yielding one `Finding` per place it looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.check.measure import known, misplaced
from toolchain.check.remedies import fewer_sources, smaller
from toolchain.ir import Readout
from toolchain.profile import BudgetMemory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from toolchain.check.lists import Wired
    from toolchain.check.measure import Facts, Seen
    from toolchain.placement import Core

STATE_BITS = 24
"""What the network's semantics (see `ir`) are proven for."""
_PLACE = "Place the network again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule saw in one place; `core` is None where it looked at a layer, a chip or the network.

    remedy is empty where the limit is kept.
    """

    rule: str
    resource: str
    layer: str
    core: int | None
    used: int
    limit: int
    unit: str
    remedy: str = ""

    @property
    def exceeded(self) -> bool:
        """Whether the limit is violated."""
        return self.used > self.limit


def r01_neurons(facts: Facts) -> Iterator[Finding]:
    """R01 neurons: a core holds at most `core.neurons` neurons times `core.max_fill`; readout neurons count."""
    cap = facts.cap(facts.profile.core.neurons)
    for on in facts.cores.values():
        yield _core("R01", "neurons", on, [seen.core.n_neurons for seen in on], limit=cap, unit="neurons")


def r02_synaptic_memory(facts: Facts) -> Iterator[Finding]:
    """R02 synaptic memory: a core's synapses take at most `core.synapse_words` times `core.max_fill`."""
    cap = facts.cap(facts.profile.core.synapse_words)
    for on in facts.cores.values():
        words = [seen.synapse_words for seen in on]
        remedy = smaller(facts.profile, on, cap) if sum(words) > cap else ""
        yield _core("R02", "synaptic memory", on, words, limit=cap, unit="words", remedy=remedy)


def r03_total_memory(facts: Facts) -> Iterator[Finding]:
    """R03 total memory: axons, groups, neurons, synapses and axon map of a core together keep to `core.total_words`."""
    limit = facts.profile.core.total_words
    if limit is None:
        return
    whole = isinstance(facts.profile.memory, BudgetMemory)
    for on in facts.cores.values():
        used = [seen.total_words if whole else seen.synapse_words for seen in on]
        yield _core("R03", "total memory", on, used, limit=facts.cap(limit), unit="words")


def r04_input_axons(facts: Facts) -> Iterator[Finding]:
    """R04 input axons: a core listens to at most `core.axons_in`; where that is in words, times `core.max_fill`."""
    limit = facts.profile.core.axons_in
    cap = facts.cap(limit, fill=limit.unit == "words")
    for on in facts.cores.values():
        used = [seen.axons_in for seen in on]
        remedy = fewer_sources(on, cap) if sum(used) > cap else ""
        yield _core("R04", "input axons", on, used, limit=cap, unit=limit.unit, remedy=remedy)


def r05_output_axons(facts: Facts) -> Iterator[Finding]:
    """R05 output axons: the axons that leave a core take at most `core.axons_out` slots, more where they leave its chip."""
    limit = facts.profile.core.axons_out
    if limit is None:
        return
    for on in facts.cores.values():
        used = [seen.axons_out for seen in on]
        yield _core("R05", "output axons", on, used, limit=limit.value, unit="slots")


def r06_axon_map(facts: Facts) -> Iterator[Finding]:
    """R06 axon map: a core's axon map takes at most `core.axon_map_words` times `core.max_fill`."""
    limit = facts.profile.core.axon_map_words
    if limit is None:
        return
    for on in facts.cores.values():
        used = [seen.axon_map_words for seen in on]
        yield _core("R06", "axon map", on, used, limit=facts.cap(limit), unit="words")


def r07_synapse_list(facts: Facts) -> Iterator[Finding]:
    """R07 synapse list: no source axon's list on a core is longer than `core.list_words`."""
    limit = facts.profile.core.list_words
    if limit is None:
        return
    for on in facts.cores.values():
        longest = [max(seen.list_words for seen in on)]
        yield _core("R07", "synapse list", on, longest, limit=limit.value, unit="words")


def r08_thresholds(facts: Facts) -> Iterator[Finding]:
    """R08 distinct thresholds: the shares of a core have at most `core.groups` different thresholds, each counted by itself."""
    limit = facts.profile.core.groups
    if limit is None:
        return
    for on in facts.cores.values():
        used = [seen.groups for seen in on]
        remedy = "Export with one threshold a layer."
        yield _core("R08", "distinct thresholds", on, used, limit=limit.value, unit="groups", remedy=remedy)


def r09_cores(facts: Facts) -> Iterator[Finding]:
    """R09 cores: a chip has `chip.cores` cores, a core lies on one chip and holds at most `core.layers` shares of layers."""
    limit = facts.profile.chip.cores.value
    chips: dict[int, set[int]] = {}
    shares: dict[int, list[Core]] = {}
    for core in facts.mapping.cores:
        chips.setdefault(core.chip, set()).add(core.index)
        shares.setdefault(core.index, []).append(core)
    needed = -(-len(shares) // limit) - len(chips)
    for chip, cores in sorted(chips.items()):
        remedy = f"Use {needed} chip{'s' if needed > 1 else ''} more." if needed > 0 else "Place the network again."
        yield Finding(
            rule="R09",
            resource="cores",
            layer=f"chip {chip}",
            core=None,
            used=len(cores),
            limit=limit,
            unit="cores",
            remedy=remedy if len(cores) > limit else "",
        )
    most = facts.profile.core.layers
    for index, found in shares.items():
        bounds = [(len({core.chip for core in found}), 1, "chips")]
        if most:
            bounds.append((len(found), most.value, "shares"))
        for used, bound, unit in bounds:
            if used > bound:
                yield Finding(
                    rule="R09",
                    resource="shares of a layer" if unit == "shares" else "chips of a core",
                    layer="network",
                    core=index,
                    used=used,
                    limit=bound,
                    unit=unit,
                    remedy=_PLACE,
                )


def r10_weight_bits(facts: Facts) -> Iterator[Finding]:
    """R10 weight bits: no weight is wider than `precision.weight_bits`."""
    limit = facts.profile.precision.weight_bits.value
    for wired in facts.wired.values():
        yield _layer(
            "R10",
            "weight",
            wired,
            used=0 if wired.driven else wired.layer.weight_bits,
            limit=limit,
            unit="bits",
            remedy=f"Use --weight-bits {limit}.",
        )


def r11_threshold(facts: Facts) -> Iterator[Finding]:
    """R11 threshold: no neuron's theta is greater than `precision.theta_max`."""
    limit = facts.profile.precision.theta_max.value
    for wired in facts.wired.values():
        if not isinstance(wired.layer, Readout):
            used = int(wired.layer.neuron.theta.max())
            yield _layer("R11", "threshold", wired, used=used, limit=limit, unit="weight units", remedy=_again(facts))


def r12_bias(facts: Facts) -> Iterator[Finding]:
    """R12 bias: no neuron's |bias| is greater than `precision.bias_max`, nor any that the host sets for an image."""
    limit, coding = facts.profile.precision.bias_max.value, facts.network.input.bias
    for wired in facts.wired.values():
        bias = wired.layer.bias if isinstance(wired.layer, Readout) else wired.layer.neuron.bias
        used = coding.limit if wired.driven and coding else int(np.abs(bias).max())
        yield _layer("R12", "bias", wired, used=used, limit=limit, unit="weight units", remedy=_again(facts))


def r13_messages(facts: Facts) -> Iterator[Finding]:
    """R13 messages: input messages fit `precision.message_bits`; at 1 bit a chip sends spikes only, and takes biases."""
    limit = facts.profile.precision.message_bits
    used = 0 if facts.network.input.bias else facts.network.input.bits
    name = facts.profile.name
    remedy = f"{name} sends messages of {limit.value} bits."
    if limit.value == 1:
        remedy = f"{name} sends spikes, not numbers; export the model for {name}, so that its input is coded as biases."
    yield Finding(
        rule="R13",
        resource="graded input messages",
        layer="input",
        core=None,
        used=used,
        limit=limit.value,
        unit="bits",
        remedy=remedy if used > limit.value else "",
    )


def r14_state(facts: Facts) -> Iterator[Finding]:
    """R14 state: sums, u and v, which the network computes in 24 bits, fit `precision.state_bits`."""
    limit = facts.profile.precision.state_bits.value
    yield Finding(
        rule="R14",
        resource="neuron state",
        layer="network",
        core=None,
        used=STATE_BITS,
        limit=limit,
        unit="bits",
        remedy="This version computes in 24 bits only." if limit < STATE_BITS else "",
    )


def r15_placement(facts: Facts) -> Iterator[Finding]:
    """R15 placement: every neuron of every layer sits on exactly one core, and no core holds anything else."""
    for name, wired in facts.wired.items():
        cores = [core for core in facts.mapping.cores if core.layer == name]
        yield _layer(
            "R15",
            "neurons not placed once",
            wired,
            used=misplaced(wired.shape, cores),
            limit=0,
            unit="neurons",
            remedy=_PLACE,
        )
    strangers = sum(core.layer not in facts.wired for core in facts.mapping.cores)
    yield Finding(
        rule="R15",
        resource="cores of unknown layers",
        layer="network",
        core=None,
        used=strangers,
        limit=0,
        unit="cores",
        remedy=_PLACE if strangers else "",
    )


def r16_formats(facts: Facts) -> Iterator[Finding]:
    """R16 formats: a convolution is stored as shared or in lists, a dense layer in lists, one that the host drives as bias."""
    for wired in facts.wired.values():
        yield _layer(
            "R16",
            "unknown format",
            wired,
            used=int(not known(wired, facts.profile)),
            limit=0,
            unit="formats",
            remedy=_PLACE,
        )


def r17_figures(facts: Facts) -> Iterator[Finding]:
    """R17 figures: the words, axons and groups a mapping states for a core are what its neurons really need."""
    names = ("axons_in", "axons_out", "groups", "synapse_words", "axon_map_words")
    for seen in facts.seen:
        stated = {name: getattr(seen.core, name) for name in names} | {"axon_mem_words": seen.core.axon_mem_words}
        needed = {name: getattr(seen, name) for name in names} | {"axon_mem_words": 0}
        for name, need in needed.items():
            off = abs(stated[name] - need)
            remedy = f"The mapping states {stated[name]:,}, the network needs {need:,}. {_PLACE}"
            yield _core("R17", f"misstated {name}", [seen], [off], limit=0, unit="units", remedy=remedy)


CORE_RULES = (
    r01_neurons,
    r02_synaptic_memory,
    r03_total_memory,
    r04_input_axons,
    r05_output_axons,
    r06_axon_map,
    r07_synapse_list,
    r08_thresholds,
)
"""What a single core has only so much of: each yields one finding per core."""
RULES = (
    *CORE_RULES,
    r09_cores,
    r10_weight_bits,
    r11_threshold,
    r12_bias,
    r13_messages,
    r14_state,
    r15_placement,
    r16_formats,
    r17_figures,
)


def _core(
    rule: str, resource: str, on: Sequence[Seen], spent: list[int], *, limit: int, unit: str, remedy: str = ""
) -> Finding:
    """What the shares of a core spend together."""
    name, used = " + ".join(dict.fromkeys(seen.core.layer for seen in on)), sum(spent)
    if used > limit and not remedy:
        share = f"at least {-(-used // limit)} cores" if limit else "other cores"
        part = "this part of " if len(on) == 1 else ""
        remedy = f"Cut {part}{name} into {share}, or use a profile with larger cores."
    return Finding(
        rule=rule,
        resource=resource,
        layer=name,
        core=on[0].core.index,
        used=used,
        limit=limit,
        unit=unit,
        remedy=remedy if used > limit else "",
    )


def _layer(rule: str, resource: str, wired: Wired, *, used: int, limit: int, unit: str, remedy: str) -> Finding:
    return Finding(
        rule=rule,
        resource=resource,
        layer=wired.layer.name,
        core=None,
        used=used,
        limit=limit,
        unit=unit,
        remedy=remedy if used > limit else "",
    )


def _again(facts: Facts) -> str:
    return f"Export again for {facts.profile.name}: the scales are searched within its limits."
