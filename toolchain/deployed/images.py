"""Adversarial images as a file: what a sensor delivered, and what the integer network said of it, to be said again elsewhere."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import store
from toolchain.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from toolchain.data import Split
    from toolchain.evaluate import Outcome

SCHEMA = "rsnn-deploy/adversarial-images/1"

_FIELDS = {"images": "uint8", "labels": "int64", "classes": "int64", "index": "int64", "eps": "float64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adversarial:
    """Images that attacks made against an integer network, whose fingerprint is `network`.

    Shapes, for N images: images uint8 (N, C, H, W); labels, classes, index int64 (N,): the right class, the network's, and
    the test image it was made of; eps float64 (N,) and attack str (N,), by which it was made.
    """

    network: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    eps: npt.NDArray[np.float64]
    attack: npt.NDArray[np.str_]


def collected(
    outcomes: Sequence[Outcome],
    split: Split,
    *,
    network: str,
    classify: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int64]],
) -> Adversarial:
    """The adversarial images of all images that are right clean, attack by attack, and their classes."""
    parts: dict[str, list[Any]] = {name: [] for name in (*_FIELDS, "attack")}
    for outcome in outcomes:
        if outcome.delivered is None:
            continue
        index = outcome.clean.nonzero()[0]
        images = outcome.delivered[index]
        made = {
            "images": images,
            "labels": split.labels[index].astype(np.int64),
            "classes": classify(images),
            "index": index.astype(np.int64),
            "eps": np.full(len(index), outcome.eps),
            "attack": np.full(len(index), outcome.attack),
        }
        for name, values in made.items():
            parts[name].append(values)
    empty = {"images": split.images[:0], "attack": np.zeros(0, dtype=np.str_)}
    joined = {
        name: np.concatenate(found) if found else empty.get(name, np.zeros(0, dtype=_FIELDS.get(name)))
        for name, found in parts.items()
    }
    return Adversarial(network=network, **joined)


def write(path: Path, made: Adversarial) -> None:
    """`path` holds the images, whole or not at all. Raises FormatError where it cannot be written."""
    buffer = io.BytesIO()
    arrays = {name: getattr(made, name) for name in (*_FIELDS, "attack")}
    np.savez_compressed(buffer, schema=np.array(SCHEMA), network=np.array(made.network), **arrays)
    store.write_bytes(path, buffer.getvalue())


def read(path: Path) -> Adversarial:
    """What `write` wrote, every array checked. Raises FormatError for anything else."""
    try:
        with np.load(io.BytesIO(store.read_bytes(path)), allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("schema", "network", *_FIELDS, "attack")}
    except (KeyError, ValueError, AttributeError, TypeError, EOFError, OSError, MemoryError, zipfile.BadZipFile):
        raise FormatError(path=str(path), reason="not adversarial images of evaluate --save-images") from None
    schema, network = (str(arrays.pop(name)) for name in ("schema", "network"))
    if schema != SCHEMA:
        raise FormatError(path=str(path), reason=f"expected schema {SCHEMA!r}, got {schema[:80]!r}")
    n = len(arrays["images"]) if arrays["images"].ndim == 4 else -1
    for name, array in arrays.items():
        fits = array.shape == (n,) or (name == "images" and array.ndim == 4)
        if not fits or array.dtype != (array.dtype if name == "attack" else _FIELDS[name]) or array.dtype.kind in "OV":
            raise FormatError(path=str(path), reason=f"{name} has type {array.dtype} and shape {array.shape}")
    return Adversarial(network=network, **arrays)
