"""How reports say a number."""

from __future__ import annotations

NOT_KNOWN = "n/a"


def number(value: float | None) -> str:
    """A number a person can read: thousands set apart, four digits of a fraction."""
    if value is None:
        return NOT_KNOWN
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def share(value: float | None) -> str:
    """A share in percent."""
    return NOT_KNOWN if value is None else f"{value:.1%}"
