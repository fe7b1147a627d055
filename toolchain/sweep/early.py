"""Early exit: an image stops at the step from which its class is settled, and what that saves and costs.

Neither spikes nor sums up to a step depend on how many more follow, so that the sums of every step are those of a shorter run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import emulate, evaluate
from toolchain.evaluate.statistics import Z95

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.data import Split
    from toolchain.ir import Network, Readout

    Bools = npt.NDArray[np.bool_]
    Ints = npt.NDArray[np.int64]
    Images = npt.NDArray[np.uint8]

GIVEN_UP = 0.005
"""Share of right images that a margin may cost where it is chosen"""


def cumulated(network: Network, images: Images, *, device: str = "cpu") -> Ints:
    """The logits after each step. Shapes: uint8 (S, C, H, W) -> (S, T, classes)."""
    readout = network.readout
    weight = readout.weight.T.astype(np.float64)  # sums of whole numbers below 2^53 are exact
    found = []
    for part in emulate.Emulator(network, device=device).stream(images, record=True, activity=False):
        assert part.spikes is not None
        sent = _pooled(part.spikes[-1], readout.pool)
        drive = np.rint(sent.reshape(*sent.shape[:2], -1) @ weight).astype(np.int64)
        found.append((drive + readout.bias).cumsum(axis=1))
    return np.concatenate(found)


def _pooled(spikes: Bools, q: int) -> npt.NDArray[np.float64]:
    samples, steps, channels, height, width = spikes.shape
    cells = spikes.reshape(samples, steps, channels, height // q, q, width // q, q)
    return np.asarray(cells.sum(axis=(4, 6), dtype=np.float64))


def proven(sums: Ints, readout: Readout) -> Ints:
    """How many steps each image takes until nothing its neurons may still do changes its class. Shapes: (S, T, classes) -> (S,).

    Equation: class a stands after t steps if for every other b the lead of a exceeds
    (T - t) max(bias_b - bias_a + q^2 sum_i max(0, W_bi - W_ai), 0), q^2 spikes being the most that a pool passes on in a step.
    """
    weight, bias = readout.weight.astype(np.int64), readout.bias.astype(np.int64)
    gains = np.stack([np.maximum(weight - weight[top], 0).sum(axis=1) for top in range(len(weight))])
    most = np.maximum(readout.pool**2 * gains + bias[None, :] - bias[:, None], 0)  # of b over a, in a step
    left = np.arange(sums.shape[1])[::-1, None]
    top = sums.argmax(axis=2)
    lead = np.take_along_axis(sums, top[..., None], axis=2) - sums
    stands = lead > left * most[top]
    np.put_along_axis(stands, top[..., None], values=True, axis=2)
    return _first(stands.all(axis=2))


def by_margin(sums: Ints, margin: int) -> Ints:
    """How many steps each image takes until its top logit leads by `margin`. Shapes: (S, T, classes) -> (S,)."""
    return _first(_leads(sums) >= margin)


def calibrated(sums: Ints, labels: Ints, *, given_up: float = GIVEN_UP) -> int:
    """The least margin from which on, however much greater, no more than the share `given_up` of images is wrong for stopping.

    As the margin falls, an image stops at ever earlier steps at which it led more than at any before: only there it changes.
    """
    right = sums.argmax(axis=2) == labels[:, None]
    records = np.maximum.accumulate(_leads(sums), axis=1)[:, :-1]
    is_record = np.diff(records, axis=1, prepend=-1) > 0
    events: list[tuple[int, int]] = []  # a lead, and what a margin as low as that adds to the number of right images
    for image, step in zip(*np.nonzero(is_record), strict=True):
        later = np.flatnonzero(is_record[image, step + 1 :])
        then = step + 1 + later[0] if len(later) else -1
        events.append((int(records[image, step]), int(right[image, step]) - int(right[image, then])))
    margins, gained = np.array(sorted(events, reverse=True), dtype=np.int64).reshape(-1, 2).T
    total = gained.cumsum()
    ends = np.flatnonzero(np.diff(margins, append=-1))  # images with the same lead stop together
    too_much = ends[total[ends] < -given_up * len(labels)]
    return int(margins[too_much[0]]) + 1 if len(too_much) else 0


def _leads(sums: Ints) -> Ints:
    """By how much the top logit leads the second. Shapes: (S, T, classes) -> (S, T)."""
    second, top = np.moveaxis(np.partition(sums, -2, axis=2)[..., -2:], 2, 0)
    return np.asarray(top - second)


def _first(stands: Bools) -> Ints:
    """The first step that is true, from 1; the last is where none is. Shapes: (S, T) -> (S,)."""
    last = stands.copy()
    last[:, -1] = True
    return np.asarray(last.argmax(axis=1) + 1)


def measured(
    network: Network, split: Split, changed: Images | None = None, *, device: str = "cpu"
) -> dict[str, dict[str, Any]]:
    """What stopping early does to images, by the proven rule and by a margin, JSON-able. changed: the first of them as an attack made them.

    Every other image stops by the margin chosen on those between, clean, so that what is said of a margin is of images it was not
    chosen on; of training images, which it knows too well, a network is too sure to choose by. `margin` is that of all images.
    """
    sums, labels = cumulated(network, split.images, device=device), split.labels
    halves = [calibrated(sums[other::2], labels[other::2]) for other in (1, 0)]
    found: dict[str, dict[str, Any]] = {
        "proven": {},
        "margin": {"margin": calibrated(sums, labels), "margins_of_halves": halves},
    }
    for name, images in {"clean": split.images, "attacked": changed}.items():
        if images is not None:
            ran = sums if name == "clean" else cumulated(network, images, device=device)
            steps = np.empty(len(ran), dtype=np.int64)
            for half, margin in enumerate(halves):
                steps[half::2] = by_margin(ran[half::2], margin)
            found["proven"][name] = _outcome(ran, proven(ran, network.readout), labels[: len(ran)])
            found["margin"][name] = _outcome(ran, steps, labels[: len(ran)])
    return found


def _outcome(sums: Ints, steps: Ints, labels: Ints) -> dict[str, Any]:
    classes = sums.argmax(axis=2)
    saved = 1 - steps / sums.shape[1]
    half = Z95 * float(saved.std()) / math.sqrt(max(len(saved) - 1, 1))
    stopped, full = classes[np.arange(len(steps)), steps - 1], classes[:, -1]
    return {
        "mean_steps": float(steps.mean()),
        "saved": float(saved.mean()),
        "saved_interval95": [float(saved.mean()) - half, float(saved.mean()) + half],
        "n_changed": int((stopped != full).sum()),
        **evaluate.accuracy(stopped == labels),
        "against_full": evaluate.compare(stopped == labels, full == labels),
    }
