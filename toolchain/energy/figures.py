"""What every energy model starts from: figures that say how they are known, and the events of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from toolchain.ir import Network
    from toolchain.profile import Quantity
    from toolchain.trace import Trace

    Floats = npt.NDArray[np.float64]

Figure = dict[str, Any]

NANOJOULES = "nJ/image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a network did on some images.

    messages: mean count of nonzero input messages a pixel sends over T steps, (C, H, W); None: not counted, every one is
    taken as nonzero.
    """

    trace: Trace
    messages: Floats | None = None


def figure(value: float | None, unit: str, how: str, source: str) -> Figure:
    """A number as reports carry it. how: counted, modelled or assumed; value None is n/a."""
    return {"value": value, "unit": unit, "how": how, "source": source}


def rates(trace: Trace) -> tuple[Floats, ...]:
    """Spikes of each neuron over the T steps, mean over the images. Shapes: (C, H, W) per hidden layer."""
    return tuple(counts.mean(axis=0, dtype=np.float64) for counts in trace.counts)


def events(network: Network, run: Run) -> list[Floats]:
    """What each layer receives over T steps, mean over the images: input messages first, then the spikes before it."""
    messages = run.messages
    if network.input.bias:  # the host computes what drives the first layer; nothing is sent
        messages = np.zeros(network.input.shape)
    elif messages is None:
        messages = np.full(network.input.shape, float(network.timesteps))
    return [messages, *rates(run.trace)]


def priced(count: Figure, each: Quantity[float | None]) -> Figure:
    """A count times a coefficient, in nJ; None, with the reason as its source, where either is unknown."""
    if each.value is None:
        return figure(None, NANOJOULES, "modelled", f"omitted: {each.source}")
    if count["value"] is None:
        return figure(None, NANOJOULES, "modelled", f"omitted: {count['source']}")
    return figure(count["value"] * each.value / 1000, NANOJOULES, "modelled", cited(each))


def cited(each: Quantity[float | None]) -> str:
    """A coefficient as a source: its value, unit, how it is known and where it is published."""
    return f"{each.value} {each.unit} [{each.status}]: {each.source}"


def summed(parts: Iterable[Figure]) -> Figure:
    """The sum of figures of one unit, with their sources; None, with the reason, where one of them is."""
    found = list(parts)
    unknown = [part["source"] for part in found if part["value"] is None]
    value = None if unknown else sum(part["value"] for part in found)
    sources = unknown[:1] or dict.fromkeys(part["source"] for part in found)
    hows = {part["how"] for part in found}
    how = next(how for how in ("assumed", "modelled", "counted") if how in hows)
    return figure(value, found[0]["unit"], how, "; ".join(sources))
