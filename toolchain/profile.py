"""A hardware profile: the limits, precision, memory formulas, energies and times of a chip, each number with its source.

A profile is a TOML file of sections. A number is a table `{ value, unit, status, source }`: the unit is the one the key
asks for, the status says how the number is known, and the source names an entry of `[sources]`, optionally followed by
a comma and the place in it. What nobody published has the status `unknown` and no value; it stays n/a in every report.
"""

from __future__ import annotations

import difflib
import hashlib
import sys
import typing
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from toolchain import resources
from toolchain.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

V = TypeVar("V")

STATUSES = ("measured", "simulated", "vendor", "constant", "fitted", "assumed", "unknown")


@dataclass(frozen=True, slots=True)
class Quantity(Generic[V]):
    """A number, its unit, how it is known (one of `STATUSES`) and where it is published.

    value is None exactly where the status is `unknown`; only keys whose type allows None may be unknown.
    """

    value: V
    unit: str
    status: str
    source: str


Count = Quantity[int]
Maybe = Quantity[float | None]


def _is(doc: str, unit: str, *, low: float = 0, high: float | None = None) -> dict[str, Any]:
    """What a field holds: a quantity in `unit` ("a|b" allows either), between low and high."""
    return {"doc": doc, "units": tuple(unit.split("|")), "low": low, "high": high}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipLimits:
    """[chip]."""

    cores: Count = field(metadata=_is("cores of a chip", "cores", low=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreLimits:
    """[core], the limits of one core; an absent one does not exist on this chip."""

    neurons: Count = field(metadata=_is("neurons", "neurons", low=1))
    synapse_words: Count = field(metadata=_is("words of synapses", "words", low=1))
    axons_in: Count = field(metadata=_is("input axons", "axons|words", low=1))
    axons_out: Count | None = field(default=None, metadata=_is("output axon slots", "slots", low=1))
    axon_map_words: Count | None = field(default=None, metadata=_is("words of the axon map", "words", low=1))
    axon_mem_words: Count | None = field(default=None, metadata=_is("words of the axon memory", "words", low=1))
    total_words: Count | None = field(default=None, metadata=_is("words of everything together", "words", low=1))
    list_words: Count | None = field(
        default=None, metadata=_is("words of one source axon's synapse list", "words", low=1)
    )
    groups: Count | None = field(default=None, metadata=_is("distinct thresholds", "groups", low=1))
    max_fill: Quantity[float] = field(
        metadata=_is("share of neurons and memory that may be planned for", "1", low=0.01, high=1)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """[precision]."""

    weight_bits: Count = field(metadata=_is("widest weight, sign included", "bits", low=1, high=8))
    weight_widths: Quantity[tuple[int, ...]] | None = field(
        default=None, metadata=_is("widths a weight can be stored in; absent: every one", "bits", low=1, high=8)
    )
    theta_max: Count = field(metadata=_is("greatest threshold", "weight units", low=1))
    bias_max: Count = field(metadata=_is("greatest |bias|", "weight units", low=1))
    state_bits: Count = field(metadata=_is("width of the synaptic sum, u and v, sign included", "bits", low=1, high=64))
    message_bits: Count = field(
        metadata=_is("widest message; 1: spikes only, no graded messages", "bits", low=1, high=64)
    )

    @property
    def graded(self) -> bool:
        """Whether a message can carry a number."""
        return self.message_bits.value > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ListMemory:
    """[memory] with formula = "lists": a core stores lists of synapses, see docs/hardware.md."""

    word_bits: Count = field(metadata=_is("bits of a word", "bits", low=1))
    entry_bits: Count = field(metadata=_is("header of an entry of a list", "bits"))
    entry_synapses: Count = field(metadata=_is("synapses an entry holds at most", "synapses", low=1))
    index_bits_min: Count = field(metadata=_is("least width of a target index in a sparse list", "bits"))
    spill_bits: Count = field(
        metadata=_is("bits in the last word from which, or at 0, a list takes one more word", "bits")
    )
    slots_discrete: Count = field(metadata=_is("output slots of an axon to one list", "slots", low=1))
    slots_shared: Count = field(metadata=_is("output slots of an axon to a shared kernel", "slots", low=1))
    slots_remote: Count = field(metadata=_is("output slots more for an axon to another chip", "slots"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetMemory:
    """[memory] with formula = "budget": a core's tables share one memory, see docs/hardware.md."""

    word_bits: Count = field(metadata=_is("bits of a word", "bits", low=1))
    shared_header_bits: Count = field(metadata=_is("header of a kernel row", "bits"))
    shared_axon_words: Count = field(metadata=_is("input axon words of a convolution's tile", "words"))
    synapse_bits: Count = field(metadata=_is("bits a listed synapse takes beyond its weight", "bits"))
    entry_bits: Count = field(metadata=_is("header of an entry of a list", "bits"))
    entry_synapses: Count = field(metadata=_is("synapses an entry holds at most", "synapses", low=1))
    list_axon_words: Count = field(metadata=_is("input axon words of a listed source", "words"))
    axon_map_per_neuron: Quantity[float] = field(
        metadata=_is("words of axon map a neuron that feeds a convolution takes", "words")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """[energy]."""

    synapse_pj: Maybe = field(metadata=_is("a synaptic operation", "pJ"))
    update_active_pj: Maybe = field(metadata=_is("an update of a neuron that has input", "pJ"))
    update_inactive_pj: Maybe = field(metadata=_is("an update of a neuron without input", "pJ"))
    spike_pj: Maybe = field(metadata=_is("a spike inside its tile of cores", "pJ"))
    hop_ew_pj: Maybe = field(metadata=_is("a spike's hop east or west between tiles", "pJ"))
    hop_ns_pj: Maybe = field(metadata=_is("a spike's hop north or south between tiles", "pJ"))
    static_w: Maybe = field(metadata=_is("static power of a chip", "W"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """[time]."""

    synapse_ns: Maybe = field(metadata=_is("a synaptic operation", "ns"))
    update_active_ns: Maybe = field(metadata=_is("an update of a neuron that has input", "ns"))
    update_inactive_ns: Maybe = field(metadata=_is("an update of a neuron without input", "ns"))
    barrier_ns: Maybe = field(metadata=_is("the barrier that ends a step, at its shortest", "ns"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareProfile:
    """A chip as data.

    Attributes: sha256, of the file; sources, short name -> citation, which every quantity's source already spells out.
    """

    name: str
    description: str
    sha256: str
    sources: dict[str, str]
    chip: ChipLimits
    core: CoreLimits
    precision: Precision
    memory: ListMemory | BudgetMemory
    energy: Energy
    time: Times


_SECTIONS = {"chip": ChipLimits, "core": CoreLimits, "precision": Precision, "energy": Energy, "time": Times}
_FORMULAS = {"lists": ListMemory, "budget": BudgetMemory}


def load(name: str | Path) -> HardwareProfile:
    """Return the profile of a TOML file, or of a shipped profile's name. Raises ConfigError, which lists every fault."""
    path = resources.profile_path(name)
    try:
        content = path.read_bytes()
        table = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(where=str(path), faults=(f"not TOML: {error}",)) from None
    except OSError as error:
        raise ConfigError(where=str(path), faults=(f"cannot be read: {error.strerror}",)) from None
    return from_dict(table, where=str(path), sha256=hashlib.sha256(content).hexdigest())


def from_dict(table: dict[str, Any], *, where: str = "profile", sha256: str = "") -> HardwareProfile:
    """Return the profile of nested plain types. Raises ConfigError, which lists every fault."""
    faults: list[str] = []
    known = ["name", "description", "sources", "memory", *_SECTIONS]
    faults += [f"{key}: unknown section{_near(key, known)}" for key in table if key not in known]
    sources = _sources(table.get("sources", {}), faults)
    parts: dict[str, Any] = {key: _text(table, key, faults) for key in ("name", "description")}
    for section, kind in _SECTIONS.items():
        parts[section] = _section(kind, table, section, sources, faults)
    parts["memory"] = _memory(table, sources, faults)
    if faults:
        raise ConfigError(where=where, faults=tuple(faults))
    return HardwareProfile(**parts, sha256=sha256, sources=sources)


def quantities(profile: HardwareProfile) -> tuple[tuple[str, Quantity[Any], str], ...]:
    """Return (path such as `core.neurons`, quantity, what it is) of every number a profile has, in its order."""
    parts = {
        section: getattr(profile, section) for section in ("chip", "core", "precision", "memory", "energy", "time")
    }
    return tuple(
        (f"{section}.{entry.name}", quantity, entry.metadata["doc"])
        for section, part in parts.items()
        for entry in fields(part)
        if (quantity := getattr(part, entry.name)) is not None
    )


def to_dict(profile: HardwareProfile) -> dict[str, Any]:
    """The profile as plain types that JSON can hold: a flat table of its quantities by path."""
    return {
        "name": profile.name,
        "description": profile.description,
        "sha256": profile.sha256,
        "quantities": {
            path: {
                "value": quantity.value,
                "unit": quantity.unit,
                "status": quantity.status,
                "source": quantity.source,
                "what": what,
            }
            for path, quantity, what in quantities(profile)
        },
    }


def render(profile: HardwareProfile) -> None:
    """The profile is on the terminal as a table: every number with its unit, how it is known, what it is, its source."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    cited = {quantity.source: None for _, quantity, _ in quantities(profile)}
    numbers = {source: index for index, source in enumerate(cited, start=1)}
    table = Table("key", "value", "unit", "known", "what it is (source)", title=profile.name, box=SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for path, quantity, what in quantities(profile):
        table.add_row(
            path, _shown(quantity.value), quantity.unit, quantity.status, f"{what} ({numbers[quantity.source]})"
        )
    console = Console()
    console.print(profile.description, markup=False)
    console.print(table)
    for source, index in numbers.items():
        console.print(f"({index}) {source}", markup=False, highlight=False, soft_wrap=True)


def _shown(value: float | tuple[int, ...] | None) -> str:
    if value is None:
        return "n/a"
    return " ".join(map(str, value)) if isinstance(value, tuple) else f"{value:,}"


def _near(key: str, known: list[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def _text(table: dict[str, Any], key: str, faults: list[str]) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        faults.append(f"{key}: expected a text, got {value!r}" if key in table else f"{key}: missing")
        return ""
    return value


def _sources(table: Any, faults: list[str]) -> dict[str, str]:
    if not isinstance(table, dict):
        faults.append(f"sources: expected a section, got {table!r}")
        return {}
    faults += [f"sources.{k}: expected a text, got {v!r}" for k, v in table.items() if not isinstance(v, str) or not v]
    return {key: str(value) for key, value in table.items()}


def _memory(table: dict[str, Any], sources: dict[str, str], faults: list[str]) -> Any:
    """An instance of the dataclass that `memory.formula` names."""
    section = table.get("memory")
    if not isinstance(section, dict):
        faults.append("memory: missing" if section is None else f"memory: expected a section, got {section!r}")
        return None
    formula = section.get("formula")
    if not isinstance(formula, str) or formula not in _FORMULAS:
        faults.append(f"memory.formula: expected one of {', '.join(_FORMULAS)}, got {formula!r}")
        return None
    rest = {key: value for key, value in section.items() if key != "formula"}
    return _section(_FORMULAS[formula], {"memory": rest}, "memory", sources, faults)


def _section(kind: Any, table: dict[str, Any], name: str, sources: dict[str, str], faults: list[str]) -> Any:
    """An instance of the dataclass `kind`, or None with faults appended."""
    section = table.get(name)
    if not isinstance(section, dict):
        faults.append(f"{name}: missing" if section is None else f"{name}: expected a section, got {section!r}")
        return None
    entries = {entry.name: entry for entry in fields(kind)}
    meant = set()
    for key in section:
        if key not in entries:
            faults.append(f"{name}.{key}: unknown key{_near(key, list(entries), f'{name}.')}")
            meant.update(difflib.get_close_matches(key, entries, n=1))
    hints = typing.get_type_hints(kind)
    values = {}
    for key, entry in entries.items():
        if key in section:
            values[key], found = _quantity(entry, hints[key], section[key], sources)
            faults += [f"{name}.{key}: {fault}" for fault in found]
        elif entry.default is MISSING and key not in meant:
            faults.append(f"{name}.{key}: missing")
    complete = all(key in values or entry.default is not MISSING for key, entry in entries.items())
    return kind(**values) if complete else None


def _quantity(
    entry: Field[Any], hint: Any, raw: Any, sources: dict[str, str]
) -> tuple[Quantity[Any] | None, list[str]]:
    """The quantity a table describes, and its faults."""
    if not isinstance(raw, dict):
        return None, [f"expected {{ value, unit, status, source }}, got {raw!r}"]
    allowed = ["value", "unit", "status", "source"]
    faults = [f"unknown key {key}{_near(key, allowed)}" for key in raw if key not in allowed]
    faults += _value_faults(_form(hint), entry.metadata, raw)
    faults += _unit_faults(entry.metadata["units"], raw)
    status = raw.get("status")
    if status is None:
        faults.append("missing status")
    elif status not in STATUSES:
        faults.append(f"status: expected one of {', '.join(STATUSES)}, got {status!r}{_near(str(status), [*STATUSES])}")
    source, fault = _cited(raw, sources)
    faults += [fault] if fault else []
    value = raw.get("value")
    value = tuple(value) if isinstance(value, list) else value
    return Quantity(value, str(raw.get("unit")), str(status), source), faults


Form = Literal["integer", "integers", "number", "number or unknown"]


def _form(hint: Any) -> Form:
    """What the type of a field, such as `Quantity[int] | None`, asks a value to be."""
    bare = next((option for option in typing.get_args(hint) if typing.get_origin(option) is Quantity), hint)
    (inner,) = typing.get_args(bare)
    if inner is int:
        return "integer"
    if inner is float:
        return "number"
    return "integers" if typing.get_origin(inner) is tuple else "number or unknown"


def _unit_faults(units: tuple[str, ...], raw: dict[str, Any]) -> list[str]:
    expected = " or ".join(f'"{unit}"' for unit in units)
    if "unit" not in raw:
        return [f"missing unit (expected {expected})"]
    return [] if raw["unit"] in units else [f"unit: expected {expected}, got {raw['unit']!r}"]


def _value_faults(form: Form, limits: Any, raw: dict[str, Any]) -> list[str]:
    if raw.get("status") == "unknown":
        if form != "number or unknown":
            return ["cannot be unknown: a network could not be placed or checked without it"]
        return ["an unknown number has no value"] if "value" in raw else []
    if "value" not in raw:
        return ['missing value (what nobody knows has status = "unknown")']
    value = raw["value"]
    if form == "integers":
        if not isinstance(value, list) or not value:
            return [f"expected a list of integers, got {value!r}"]
        return [fault for item in value for fault in _number_faults(item, limits, whole=True)]
    return _number_faults(value, limits, whole=form == "integer")


def _number_faults(value: Any, limits: Any, *, whole: bool) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return [f"expected {'an integer' if whole else 'a number'}, got {value!r}"]
    low, high = limits["low"], limits["high"]
    if not value >= low or value == float("inf") or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"{low} to {high}"
        return [f"expected {bounds}, got {value}"]
    return []


def _cited(raw: dict[str, Any], sources: dict[str, str]) -> tuple[str, str]:
    """The citation in full, and a fault or nothing."""
    source = raw.get("source")
    if not isinstance(source, str) or not source:
        return "", "missing source" if source is None else f"source: expected a text, got {source!r}"
    key, comma, place = source.partition(",")
    if key not in sources:
        return "", f"source: [sources] has no {key!r}{_near(key, list(sources))}"
    return sources[key] + comma + place, ""
