"""What a run of a network did: spikes, counts, logits, and which backend made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The observable result of running a network on images.

    Shapes, for S samples, T steps and hidden layers of shape (C, H, W): logits int64 (S, classes), sums over T;
    counts[l] int32 (S, C, H, W), spikes of each neuron over T; spikes[l] bool (S, T, C, H, W), only where recorded;
    int64 (layers, T), in each step, summed over samples, None where the backend does not count them: step_spikes; neuron-steps active,
    whose synaptic sum plus bias was not zero; wraps, in which u wrapped; saturations, in which v saturated at its lower end (at
    the upper end it spikes all the same, so that nothing is lost). synops int64 (layers + 1, T), synaptic operations of each hidden
    layer and of the readout: events (spikes, or messages other than 0) times the nonzero synapses that each of them reaches; 0 where
    the host drives the first layer by biases.
    """

    backend: str
    layers: tuple[str, ...]
    logits: npt.NDArray[np.int64]
    counts: tuple[npt.NDArray[np.int32], ...]
    spikes: tuple[npt.NDArray[np.bool_], ...] | None = None
    step_spikes: npt.NDArray[np.int64] | None = None
    active: npt.NDArray[np.int64] | None = None
    wraps: npt.NDArray[np.int64] | None = None
    saturations: npt.NDArray[np.int64] | None = None
    synops: npt.NDArray[np.int64] | None = None

    @property
    def n_samples(self) -> int:
        """Number of images run."""
        return int(self.logits.shape[0])

    @property
    def silent(self) -> npt.NDArray[np.int64]:
        """Neurons of each layer that never spiked, in any sample. Shape: (layers,)."""
        return np.array([np.count_nonzero(~counts.any(axis=0)) for counts in self.counts], dtype=np.int64)

    def always_on(self, timesteps: int) -> npt.NDArray[np.int64]:
        """Neurons of each layer that spiked at every one of T steps of every sample. Shape: (layers,)."""
        return np.array([np.count_nonzero((counts == timesteps).all(axis=0)) for counts in self.counts], dtype=np.int64)

    def classes(self) -> npt.NDArray[np.int64]:
        """Predicted class of each sample: the first of the greatest logits. Shape: (S,)."""
        return np.asarray(self.logits.argmax(axis=1))


TALLIES = ("step_spikes", "active", "wraps", "saturations", "synops")
"""What a trace counts over all of its samples"""


def joined(traces: Sequence[Trace]) -> Trace:
    """Return the traces of consecutive samples of one network as one."""
    hidden = range(len(traces[0].layers))
    recorded = [trace.spikes for trace in traces if trace.spikes is not None]

    def total(name: str) -> npt.NDArray[np.int64] | None:
        parts = [getattr(trace, name) for trace in traces]
        return None if any(part is None for part in parts) else np.sum(parts, axis=0, dtype=np.int64)

    return Trace(
        backend=traces[0].backend,
        layers=traces[0].layers,
        logits=np.concatenate([trace.logits for trace in traces]),
        counts=tuple(np.concatenate([trace.counts[k] for trace in traces]) for k in hidden),
        spikes=tuple(np.concatenate([spikes[k] for spikes in recorded]) for k in hidden) if recorded else None,
        **{name: total(name) for name in TALLIES},
    )
