"""Where each neuron of a network sits: the noun `mapping` makes and `check` recomputes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Range = tuple[int, int]
"""First and one past last"""


Pools = Literal["merged", "expanded"]
"""Whether the q x q neurons of a pool's cell share their synapses, or each has its own, as netx writes them"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """One core's share of one layer and what it uses there; shares of equal index sit on one core.

    Units: words as the profile defines them, else counts.
    """

    index: int
    chip: int
    layer: str
    y: Range
    x: Range
    channels: Range
    axons_in: int
    axons_out: int
    groups: int
    synapse_words: int
    axon_map_words: int
    axon_mem_words: int

    @property
    def n_neurons(self) -> int:
        """Neurons placed on this core."""
        return (self.y[1] - self.y[0]) * (self.x[1] - self.x[0]) * (self.channels[1] - self.channels[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Every share of a network on a profile's cores, in layer order.

    formats: per layer, how its synapses are stored (shared, dense, sparse, run-length; bias: it has none, the host
    drives its neurons); tiles: per layer, (th, tw, tc), the size its tiles have or, where layers share cores, are parts of.
    """

    profile: str
    profile_sha256: str
    formats: dict[str, str]
    tiles: dict[str, tuple[int, int, int]]
    cores: tuple[Core, ...]
    pools: Pools = "merged"

    @property
    def n_cores(self) -> int:
        """Cores used."""
        return len({core.index for core in self.cores})

    @property
    def n_chips(self) -> int:
        """Chips used."""
        return 1 + max(core.chip for core in self.cores)
