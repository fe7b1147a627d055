"""One image explained: the first layer, step and neuron in which the integers leave the float network, and by what rounding.

Until that step the neuron heard the same spikes and was reset at the same steps in both, so that what it integrated since
differs by its own numbers alone::

    s U - u = what the rounded weights add + what the rounded biases add + what the chip's arithmetic adds

with u and U since the last reset, s the unit, each term summed over the steps since then; and theta stands for s theta - v_th
more than v_th. The margin, membrane less threshold, changes by the three terms less the fourth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from toolchain import quantize, store
from toolchain.deployed.divergence import steps_of
from toolchain.errors import ConfigError
from toolchain.evaluate import stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from toolchain import deployment
    from toolchain.deployed.chain import Record
    from toolchain.deployed.steps import Steps

    Image = npt.NDArray[np.uint8]

SCHEMA = "rsnn-deploy/explanation/1"

CAUSES = {
    "float32": "the float network's own rounding, which folding it in float64 does not share",
    "weights": "the rounding or clipping of the weights",
    "biases": "the rounding of the biases",
    "threshold": "the rounding of the threshold",
    "chip": "the chip's arithmetic (sums that wrap, states that saturate, or the host's division)",
}


def explain(
    path: Path | str,
    settings: deployment.Settings,
    image: int,
    *,
    log: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """What a test image of a model is to the float network and to the integers, and why, JSON-able.

    Raises ConfigError for an image that there is not; otherwise as `divergence.inspect`.
    """
    model = store.load(path)
    split = stored.test_images(model, None)
    if image >= len(split):
        fault = f"expected a test image from 0 to {len(split) - 1}, got {image}"
        raise ConfigError(where="--image", faults=(fault,))
    found = explained(steps_of(model, settings, log=log), split.images[image])
    return {"schema": SCHEMA, "model": str(path), "image": image, "label": int(split.labels[image]), **found}


def explained(steps: Steps, image: Image) -> dict[str, Any]:
    """Classes and logits of both networks, differing neuron-steps of each layer, and the first of them with its reasons.

    `first` is None where every spike is the same; then only the readout can differ. Shapes: image uint8 (C, H, W).
    """
    images = image[None]
    pixels = torch.tensor(images) / 255
    wanted = [torch.from_numpy(spikes[0]) for spikes in quantize.float_spikes(steps.net, images)]
    records = steps.integers.recorded(pixels)
    differing = [record.spikes[:, 0] != spikes for record, spikes in zip(records, wanted, strict=True)]
    with torch.no_grad():
        logits = {"float": steps.net(pixels)[0].tolist(), "integers": steps.integers(pixels)[0].tolist()}
    index = next((number for number, places in enumerate(differing) if places.any()), None)
    return {
        "classes": {name: int(np.argmax(values)) for name, values in logits.items()},
        "logits": logits,
        "layers": [
            {"name": name, "differing": int(places.sum()), "neuron_steps": places.numel()}
            for name, places in zip(steps.names, differing, strict=True)
        ],
        "first": None if index is None else _first(steps, index, records[index], wanted[index], differing[index]),
    }


def _first(steps: Steps, index: int, record: Record, wanted: torch.Tensor, differing: torch.Tensor) -> dict[str, Any]:
    """The first neuron of a layer that differs, of those of its step, in the order of channels, rows and columns."""
    step, *place = (int(number) for number in differing.nonzero()[0])
    spikes = wanted[:, place[0], place[1], place[2]]
    resets = spikes[:step].nonzero().flatten()
    since = int(resets[-1]) + 1 if len(resets) else 0
    sums = {
        name: _integrated(chain.drive(index, record.source)[since : step + 1], place) * _of(chain.unit(index), place)
        for name, chain in (("float", steps.folded), ("weights", steps.weights), ("biases", steps.numbers))
    }
    chip, integers = steps.integers, float(record.membrane[step, 0][tuple(place)])
    unit = _of(chip.unit(index), place)
    v_th = _of(steps.folded.theta(index), place) * _of(steps.folded.unit(index), place)
    theta = _of(chip.theta(index), place)
    moved = {
        "weights": sums["weights"] - sums["float"],
        "biases": sums["biases"] - sums["weights"],
        "threshold": -(theta * unit - v_th),
        "chip": integers * unit - sums["biases"],
    }
    spikes_float = bool(spikes[step])
    towards = -1 if spikes_float else 1
    agrees = (sums["float"] >= v_th) == spikes_float
    return {
        "layer": steps.names[index],
        "step": step,
        "channel": place[0],
        "row": place[1],
        "column": place[2],
        "float_spikes": spikes_float,
        "since_step": since,
        "unit": unit,
        "float": {"membrane": sums["float"], "threshold": v_th, "margin": sums["float"] - v_th},
        "integers": {"membrane": integers, "theta": int(theta), "margin": integers - theta},
        "margin_moved_by": moved,
        "cause": max(moved, key=lambda name: towards * moved[name]) if agrees else "float32",
    }


def _integrated(drives: torch.Tensor, place: list[int]) -> float:
    """The sum over steps of what drives a neuron. Shapes: drives (T, 1, C, H, W)."""
    return float(drives[:, 0, place[0], place[1], place[2]].sum())


def _of(values: torch.Tensor, place: list[int]) -> float:
    """A layer's or channel's number at a place."""
    return float(values if not values.ndim else values[place[0], 0, 0])
