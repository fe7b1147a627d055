"""Published data sets as torchvision leaves them on the disk, and folders of images. Nothing is ever downloaded."""

from __future__ import annotations

import importlib
import pickle
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolchain.data.split import Read, Split
from toolchain.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

Part = Literal["train", "test"]

NAMES = ("fashion-mnist", "cifar10", "cifar100", "tinyimagenet")
"""What `data.source` may name beside `digits` and paths."""

_TORCHVISION = {"fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
_TINY_IMAGENET = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def read(name: str, part: Part, folder: Path) -> Read:
    """One part of a published data set that lies in `folder`; the other is not opened. Raises ConfigError, FormatError."""
    if name == "tinyimagenet":
        return _tiny_imagenet(folder / "tiny-imagenet-200", part)
    datasets = _library("torchvision.datasets", name)
    kind = getattr(datasets, _TORCHVISION[name])
    images, labels = _fashion(kind, part, folder) if name == "fashion-mnist" else _cifar(kind, part, folder)
    split = Split(images=np.ascontiguousarray(images), labels=np.asarray(labels, dtype=np.int64))
    return Read(layout="NHW" if name == "fashion-mnist" else "NHWC", split=split)


def read_folder(folder: Path, part: Part, size: int) -> Read:
    """The images of `folder`/train/CLASS/ or `folder`/test/CLASS/, classes numbered in the order of their names.

    size: side to which they are scaled, or 0 where they are of one size. Gray if the first training image is, else RGB.
    Raises: ConfigError without Pillow, FormatError.
    """
    classes = _subfolders(folder / "train")
    if part == "test" and (others := set(_subfolders(folder / "test")) - set(classes)):
        raise FormatError(path=str(folder / "test"), reason=f"class {min(others)} has no folder in train")
    files = [(path, label) for label, name in enumerate(classes) for path in _images(folder / part / name)]
    sample = next((path for name in classes for path in _images(folder / "train" / name)), None)
    if sample is None or not files:
        wanted = f"expected images in {part}/CLASS/, such as {part}/{classes[0]}/1.png; found none"
        raise FormatError(path=str(folder), reason=wanted)
    mode = "L" if _open(sample).mode in {"1", "L"} else "RGB"
    return _decoded(files, mode, size)


def _fashion(kind: Any, part: Part, folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Fashion-MNIST by torchvision's reader, which reads the part asked for only."""
    try:
        found = kind(root=str(folder), train=part == "train", download=False)
    except (RuntimeError, OSError, ValueError, AssertionError):
        raise _absent(folder, "FashionMNIST") from None
    return found.data.numpy()[:, None], found.targets.numpy()


def _cifar(kind: Any, part: Part, folder: Path) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """CIFAR from its batches, which are pickles: unpickled only if their hash is the published one."""
    utils = _library("torchvision.datasets.utils", kind.__name__)
    images: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    for name, md5 in kind.train_list if part == "train" else kind.test_list:
        path = folder / kind.base_folder / name
        if not path.is_file():
            raise _absent(folder, kind.__name__)
        if not utils.check_integrity(str(path), md5):
            reason = "not the published file (its MD5 differs); nothing of it was read"
            raise FormatError(path=str(path), reason=reason)
        batch = pickle.loads(path.read_bytes(), encoding="latin1")  # noqa: S301 - the published bytes, see above
        images.append(np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
        labels += batch["labels"] if "labels" in batch else batch["fine_labels"]
    return np.concatenate(images), labels


def _tiny_imagenet(folder: Path, part: Part) -> Read:
    """TinyImageNet as it unpacks; its validation images are the test set, for its own test set has no labels."""
    try:
        names = (folder / "wnids.txt").read_text(encoding="utf-8").split()
        if part == "train":
            files = [
                (path, label)
                for label, name in enumerate(names)
                for path in _images(folder / "train" / name / "images")
            ]
        else:
            lines = (folder / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
            pairs = [line.split("\t")[:2] for line in lines if line]
            files = [(folder / "val" / "images" / file, names.index(name)) for file, name in pairs]
    except (OSError, ValueError) as error:
        reason = f"not TinyImageNet ({error}); unpack {_TINY_IMAGENET} into data.folder"
        raise FormatError(path=str(folder), reason=reason) from None
    if not files:
        raise FormatError(path=str(folder), reason=f"it has no images; unpack {_TINY_IMAGENET} into data.folder")
    return _decoded(files, "RGB", 0)


def _decoded(files: list[tuple[Path, int]], mode: str, size: int) -> Read:
    images: npt.NDArray[np.uint8] | None = None
    for index, (path, _) in enumerate(files):
        picture = _open(path).convert(mode)
        pixels = np.asarray(picture.resize((size, size), 2) if size else picture, dtype=np.uint8)  # 2: bilinear
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if images is None:
            images = np.empty((len(files), *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            sides = [f"{width}x{height}" for height, width in (pixels.shape[1:], images.shape[2:])]
            reason = (
                f"{sides[0]} pixels where {files[0][0].name} has {sides[1]}; set data.size to scale all to one size"
            )
            raise FormatError(path=str(path), reason=reason)
        images[index] = pixels
    assert images is not None
    labels = np.array([label for _, label in files], dtype=np.int64)
    return Read(layout="NHW" if mode == "L" else "NHWC", split=Split(images=images, labels=labels))


def _open(path: Path) -> Any:
    image = _library("PIL.Image", "a folder of images")
    try:
        with image.open(path) as opened:
            opened.load()
            return opened
    except Exception as error:  # noqa: BLE001 - what a hostile file makes Pillow raise has no bounds
        raise FormatError(path=str(path), reason=f"not an image ({type(error).__name__})") from None


def _subfolders(folder: Path) -> list[str]:
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        reason = f"cannot be read: {error.strerror}; expected a folder of each class, such as {folder.name}/cat"
        raise FormatError(path=str(folder), reason=reason) from None
    if not names:
        raise FormatError(path=str(folder), reason="expected a folder of each class, found none")
    return names


def _images(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in _IMAGES)


def _library(module: str, wanted_by: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0].replace("PIL", "Pillow")
        fault = f"{wanted_by} takes {package}: pip install 'rsnn-deploy[datasets]', or give data.source an .npz file"
        raise ConfigError(where="data.source", faults=(fault,)) from None


def _absent(folder: Path, kind: str) -> FormatError:
    get = f"""python -c "from torchvision.datasets import {kind} as D; D('{folder}', download=True)\""""
    reason = f"{kind} is not there, and nothing is downloaded unasked; set data.folder, or get it with: {get}"
    return FormatError(path=str(folder), reason=reason)
