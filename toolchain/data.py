"""Data sets as uint8 images, with a split that never changes and a test set that selection cannot reach.

`load` gives training and validation images only; `load_test` is for the final figures of a finished model and for the
samples of an export. Which image goes where depends on its index alone: no seed, no library version.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.errors import ConfigError, FormatError

if TYPE_CHECKING:
    import numpy.typing as npt

Shape = tuple[int, int, int]
"""(channels, height, width)"""

DIGITS_TEST = 360
"""Test images of `digits`, a fifth."""

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MAX_CHANNELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Images with their labels.

    Shapes: images uint8 (N, C, H, W); labels int64 (N,). Both are read-only.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for array in (self.images, self.labels):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int) -> Split:
        """The first n images, or all where there are fewer."""
        return Split(images=self.images[:n], labels=self.labels[:n])


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What training and selection may see of a data set.

    mean and std are those of the training pixels in [0, 1], per channel; sha256 is of all arrays, the test set's included;
    layout says how the file's axes were read.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrays:
    """A whole data set, training images before they are split."""

    layout: str
    train: Split
    test: Split


def load(source: str, *, layout: str = "auto", validation: float = 0.15) -> Data:
    """Training and validation images of `digits` or of an .npz file.

    Raises: FormatError for a file that is not a data set; ConfigError where the split leaves nothing.
    """
    arrays = _read(source, layout)
    total = len(arrays.train)
    n_validation = round(validation * total)
    if not 0 < n_validation < total:
        fault = (
            f"validation: {validation:g} of {total} training images leaves {n_validation} and {total - n_validation}"
        )
        raise ConfigError(where=source, faults=(fault,))
    order = _order(total)
    kept, aside = np.sort(order[n_validation:]), np.sort(order[:n_validation])
    train = Split(images=arrays.train.images[kept], labels=arrays.train.labels[kept])
    n_classes = _n_classes(source, arrays, train)
    mean, std = _statistics(source, train.images)
    return Data(
        source=source,
        layout=arrays.layout,
        shape=train.images.shape[1:],  # type: ignore[arg-type]
        n_classes=n_classes,
        mean=mean,
        std=std,
        sha256=_sha256(arrays),
        train=train,
        validation=Split(images=arrays.train.images[aside], labels=arrays.train.labels[aside]),
    )


def load_test(source: str, *, layout: str = "auto") -> Split:
    """The test images of a data set: for figures about finished models, never to choose anything by. Raises as `load`."""
    return _read(source, layout).test


def sha256(source: str, *, layout: str = "auto") -> str:
    """The hash of a data set, as `Data.sha256`. Raises as `load`."""
    return _sha256(_read(source, layout))


def _read(source: str, layout: str) -> _Arrays:
    return _digits() if source == "digits" else _npz(Path(source), layout)


def _digits() -> _Arrays:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = np.floor(bunch.images * 255 / 16 + 0.5).astype(np.uint8)[:, None]
    labels = np.asarray(bunch.target, dtype=np.int64)
    order = _order(len(labels))
    test, train = np.sort(order[:DIGITS_TEST]), np.sort(order[DIGITS_TEST:])
    return _Arrays(
        layout="NHW",
        train=Split(images=images[train], labels=labels[train]),
        test=Split(images=images[test], labels=labels[test]),
    )


def _order(n: int) -> npt.NDArray[np.int64]:
    """A fixed permutation of n indices, by their hash."""
    keys = [hashlib.sha256(f"rsnn-deploy split {index}".encode()).digest() for index in range(n)]
    return np.array(sorted(range(n), key=keys.__getitem__), dtype=np.int64)


def _npz(path: Path, layout: str) -> _Arrays:
    raw = _raw_arrays(path)
    x_train, y_train, x_test, y_test = (raw[key] for key in _KEYS)
    for key in ("x_train", "x_test"):
        if raw[key].dtype != np.uint8:
            raise _fault(path, f"{key}: expected uint8 pixels from 0 to 255, got {raw[key].dtype}")
        if raw[key].ndim not in {3, 4} or 0 in raw[key].shape:
            raise _fault(path, f"{key}: expected images (N,H,W), (N,H,W,C) or (N,C,H,W), got shape {raw[key].shape}")
    for key, images in (("y_train", x_train), ("y_test", x_test)):
        if raw[key].dtype.kind not in "iu" or raw[key].ndim != 1:
            raise _fault(
                path, f"{key}: expected integers of shape (N,), got {raw[key].dtype} of shape {raw[key].shape}"
            )
        if len(raw[key]) != len(images):
            raise _fault(path, f"{key}: expected a label for each of {len(images)} images, got {len(raw[key])}")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise _fault(
            path, f"x_test: expected images of shape {x_train.shape[1:]} as in x_train, got {x_test.shape[1:]}"
        )
    axes = _axes(path, x_train.shape, layout)
    n_classes = int(y_train.max()) + 1
    for key in ("y_train", "y_test"):
        if raw[key].min() < 0 or raw[key].max() >= n_classes:
            bounds = f"got {raw[key].min()} to {raw[key].max()}"
            raise _fault(path, f"{key}: expected labels from 0 to {n_classes - 1}, the greatest of y_train, {bounds}")
    train, test = (
        Split(images=_to_nchw(x, axes), labels=y.astype(np.int64)) for x, y in ((x_train, y_train), (x_test, y_test))
    )
    return _Arrays(layout=axes, train=train, test=test)


def _raw_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The four arrays, none of them of objects: loading those would execute code the file holds."""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise _fault(path, "not an .npz file")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                missing = [key for key in _KEYS if key not in archive]
                if missing:
                    found = ", ".join(archive.files) or "nothing"
                    raise _fault(
                        path, f"expected the arrays {', '.join(_KEYS)}; {missing[0]} is missing, found {found}"
                    )
                return {key: archive[key] for key in _KEYS}
    except OSError as error:
        raise _fault(path, f"cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        if "allow_pickle" in str(error):
            raise _fault(
                path, "it holds arrays of Python objects, which could execute code; save plain uint8"
            ) from None
        raise _fault(path, f"damaged: {error}") from None


def _axes(path: Path, shape: tuple[int, ...], layout: str) -> str:
    """Which axis of the images is the channels', or a FormatError where that is a guess."""
    if len(shape) == 3:
        return "NHW"
    if layout != "auto":
        return layout
    first, last = shape[1] <= _MAX_CHANNELS, shape[3] <= _MAX_CHANNELS
    if first == last:
        reason = f"x_train: shape {shape} does not tell which axis is the channels'; set data.layout to NCHW or NHWC"
        raise _fault(path, reason)
    return "NCHW" if first else "NHWC"


def _to_nchw(images: npt.NDArray[np.uint8], axes: str) -> npt.NDArray[np.uint8]:
    match axes:
        case "NHW":
            images = images[:, None]
        case "NHWC":
            images = images.transpose(0, 3, 1, 2)
    return np.array(images, order="C")


def _n_classes(source: str, arrays: _Arrays, train: Split) -> int:
    counts = np.bincount(train.labels, minlength=int(arrays.train.labels.max()) + 1)
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


def _sha256(arrays: _Arrays) -> str:
    digest = hashlib.sha256()
    for split in (arrays.train, arrays.test):
        digest.update(repr(split.images.shape).encode())
        digest.update(split.images.tobytes())
        digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _fault(path: Path, reason: str) -> FormatError:
    return FormatError(path=str(path), reason=reason)
