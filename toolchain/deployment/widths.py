"""Widths of the layers' weights under a budget of bits, where they do the least damage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.errors import ConfigError
from toolchain.profile import HardwareProfile

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.profile import AnyProfile
    from toolchain.quantize import Quantized

NARROWEST = 2
"""Bits: how signs alone do is not told by what narrowing does."""


def within(budget: float, made: Quantized, images: npt.NDArray, profile: AnyProfile) -> dict[str, int]:  # type: ignore[type-arg]
    """Return the width of each layer, so that a kept weight has `budget` bits in the mean, at most.

    made: the network at its full widths. From there the layer is narrowed next that does the least damage a bit: the mean KL divergence
    of the network's answers from those at full width, on images, each layer judged alone.
    Raises ConfigError where even the narrowest widths are above the budget.
    """
    from toolchain.fit import reduce

    network = made.network
    last = network.readout.name
    answers = reduce.Answers.of(network, images, made.facts[last].scale[0])
    layers = {layer.name: (index, layer) for index, layer in enumerate(network.chain) if not network.is_driven(layer)}
    kept = {name: int(made.masks[name].sum()) for name in layers}
    if budget < NARROWEST:
        fault = f"expected at least {NARROWEST}, got {budget:g}"
        raise ConfigError(where="bits budget", faults=(fault,))

    def damage(name: str, bits: int) -> float:
        index, layer = layers[name]
        changed, unit = reduce.narrowed(layer, bits)
        return answers.damage(reduce.with_layer(network, index, changed), unit if name == last else 1.0)

    widths = {name: layer.weight_bits for name, (_, layer) in layers.items()}
    done = dict.fromkeys(widths, 0.0)
    next_: dict[str, tuple[float, int, float]] = {}

    def look(name: str) -> None:
        """The damage a bit of the layer's next width, if it has one."""
        next_.pop(name, None)
        narrower = [bits for bits in _storable(profile) if NARROWEST <= bits < widths[name]]
        if narrower:
            after = max(done[name], damage(name, narrower[-1]))
            saved = max(1, kept[name]) * (widths[name] - narrower[-1])
            next_[name] = (after - done[name]) / saved, narrower[-1], after

    for name in widths:
        look(name)
    while sum(kept[name] * bits for name, bits in widths.items()) > budget * sum(kept.values()):
        name = min(next_, key=lambda each: next_[each][0])
        _, widths[name], done[name] = next_[name]
        look(name)
    return widths


def _storable(profile: AnyProfile) -> tuple[int, ...]:
    """The widths that a profile can store a weight in, the narrowest first: one between two of them saves nothing."""
    widths = profile.precision.weight_widths if isinstance(profile, HardwareProfile) else None
    return tuple(sorted(widths.value)) if widths else tuple(range(1, 9))
