"""Chains of convolutions, pools and linear layers: small CNNs and the VGGs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from toolchain.errors import ConfigError
from toolchain.nets.pool import Pool
from toolchain.spiking import IF

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.recipe import ModelSettings

Shape = tuple[int, int, int]
"""(channels, height, width)"""

_VGG = {
    "vgg11": (1, "A", 2, 4, "A", 8, 8, 8, "A", 8, 8),
    "vgg11-gap": (1, "A", 2, "A", 4, 4, "A", 8, 8, "A", 8, 8),
    "vgg16": (1, 1, "A", 2, 2, "A", 4, 4, 4, "A", 8, 8, 8, "A", 8, 8, 8),
}
"""Channels of each convolution in multiples of the width, and average pools."""

_HIDDEN = {"vgg11": (64, 64), "vgg11-gap": (64,), "vgg16": (4, 4)}
"""Hidden linear layers, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a chain consists of: channels and 2x2 pools ("A"), then linear layers, each hidden one before a dropout.

    With `global_average` the last map becomes one pixel.
    """

    layers: tuple[int | str, ...]
    hidden: tuple[int, ...]
    kernel: int = 3
    dropout: float = 0.0
    global_average: bool = False


def plan(settings: ModelSettings) -> Plan:
    """The plan of a small CNN or a VGG.

    Source: VGG-16 Sehwag 2020 (arXiv 2002.10509); both VGG-11 Ozdenizci and Legenstein, TMLR 2024 (arXiv 2311.09266).
    """
    name, width = settings.architecture, settings.width
    if name == "cnn":
        return Plan(layers=settings.layers, hidden=settings.hidden, kernel=settings.kernel)
    return Plan(
        layers=tuple(item if isinstance(item, str) else item * width for item in _VGG[name]),
        hidden=tuple(times * width for times in _HIDDEN[name]),
        dropout=0.2 if name == "vgg11" else 0.0,
        global_average=name == "vgg11-gap",
    )


def layers(chain: Plan, input_shape: Shape, n_classes: int) -> Iterator[tuple[str, nn.Module]]:
    """Yield every layer with its name. Raises ConfigError where a pool does not divide its map."""
    channels, height, width = input_shape
    n_convs = n_pools = 0
    for item in chain.layers:
        if isinstance(item, int):
            n_convs += 1
            yield f"conv{n_convs}", nn.Conv2d(channels, item, chain.kernel, padding=chain.kernel // 2, bias=False)
            yield f"bn{n_convs}", nn.BatchNorm2d(item)
            yield f"act{n_convs}", IF()
            channels = item
        else:
            n_pools += 1
            if height % 2 or width % 2:
                raise _indivisible(chain, input_shape, f"{height}x{width} map after conv{n_convs}")
            yield f"pool{n_pools}", Pool(2)
            height, width = height // 2, width // 2
    if chain.global_average:
        yield f"pool{n_pools + 1}", Pool((height, width))
        height = width = 1
    yield "flatten", nn.Flatten()
    features = channels * height * width
    for number, wide in enumerate(chain.hidden, start=1):
        yield f"linear{number}", nn.Linear(features, wide)
        yield f"act{n_convs + number}", IF()
        if chain.dropout:
            yield f"dropout{number}", nn.Dropout(chain.dropout)
        features = wide
    yield "readout", nn.Linear(features, n_classes)


def _indivisible(chain: Plan, input_shape: Shape, where: str) -> ConfigError:
    side = 2 ** chain.layers.count("A")
    _, height, width = input_shape
    fault = f"a 2x2 pool does not divide the {where}; crop or pad the {height}x{width} images to multiples of {side}"
    return ConfigError(where="model", faults=(fault,))
