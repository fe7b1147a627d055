"""What a run of a network did: spikes, counts, logits, and which backend made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The observable result of running a network on images.

    Shapes, for S samples, T steps and hidden layers of shape (C, H, W): logits int64 (S, classes), sums over T;
    counts[l] int32 (S, C, H, W), spikes of each neuron over T; spikes[l] bool (S, T, C, H, W), only where recorded;
    step_spikes int64 (layers, T), spikes of a layer in each step, summed over samples; int64 (layers,), neuron-steps summed over samples, None where the backend does not count them: active, whose synaptic sum
    plus bias was not zero; wraps, in which u wrapped; saturations, in which v saturated at its lower end (at the upper end it
    spikes all the same, so that nothing is lost).
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

    @property
    def n_samples(self) -> int:
        """Number of images run."""
        return int(self.logits.shape[0])

    def classes(self) -> npt.NDArray[np.int64]:
        """Predicted class of each sample: the first of the greatest logits. Shape: (S,)."""
        return np.asarray(self.logits.argmax(axis=1))
