"""What a network takes: as dense floats, as the stored file, on the chip once, and on the chip as often as tiles repeat it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.energy import figure
from toolchain.ir.parts import relay_name
from toolchain.profile import BudgetMemory, HardwareProfile

if TYPE_CHECKING:
    from toolchain import placement
    from toolchain.energy import Figure
    from toolchain.ir import Network
    from toolchain.profile import AnyProfile

_ONCE = "a shared kernel counted once for all tiles of the map"
_REPEATED = "a shared kernel counted in every core, its zeros too"


def memory(
    network: Network, mapping: placement.Mapping | None, profile: AnyProfile, *, stored_bytes: int | None = None
) -> dict[str, Any]:
    """Return the bytes of a network and the words of its cores; None, with the reason, where it is not placed.

    stored_bytes: of the exported file.
    """
    n_weights = sum(layer.weight.size for layer in network.chain)
    bits = sum(layer.weight.size * layer.weight_bits for layer in network.chain)
    stored = "size of network.net" if stored_bytes is not None else "not exported"
    return {
        "dense_fp32_bytes": figure(4 * n_weights, "bytes", "counted", "weights x 4 bytes, zeros included"),
        "dense_integer_bytes": figure(-(-bits // 8), "bytes", "counted", "weights x weight bits, zeros included"),
        "stored_bytes": figure(stored_bytes, "bytes", "counted", stored),
        **_on_chip(mapping, profile),
        "layers": [
            {
                "name": layer.name,
                "dense_fp32_bytes": figure(4 * layer.weight.size, "bytes", "counted", "weights x 4 bytes"),
                **_synapse_words(layer.name, mapping, profile),
            }
            for layer in network.chain
        ],
    }


def _on_chip(mapping: placement.Mapping | None, profile: AnyProfile) -> dict[str, Figure]:
    if mapping is None or not isinstance(profile, HardwareProfile):
        nothing = f"omitted: not placed on {profile.name}"
        units = {"unique_bytes": "bytes", "resident_bytes": "bytes", "resident_words": "words"}
        return {name: figure(None, unit, "modelled", nothing) for name, unit in units.items()}
    words, what = sum(core.synapse_words for core in mapping.cores), "synapse words"
    if isinstance(profile.memory, BudgetMemory):
        words += sum(
            core.axons_in + core.groups + core.n_neurons + core.axon_map_words + core.axon_mem_words
            for core in mapping.cores
        )
        what = "axon, group, neuron, synapse and axon map words"
    repeated = sum(_resident(name, mapping) - _unique(name, mapping) for name in mapping.formats)
    word = profile.memory.word_bits
    formula = f"{what} of all cores, by the memory formula of {profile.name}; words of {word.value} bits [{word.status}]: {word.source}"
    return {
        "unique_bytes": figure((words - repeated) * word.value / 8, "bytes", "modelled", f"{formula}; {_ONCE}"),
        "resident_bytes": figure(words * word.value / 8, "bytes", "modelled", f"{formula}; {_REPEATED}"),
        "resident_words": figure(words, "words", "modelled", f"{formula}; {_REPEATED}"),
    }


def _synapse_words(name: str, mapping: placement.Mapping | None, profile: AnyProfile) -> dict[str, Figure]:
    if mapping is None:
        nothing = f"omitted: not placed on {profile.name}"
        return {
            key: figure(None, "words", "modelled", nothing)
            for key in ("unique_synapse_words", "resident_synapse_words")
        }
    formula = f"synapse words by the memory formula of {profile.name}"
    names = [each for each in (name, relay_name(name)) if each in mapping.formats]
    unique, resident = (sum(count(each, mapping) for each in names) for count in (_unique, _resident))
    return {
        "unique_synapse_words": figure(unique, "words", "modelled", f"{formula}; {_ONCE}"),
        "resident_synapse_words": figure(resident, "words", "modelled", f"{formula}; {_REPEATED}"),
    }


def _resident(name: str, mapping: placement.Mapping) -> int:
    return sum(core.synapse_words for core in mapping.cores if core.layer == name)


def _unique(name: str, mapping: placement.Mapping) -> int:
    """Synapse words of a layer, each range of channels once where its tiles share a kernel; lists are never alike."""
    if mapping.formats[name] != "shared":
        return _resident(name, mapping)
    largest: dict[placement.Range, int] = {}
    for core in mapping.cores:
        if core.layer == name:
            largest[core.channels] = max(largest.get(core.channels, 0), core.synapse_words)
    return sum(largest.values())
