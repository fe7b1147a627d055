"""What a profile holds: dataclasses of quantities, each field with what it is, its unit and the range of its value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

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
    layers: Count | None = field(default=None, metadata=_is("layers that may share a core", "layers", low=1))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ListMemory:
    """[memory] with formula = "lists": a core stores lists of synapses, see docs/hardware.md.

    list_axons: `discrete`, a source of listed synapses has an input axon of its own, or `population`, a map position's share one.
    """

    list_axons: str

    word_bits: Count = field(metadata=_is("bits of a word", "bits", low=1))
    entry_bits: Count = field(metadata=_is("header of an entry of a list", "bits"))
    entry_synapses: Count = field(metadata=_is("synapses an entry holds at most", "synapses", low=1))
    index_bits_min: Count = field(metadata=_is("least width of a target index in a sparse list", "bits"))
    skip_bits: Quantity[tuple[int, ...]] = field(
        metadata=_is("widths of the gap between the targets of a run-length list", "bits", low=1, high=16)
    )
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
class Coefficients:
    """[energy.NAME], one published set. A term that is absent is no part of its model; one that is unknown is n/a."""

    synapse_dense_pj: Maybe = field(metadata=_is("a synaptic operation from a dense list", "pJ"))
    synapse_sparse_pj: Maybe = field(metadata=_is("a synaptic operation from a sparse or run-length list", "pJ"))
    synapse_shared_pj: Maybe = field(metadata=_is("a synaptic operation from a shared kernel", "pJ"))
    update_active_pj: Maybe = field(metadata=_is("an update of a neuron that has input", "pJ"))
    update_inactive_pj: Maybe = field(metadata=_is("an update of a neuron without input", "pJ"))
    spike_pj: Maybe | None = field(default=None, metadata=_is("a spike where it arises, once", "pJ"))
    message_pj: Maybe | None = field(default=None, metadata=_is("a spike's message to one core", "pJ"))
    hop_ew_pj: Maybe = field(metadata=_is("a message's hop east or west between tiles", "pJ"))
    hop_ns_pj: Maybe = field(metadata=_is("a message's hop north or south between tiles", "pJ"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """[energy]: static power, and sets of coefficients that are never mixed; `default` names the one to use unasked."""

    static_w: Maybe = field(metadata=_is("static power of a chip", "W"))
    default: str
    sets: dict[str, Coefficients]

    @property
    def coefficients(self) -> Coefficients:
        """The default set."""
        return self.sets[self.default]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """[time]."""

    synapse_ns: Maybe = field(metadata=_is("a synaptic operation", "ns"))
    update_active_ns: Maybe = field(metadata=_is("an update of a neuron that has input", "ns"))
    update_inactive_ns: Maybe = field(metadata=_is("an update of a neuron without input", "ns"))
    barrier_ns: Maybe = field(metadata=_is("the barrier that ends a step, at its shortest", "ns"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """[anchor], what others measured of one network on this chip: context for a report's figures, not an estimate."""

    cores: Count = field(metadata=_is("cores", "cores", low=1))
    steps: Count = field(metadata=_is("steps an inference", "steps", low=1))
    step_us: Quantity[float] = field(metadata=_is("time of a step", "us"))
    energy_mj: Quantity[float] = field(metadata=_is("energy of an inference", "mJ"))
    dynamic_mj: Quantity[float] = field(metadata=_is("of which dynamic", "mJ"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """[operations] of a profile without cores: arithmetic, and memory whose access costs more the larger it is."""

    fp32_add_pj: Maybe = field(metadata=_is("an addition of 32 bit floats", "pJ"))
    fp32_mac_pj: Maybe = field(metadata=_is("a multiply-accumulate of 32 bit floats", "pJ"))
    int8_add_pj: Maybe = field(metadata=_is("an addition of 8 bit integers", "pJ"))
    int8_mul_pj: Maybe = field(metadata=_is("a multiplication of 8 bit integers", "pJ"))
    int32_add_pj: Maybe = field(metadata=_is("an addition of 32 bit integers", "pJ"))
    int32_mul_pj: Maybe = field(metadata=_is("a multiplication of 32 bit integers", "pJ"))
    sram_bytes: Quantity[tuple[int, ...]] = field(metadata=_is("sizes of memories", "bytes", low=1))
    sram_access_pj: Quantity[tuple[float, ...]] = field(metadata=_is("an access to a memory of each size", "pJ"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCores:
    """[layers] of a chip that runs one convolution a core; each core has limits of its own, in the order of the cores."""

    kernel_entries: Quantity[tuple[int, ...]] = field(metadata=_is("kernel memory of each core", "entries", low=1))
    neuron_entries: Quantity[tuple[int, ...]] = field(metadata=_is("neuron memory of each core", "entries", low=1))
    bias_entries: Count = field(metadata=_is("bias memory of a core", "entries", low=1))
    kernel_max: Count = field(metadata=_is("greatest kernel height and width", "taps", low=1))
    strides: Quantity[tuple[int, ...]] = field(metadata=_is("strides a core can take", "cells", low=1))
    pools: Quantity[tuple[int, ...]] = field(metadata=_is("pools a core can take", "cells", low=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What every profile has.

    Attributes: sha256, of the file and of those it extends; sources, short name -> citation, which every quantity's source
    already spells out.
    """

    name: str
    description: str
    sha256: str
    sources: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArithmeticProfile(Profile):
    """Energies of operations, for comparison with papers. It has no cores."""

    operations: Operations


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile(Profile):
    """A chip whose cores run one layer each: its resources can be checked, networks are not placed on it."""

    layers: LayerCores


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareProfile(Profile):
    """A chip whose cores hold the neurons that `mapping` places on them.

    Attributes: input, how an image reaches the first layer: `graded` messages, or the `bias` of its neurons.
    """

    input: Literal["graded", "bias"]
    chip: ChipLimits
    core: CoreLimits
    precision: Precision
    memory: ListMemory | BudgetMemory
    energy: Energy
    time: Times
    anchor: Anchor | None = None


AnyProfile = HardwareProfile | ArithmeticProfile | LayerProfile
