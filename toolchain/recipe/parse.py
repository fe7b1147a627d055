"""From plain types to dataclasses: each fault is a sentence with its place, and none hides another."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
import types
import typing
from dataclasses import is_dataclass
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def override(table: dict[str, Any], text: str, *, into: dict[str, Any]) -> list[str]:
    """Set one `key=value` in `table`, which will be laid over `into`; return the faults found."""
    key, equals, raw = text.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        return [f"--set {text}: expected key=value"]
    for section in sections:
        below = into.get(section, {})
        if not isinstance(below, dict) or not isinstance(table.get(section, {}), dict):
            return [f"--set {text}: {section} is not a section"]
        into, table = below, table.setdefault(section, {})
    try:
        table[last] = tomllib.loads(f"value = {raw.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = raw.strip()
    return []


def read(kind: Any, table: Any, prefix: str, faults: list[str]) -> Any:
    """An instance of the dataclass `kind`; faults are appended, and a faulty key takes its default."""
    if not isinstance(table, dict):
        faults.append(f"{prefix.rstrip('.')}: expected a section, got {table!r}")
        return kind()
    hints = typing.get_type_hints(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    values = {}
    for key, raw in table.items():
        name = f"{prefix}{key}"
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            faults.append(f"{name}: unknown key" + (f"; did you mean {prefix}{close[0]}?" if close else ""))
        elif is_dataclass(hints[key]):
            values[key] = read(hints[key], raw, f"{name}.", faults)
        else:
            try:
                values[key] = _convert(hints[key], raw)
                _check_range(values[key], fields[key].metadata)
            except ValueError as error:
                values.pop(key, None)
                faults.append(f"{name}: {error}")
    return kind(**values)


def _convert(hint: Any, raw: Any) -> Any:
    """`raw` as the type `hint`, or a ValueError with the rest of the sentence."""
    match typing.get_origin(hint):
        case typing.Literal:
            if raw not in typing.get_args(hint):
                raise ValueError(f"expected one of {', '.join(typing.get_args(hint))}, got {raw!r}")
            return raw
        case builtin if builtin is tuple:
            if not isinstance(raw, list | tuple):
                raise ValueError(f"expected a list, got {raw!r}")  # noqa: TRY004 - the file is at fault, not a caller
            return tuple(_convert(typing.get_args(hint)[0], item) for item in raw)
        case builtin if builtin in {typing.Union, types.UnionType}:
            if isinstance(raw, bool) or not isinstance(raw, typing.get_args(hint)):
                expected = " or ".join(option.__name__ for option in typing.get_args(hint))
                raise ValueError(f"expected {expected}, got {raw!r}")  # noqa: TRY004
            return raw
    if hint is float:
        return _number(raw)
    if not isinstance(raw, hint) or isinstance(raw, bool) != (hint is bool):
        raise ValueError(f"expected {hint.__name__}, got {raw!r}")
    return raw


def _number(raw: Any) -> float:
    """A float, or a fraction written as text: "8/255"."""
    if isinstance(raw, str) and (match := re.fullmatch(r"\s*([\d.]+)\s*/\s*([\d.]+)\s*", raw)):
        try:
            return float(match[1]) / float(match[2])
        except (ValueError, ZeroDivisionError):
            pass
    if isinstance(raw, int | float) and not isinstance(raw, bool) and abs(raw) < float("inf"):
        return float(raw)
    raise ValueError(f'expected a number or a fraction such as "8/255", got {raw!r}')


def _check_range(value: Any, limits: Any) -> None:
    low, high = limits["low"], limits["high"]
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, str):
            continue
        if (low is not None and number < low) or (high is not None and number > high):
            bounds = f"at least {low}" if high is None else f"{low} to {high}"
            raise ValueError(f"expected {bounds}, got {number}")
