"""Data sets in an .npz file: x_train, y_train, x_test, y_test. Of a part that is not asked for, no image is read."""

from __future__ import annotations

import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolchain.data.split import Read, Split
from toolchain.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MAX_CHANNELS = 4


def read(path: Path, part: Literal["train", "test"], layout: str) -> Read:
    """One part of a data set; of the other only the shape of its images is looked at. Raises FormatError."""
    with opened(path, _KEYS) as archive:
        of_train, of_test = (_shape(path, archive, name) for name in ("train", "test"))
        if of_train[1:] != of_test[1:]:
            raise fault(path, f"x_test: expected images of shape {of_train[1:]} as in x_train, got {of_test[1:]}")
        axes = _axes(path, of_train, layout)
        labels, n_classes = archive[f"y_{part}"], int(archive["y_train"].max()) + 1
        _check_labels(path, f"y_{part}", labels, n_classes, "the greatest of y_train")
        images = _to_nchw(archive[f"x_{part}"], axes)
    return Read(layout=axes, split=Split(images=images, labels=labels.astype(np.int64)))


def read_extra(path: Path, shape: tuple[int, ...], n_classes: int, layout: str) -> Split:
    """More training images, x_train and y_train, pseudo-labelled for instance, of a data set's `shape`. Raises FormatError."""
    with opened(path, _KEYS[:2]) as archive:
        axes = _axes(path, _shape(path, archive, "train"), layout)
        images, labels = _to_nchw(archive["x_train"], axes), archive["y_train"]
    if images.shape[1:] != shape:
        raise fault(path, f"x_train: expected images of shape {shape} as in the data set, got {images.shape[1:]}")
    _check_labels(path, "y_train", labels, n_classes, "the data set's greatest")
    return Split(images=images, labels=labels.astype(np.int64))


def fault(path: Path | str, reason: str) -> FormatError:
    """What to raise where a file is not a data set."""
    return FormatError(path=str(path), reason=reason)


@contextmanager
def opened(path: Path, keys: Sequence[str] = (), *, plain: str = "uint8") -> Iterator[np.lib.npyio.NpzFile]:
    """The arrays of an .npz file, which has those of the `keys`, none of them of objects: loading those would execute code.

    plain: what to save instead of objects. Raises: FormatError, also for what goes wrong where the arrays are read.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise fault(path, "not an .npz file")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                missing = [key for key in keys if key not in archive]
                if missing:
                    found = ", ".join(archive.files) or "nothing"
                    raise fault(path, f"expected the arrays {', '.join(keys)}; {missing[0]} is missing, found {found}")
                yield archive
    except OSError as error:
        raise fault(path, f"cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            reason = f"it holds arrays of Python objects, which could execute code; save plain {plain}"
            raise fault(path, reason) from None
        raise fault(path, f"damaged: {' '.join(str(error).split())}") from None


def _shape(path: Path, archive: np.lib.npyio.NpzFile, part: str) -> tuple[int, ...]:
    """The shape of a part's images. Raises FormatError where they or their labels are not such; neither is read."""
    (shape, dtype), (labels, label_dtype) = (_header(archive, f"{letter}_{part}") for letter in "xy")
    if dtype.hasobject or label_dtype.hasobject:
        raise fault(path, "it holds arrays of Python objects, which could execute code; save plain uint8")
    if dtype != np.uint8:
        raise fault(path, f"x_{part}: expected uint8 pixels from 0 to 255, got {dtype}")
    if len(shape) not in {3, 4} or 0 in shape:
        raise fault(path, f"x_{part}: expected images (N,H,W), (N,H,W,C) or (N,C,H,W), got shape {shape}")
    if label_dtype.kind not in "iu" or len(labels) != 1:
        raise fault(path, f"y_{part}: expected integers of shape (N,), got {label_dtype} of shape {labels}")
    if labels[0] != shape[0]:
        raise fault(path, f"y_{part}: expected a label for each of {shape[0]} images, got {labels[0]}")
    return shape


def _header(archive: np.lib.npyio.NpzFile, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array that is not read."""
    with archive.zip.open(f"{key}.npy") as file:
        version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(file)  # type: ignore[no-untyped-call]
    return shape, dtype


def _check_labels(path: Path, key: str, labels: npt.NDArray[Any], n_classes: int, whose: str) -> None:
    if labels.min() < 0 or labels.max() >= n_classes:
        bounds = f"got {labels.min()} to {labels.max()}"
        raise fault(path, f"{key}: expected labels from 0 to {n_classes - 1}, {whose}, {bounds}")


def _axes(path: Path, shape: tuple[int, ...], layout: str) -> str:
    """Which axis of the images is the channels', or a FormatError where that is a guess."""
    if len(shape) == 3:
        return "NHW"
    if layout != "auto":
        return layout
    first, last = shape[1] <= _MAX_CHANNELS, shape[3] <= _MAX_CHANNELS
    if first == last:
        reason = f"x_train: shape {shape} does not tell which axis is the channels'; set data.layout to NCHW or NHWC"
        raise fault(path, reason)
    return "NCHW" if first else "NHWC"


def _to_nchw(images: npt.NDArray[np.uint8], axes: str) -> npt.NDArray[np.uint8]:
    match axes:
        case "NHW":
            images = images[:, None]
        case "NHWC":
            images = images.transpose(0, 3, 1, 2)
    return np.array(images, order="C")
