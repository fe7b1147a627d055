"""A profile from its TOML file: what it extends merged, every fault found at once, each with its path."""

from __future__ import annotations

import difflib
import hashlib
import sys
import typing
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any, Literal

from toolchain import resources
from toolchain.errors import ConfigError, UnsupportedError
from toolchain.profile.model import (
    STATUSES,
    Anchor,
    AnyProfile,
    ArithmeticProfile,
    BudgetMemory,
    ChipLimits,
    Coefficients,
    CoreLimits,
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

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

_SECTIONS = {"chip": ChipLimits, "core": CoreLimits, "precision": Precision, "time": Times}
_FORMULAS = {"lists": ListMemory, "budget": BudgetMemory}
_LIST_AXONS = ("discrete", "population")
_TEXTS = ("name", "description")


def load(name: str | Path) -> HardwareProfile:
    """Return the profile of a TOML file, or of a shipped profile's name.

    Raises ConfigError, which lists every fault, and UnsupportedError for a profile without cores to place a network on.
    """
    found = read(name)
    if isinstance(found, HardwareProfile):
        return found
    reason, remedy = "this profile has no cores", "Name a chip, such as loihi2"
    if isinstance(found, LayerProfile):
        reason, remedy = "this chip runs a layer a core; networks are not placed on it", "Only `check` knows its limits"
    raise UnsupportedError(where=found.name, reason=reason, remedy=remedy)


def read(name: str | Path) -> AnyProfile:
    """Return the profile of a TOML file, or of a shipped profile's name, with cores or without. Raises ConfigError."""
    path = resources.profile_path(name)
    table, hashes = _table(path, ())
    sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return from_dict(table, where=str(path), sha256=sha256)


def _table(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The file's table over that of the profile it extends, and the hashes of both. Raises ConfigError."""
    try:
        content = path.read_bytes()
        table = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(where=str(path), faults=(f"not TOML: {error}",)) from None
    except OSError as error:
        raise ConfigError(where=str(path), faults=(f"cannot be read: {error.strerror}",)) from None
    sha256 = hashlib.sha256(content).hexdigest()
    if "extends" not in table:
        return table, (sha256,)
    base = table.pop("extends")
    if not isinstance(base, str) or not base:
        raise ConfigError(where=str(path), faults=(f"extends: expected a profile's name or file, got {base!r}",))
    beside = path.parent / base
    below = beside if beside.is_file() else resources.profile_path(base)
    if below.resolve() in {path.resolve(), *(other.resolve() for other in seen)}:
        raise ConfigError(where=str(path), faults=(f"extends: {base} extends this file in turn",))
    under, hashes = _table(below, (*seen, path))
    return _over(under, table), (sha256, *hashes)


def _over(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`under` with every key that `over` says; a number is replaced as a whole, and so is [memory] of another formula."""
    merged = dict(under)
    for key, value in over.items():
        below = under.get(key)
        tables = isinstance(value, dict) and isinstance(below, dict) and not {"unit", "status"} & set(value)
        merged[key] = _over(below or {}, value) if tables and not _reformed(key, below, value) else value
    return merged


def _reformed(key: str, below: Any, value: Any) -> bool:
    return key == "memory" and value.get("formula", below.get("formula")) != below.get("formula")


def from_dict(table: dict[str, Any], *, where: str = "profile", sha256: str = "") -> AnyProfile:
    """Return the profile of nested plain types. Raises ConfigError, which lists every fault."""
    faults: list[str] = []
    parts: dict[str, Any] = {}
    kind = next((kind for kind, section in _KINDS.items() if section in table), HardwareProfile)
    own = ["input", "memory", "energy", "anchor", *_SECTIONS]
    known = [*_TEXTS, "sources", *([_KINDS[kind]] if kind in _KINDS else own)]
    faults += [f"{key}: unknown section{_near(key, known)}" for key in table if key not in known]
    sources = _sources(table.get("sources", {}), faults)
    for key in _TEXTS:
        parts[key] = _text(table, key, faults)
    if kind is ArithmeticProfile:
        parts["operations"] = _section(Operations, table, "operations", sources, faults)
        faults += _unequal(parts["operations"], ("sram_bytes", "sram_access_pj"), "operations")
    elif kind is LayerProfile:
        parts["layers"] = _section(LayerCores, table, "layers", sources, faults)
        faults += _unequal(parts["layers"], ("kernel_entries", "neuron_entries"), "layers")
    else:
        for section, part in _SECTIONS.items():
            parts[section] = _section(part, table, section, sources, faults)
        parts["energy"] = _energy(table, sources, faults)
        parts["memory"] = _memory(table, sources, faults)
        parts["input"] = _input(table, parts["precision"], faults)
        if "anchor" in table:
            parts["anchor"] = _section(Anchor, table, "anchor", sources, faults)
    if faults:
        raise ConfigError(where=where, faults=tuple(faults))
    return kind(**parts, sha256=sha256, sources=sources)


_KINDS: dict[type[AnyProfile], str] = {ArithmeticProfile: "operations", LayerProfile: "layers"}
"""The section that tells a profile of another kind."""


def _input(table: dict[str, Any], precision: Precision | None, faults: list[str]) -> str:
    """How an image reaches the first layer; where the file does not say, graded messages if the chip sends any."""
    graded = precision is not None and precision.message_bits is not None and precision.message_bits.value > 1
    coding = table.get("input", "graded" if graded else "bias")
    if coding not in {"graded", "bias"}:
        faults.append(f'input: expected "graded" or "bias", got {coding!r}')
    elif coding == "graded" and not graded and precision is not None:
        faults.append('input: graded messages need precision.message_bits above 1; use "bias"')
    return str(coding)


def _unequal(part: Any, names: tuple[str, str], section: str) -> list[str]:
    """A fault where two lists that belong together differ in length."""
    if part is None or any(not isinstance(getattr(part, name).value, tuple) for name in names):
        return []
    one, other = (len(getattr(part, name).value) for name in names)
    return [] if one == other else [f"{section}.{names[1]}: expected {one} numbers, as {names[0]} has, got {other}"]


def _energy(table: dict[str, Any], sources: dict[str, str], faults: list[str]) -> Energy | None:
    """[energy]: static power, and the sets beside it, of which `default` names one."""
    section = table.get("energy")
    if not isinstance(section, dict):
        faults.append("energy: missing" if section is None else f"energy: expected a section, got {section!r}")
        return None
    power, default, sets = None, "", {}
    for key, value in section.items():
        if key == "static_w":
            entry = next(entry for entry in fields(Energy) if entry.name == key)
            power, found = _quantity(entry, Maybe, value, sources)
            faults += [f"energy.static_w: {fault}" for fault in found]
        elif key == "default":
            default = value
        elif isinstance(value, dict) and not {"unit", "status", "value"} & set(value):
            sets[key] = _section(Coefficients, {f"energy.{key}": value}, f"energy.{key}", sources, faults)
        else:
            known = ["static_w", "default", *sets]
            faults.append(
                f"energy.{key}: unknown key{_near(key, known, 'energy.')}; coefficients stand in [energy.NAME]"
            )
    if "static_w" not in section:
        faults.append("energy.static_w: missing")
    if default not in sets:
        faults.append(f"energy.default: expected one of {', '.join(sets) or '[energy.NAME]'}, got {default!r}")
    return Energy(static_w=power, default=default, sets=sets) if power and all(sets.values()) else None


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
    if formula == "lists" and section.get("list_axons") not in _LIST_AXONS:
        faults.append(f"memory.list_axons: expected one of {', '.join(_LIST_AXONS)}, got {section.get('list_axons')!r}")
    rest = {key: value for key, value in section.items() if key != "formula"}
    return _section(_FORMULAS[formula], {"memory": rest}, "memory", sources, faults)


def _section(kind: Any, table: dict[str, Any], name: str, sources: dict[str, str], faults: list[str]) -> Any:
    """An instance of the dataclass `kind`, or None with faults appended. Fields without metadata are texts as they are."""
    section = table.get(name)
    if not isinstance(section, dict):
        faults.append(f"{name}: missing" if section is None else f"{name}: expected a section, got {section!r}")
        return None
    texts = {entry.name: section.get(entry.name) for entry in fields(kind) if not entry.metadata}
    entries = {entry.name: entry for entry in fields(kind) if entry.metadata}
    meant = set()
    for key in section:
        if key not in entries and key not in texts:
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
    return kind(**values, **texts) if complete else None


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


Form = Literal["integer", "integers", "number", "numbers", "number or unknown"]


def _form(hint: Any) -> Form:
    """What the type of a field, such as `Quantity[int] | None`, asks a value to be."""
    bare = next((option for option in typing.get_args(hint) if typing.get_origin(option) is Quantity), hint)
    (inner,) = typing.get_args(bare)
    if inner is int:
        return "integer"
    if inner is float:
        return "number"
    if typing.get_origin(inner) is tuple:
        return "integers" if typing.get_args(inner)[0] is int else "numbers"
    return "number or unknown"


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
    if form in {"integers", "numbers"}:
        if not isinstance(value, list) or not value:
            return [f"expected a list of {form}, got {value!r}"]
        return [fault for item in value for fault in _number_faults(item, limits, whole=form == "integers")]
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
