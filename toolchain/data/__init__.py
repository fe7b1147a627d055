"""Data sets as uint8 images, with a split that never changes and a test set that selection cannot reach.

`load` gives training and validation images only, and reads no others; `load_test` is for the final figures of a finished
model and for the samples of an export. Which image goes where depends on its index alone: no seed, no library version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.data import npz, published
from toolchain.data.augment import augment
from toolchain.data.split import Read, Split, averaged
from toolchain.errors import ConfigError, FormatError
from toolchain.recipe import DataSettings

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Data", "Split", "augment", "load", "load_test"]

Shape = tuple[int, int, int]
"""(channels, height, width)"""

DIGITS_TEST = 360
"""Test images of `digits`, a fifth."""

_DEFAULTS = DataSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What training and selection may see of a data set.

    mean and std are those of the training pixels in [0, 1], per channel, extra images left out; sha256 is of all training
    images and labels as read (of `digits`, of the whole set); layout says how the file's axes were read.
    """

    source: str
    layout: str
    shape: Shape
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    train: Split
    validation: Split


def load(source: str, settings: DataSettings = _DEFAULTS) -> Data:
    """Training and validation images of a data set; `settings` say how they are read, `source` overrules theirs.

    Raises: FormatError for a file that is not a data set; ConfigError where the split leaves nothing, or a library is missing.
    """
    read = _read(source, "train", settings)
    total = len(read.split)
    n_validation = round(settings.validation * total)
    if not 0 < n_validation < total:
        share = f"{settings.validation:g} of {total} training images"
        fault = f"validation: {share} leaves {n_validation} and {total - n_validation}"
        raise ConfigError(where=source, faults=(fault,))
    order = _order(total)
    kept, aside = np.sort(order[n_validation:]), np.sort(order[:n_validation])
    kept = kept[: settings.train_images or None]
    split, validation = (_chosen(read.split, chosen, settings, source) for chosen in (kept, aside))
    n_classes = _n_classes(source, read.split, split)
    mean, std = _statistics(source, split.images)
    digests = [
        _digest(read.split) if source != "digits" else _digest(read.split, _read(source, "test", settings).split)
    ]
    if settings.extra:
        shape = read.split.images.shape[1:]
        extra = npz.read_extra(Path(settings.extra), shape, n_classes, settings.layout)
        digests.append(_digest(extra))
        extra = averaged(extra, settings.average, source=settings.extra)
        split = Split(
            images=np.concatenate([split.images, extra.images]), labels=np.concatenate([split.labels, extra.labels])
        )
    return Data(
        source=source,
        layout=read.layout,
        shape=split.images.shape[1:],  # type: ignore[arg-type]
        n_classes=n_classes,
        mean=mean,
        std=std,
        sha256=digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest(),
        train=split,
        validation=validation,
    )


def load_test(source: str, settings: DataSettings = _DEFAULTS) -> Split:
    """The test images of a data set: for figures about finished models, never to choose anything by. Raises as `load`."""
    return averaged(_read(source, "test", settings).split, settings.average, source=source)


def _read(source: str, part: published.Part, settings: DataSettings) -> Read:
    if source == "digits":
        return _digits(part)
    if source in published.NAMES:
        return published.read(source, part, Path(settings.folder))
    if Path(source).is_dir():
        return published.read_folder(Path(source), part, settings.size)
    return npz.read(Path(source), part, settings.layout)


def _digits(part: published.Part) -> Read:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = np.floor(bunch.images * 255 / 16 + 0.5).astype(np.uint8)[:, None]
    labels = np.asarray(bunch.target, dtype=np.int64)
    order = _order(len(labels))
    chosen = np.sort(order[:DIGITS_TEST] if part == "test" else order[DIGITS_TEST:])
    return Read(layout="NHW", split=Split(images=images[chosen], labels=labels[chosen]))


def _order(n: int) -> npt.NDArray[np.int64]:
    """A fixed permutation of n indices, by their hash."""
    keys = [hashlib.sha256(f"rsnn-deploy split {index}".encode()).digest() for index in range(n)]
    return np.array(sorted(range(n), key=keys.__getitem__), dtype=np.int64)


def _chosen(split: Split, indices: npt.NDArray[np.int64], settings: DataSettings, source: str) -> Split:
    chosen = Split(images=split.images[indices], labels=split.labels[indices])
    return averaged(chosen, settings.average, source=source)


def _n_classes(source: str, whole: Split, train: Split) -> int:
    counts = np.bincount(train.labels, minlength=int(whole.labels.max()) + 1)
    if len(counts) < 2:
        raise FormatError(path=source, reason="y_train: expected at least two classes, got one")
    if not counts.all():
        absent = int(np.flatnonzero(counts == 0)[0])
        reason = f"y_train: no image to train on has label {absent} of 0 to {len(counts) - 1}; number the labels without gaps"
        raise FormatError(path=source, reason=reason)
    return len(counts)


def _statistics(source: str, images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, from exact integer sums. Units: pixels of [0, 1]."""
    histograms = [np.bincount(images[:, channel].reshape(-1), minlength=256) for channel in range(images.shape[1])]
    mean, std = [], []
    for channel, counts in enumerate(histograms):
        n, total, squares = (int((counts * np.arange(256) ** power).sum()) for power in range(3))
        variance = n * squares - total * total
        if variance == 0:
            raise FormatError(path=source, reason=f"x_train: every pixel of channel {channel} is the same")
        mean.append(total / n / 255)
        std.append(variance**0.5 / n / 255)
    return tuple(mean), tuple(std)


def _digest(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        digest.update(repr(split.images.shape).encode())
        digest.update(split.images.tobytes())
        digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()
