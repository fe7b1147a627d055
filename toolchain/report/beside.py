"""The totals of the energy models, each by one name, so that one situation can stand beside another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.energy import figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from toolchain.energy import Figure

    Place = tuple[str, ...]


def totals(energy: Mapping[str, Any]) -> Iterator[tuple[str, Place]]:
    """Yield the name and the place, in a report's section `energy`, of each model's total."""
    if "eq12" in energy:
        yield "eq. 12, fp32", ("eq12", "fp32")
        yield "eq. 12, int32", ("eq12", "int32")
    if "lemaire" in energy:
        yield "Lemaire, 45 nm", ("lemaire", "total")
    if "hardware" in energy:
        for name, chosen in energy["hardware"]["sets"].items():
            for total, also in (("dynamic", ""), ("total", " + static"))[: 1 + knows_static(chosen)]:
                low, high = (("hardware", "sets", name, f"{total}_{end}") for end in ("low", "high"))
                if at(energy, low)["value"] == at(energy, high)["value"]:
                    yield f"{chosen['label']}{also}", low
                else:
                    yield f"{chosen['label']}{also}, nonzero", low
                    yield f"{chosen['label']}{also}, stored", high


def knows_static(chosen: Mapping[str, Any]) -> bool:
    """Whether a set's total tells more than its dynamic one."""
    return bool(chosen["total_low"]["value"] != chosen["dynamic_low"]["value"])


def at(node: Any, place: Place) -> Any:
    """What stands there, None where nothing does."""
    for key in place:
        if not isinstance(node, dict) or key not in node:
            return None
        node = node[key]
    return node


def ratios(first: Mapping[str, Any], second: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return each total of `second` over that of `first`, each where it stands in them; None where one of them is unknown.

    first, second: sections `energy` of a report; what: says which two they are.
    """
    made: dict[str, Any] = {}
    for _, place in (*totals(first), *totals(second)):
        node = made
        for key in place[:-1]:
            node = node.setdefault(key, {})
        node[place[-1]] = ratio(at(first, place), at(second, place), what)
    return made


def ratio(first: Figure | None, second: Figure | None, what: str) -> Figure:
    """One figure over another, as the less certain of the two is known."""
    if not first or not second or not first["value"] or second["value"] is None:
        return figure(None, "1", "modelled", f"omitted: {what}, of which one is not known")
    how = next(how for how in ("assumed", "modelled", "counted") if how in {first["how"], second["how"]})
    return figure(second["value"] / first["value"], "1", how, what)
