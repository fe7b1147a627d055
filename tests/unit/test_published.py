"""Published data sets and folders of images, from files a test makes; nothing is downloaded."""

import hashlib
import pickle
import sys

import numpy as np
import pytest

from toolchain import data, recipe
from toolchain.errors import ConfigError, FormatError

RNG = np.random.default_rng(0)


def settings(folder, **more):
    return recipe.DataSettings(folder=str(folder), **more)


def sentence(verb, source, given=None):
    with pytest.raises((FormatError, ConfigError)) as caught:
        verb(source, given or recipe.DataSettings())
    return str(caught.value)


@pytest.fixture
def fashion(tmp_path):
    """A folder with Fashion-MNIST's files, of few images, as torchvision unpacks them."""
    pytest.importorskip("torchvision")
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    content = {}
    for name, n in (("train", 40), ("t10k", 12)):
        images, labels = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)
        header = b"".join(value.to_bytes(4, "big") for value in (0x803, n, 28, 28))
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = b"".join(value.to_bytes(4, "big") for value in (0x801, n))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
        content[name] = images, labels
    return tmp_path, content


def test_fashion_mnist_is_read_from_torchvisions_folder(fashion):
    folder, content = fashion
    loaded, test = data.load("fashion-mnist", settings(folder)), data.load_test("fashion-mnist", settings(folder))
    assert loaded.shape == (1, 28, 28)
    assert len(loaded.train) + len(loaded.validation) == 40
    assert np.array_equal(test.images[:, 0], content["t10k"][0])
    assert np.array_equal(test.labels, content["t10k"][1])
    pixels = {image.tobytes() for part in (loaded.train, loaded.validation) for image in part.images}
    assert pixels == {image.tobytes() for image in content["train"][0]}
    assert data.load("fashion-mnist", settings(folder, average=2)).shape == (1, 14, 14)


def test_training_does_not_touch_the_test_files(fashion):
    folder, _ = fashion
    before = data.load("fashion-mnist", settings(folder)).sha256
    for path in (folder / "FashionMNIST" / "raw").glob("t10k*"):
        path.write_bytes(b"poison")
    assert data.load("fashion-mnist", settings(folder)).sha256 == before


def cifar(monkeypatch, folder, kind, key, names):
    """A folder with CIFAR's batches, of few images, whose hashes torchvision takes for the published ones."""
    datasets = pytest.importorskip("torchvision.datasets")
    dataset = getattr(datasets, kind)
    (folder / dataset.base_folder).mkdir()
    content = {}
    for part, files in names.items():
        listed = []
        for name in files:
            images, labels = RNG.integers(0, 256, (20, 3072), dtype=np.uint8), [n % 10 for n in range(20)]
            blob = pickle.dumps({"data": images, key: labels})
            (folder / dataset.base_folder / name).write_bytes(blob)
            listed.append([name, hashlib.md5(blob).hexdigest()])
            content.setdefault(part, []).append(images.reshape(20, 3, 32, 32))
        monkeypatch.setattr(dataset, f"{part}_list", listed)
    return dataset, {part: np.concatenate(images) for part, images in content.items()}


@pytest.mark.parametrize(
    ("name", "kind", "key", "names"),
    [
        ("cifar10", "CIFAR10", "labels", {"train": ["data_batch_1", "data_batch_2"], "test": ["test_batch"]}),
        ("cifar100", "CIFAR100", "fine_labels", {"train": ["train"], "test": ["test"]}),
    ],
)
def test_cifar_is_read_from_torchvisions_folder(monkeypatch, tmp_path, name, kind, key, names):
    dataset, content = cifar(monkeypatch, tmp_path, kind, key, names)
    test = data.load_test(name, settings(tmp_path))
    assert np.array_equal(test.images, content["test"])
    assert test.labels[:12].tolist() == [*range(10), 0, 1]
    path = tmp_path / dataset.base_folder / dataset.test_list[0][0]
    path.write_bytes(b"poison")
    loaded = data.load(name, settings(tmp_path))
    assert len(loaded.train) + len(loaded.validation) == len(content["train"])
    assert loaded.shape == (3, 32, 32)
    expected = f"{path}: not the published file (its MD5 differs); nothing of it was read"
    assert sentence(data.load_test, name, settings(tmp_path)) == expected


@pytest.mark.parametrize(("name", "kind"), [("fashion-mnist", "FashionMNIST"), ("cifar10", "CIFAR10")])
def test_what_is_not_there_is_not_downloaded_but_explained(tmp_path, name, kind):
    pytest.importorskip("torchvision")
    assert sentence(data.load, name, settings(tmp_path)) == (
        f"{tmp_path}: {kind} is not there, and nothing is downloaded unasked; set data.folder, or get it with: "
        f"python -c \"from torchvision.datasets import {kind} as D; D('{tmp_path}', download=True)\""
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "source", "wanted"),
    [
        ("torchvision.datasets", "cifar10", "cifar10 takes torchvision"),
        ("PIL.Image", "", "a folder of images takes Pillow"),
    ],
)
def test_a_missing_library_is_one_sentence(monkeypatch, tmp_path, module, source, wanted):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    found = sentence(data.load, source or str(tmp_path), settings(tmp_path))
    assert found == f"data.source: {wanted}: pip install 'rsnn-deploy[datasets]', or give data.source an .npz file"


def picture(path, pixels):
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def tiny_imagenet(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    train, test = {}, {}
    for label, name in enumerate(("n02", "n01")):
        for index in range(4):
            path = root / "train" / name / "images" / f"{name}_{index}.png"
            train[label, index] = picture(path, RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    lines = []
    for index, name in enumerate(("n01", "n02", "n01")):
        test[index] = picture(
            root / "val" / "images" / f"val_{index}.png", RNG.integers(0, 256, (64, 64), dtype=np.uint8)
        )
        lines.append(f"val_{index}.png\t{name}\t0\t0\t9\t9\n")
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return tmp_path, train, test


def test_tiny_imagenet_is_read_as_it_unpacks_its_validation_images_as_test_set(tiny_imagenet):
    folder, train, test = tiny_imagenet
    found = data.load_test("tinyimagenet", settings(folder))
    assert found.labels.tolist() == [1, 0, 1]
    assert all(np.array_equal(image, np.stack([test[index]] * 3)) for index, image in enumerate(found.images))
    loaded = data.load("tinyimagenet", settings(folder, validation=0.25))
    assert (loaded.shape, loaded.n_classes) == ((3, 64, 64), 2)
    expected = {(label, image.transpose(2, 0, 1).tobytes()) for (label, _), image in train.items()}
    splits = (loaded.train, loaded.validation)
    assert {(int(y), x.tobytes()) for part in splits for x, y in zip(part.images, part.labels, strict=True)} == expected


def test_a_tiny_imagenet_that_is_not_there_names_its_archive(tmp_path):
    found = sentence(data.load, "tinyimagenet", settings(tmp_path))
    assert found.startswith(f"{tmp_path}/tiny-imagenet-200: not TinyImageNet (")
    assert found.endswith("; unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip into data.folder")


@pytest.fixture
def folder(tmp_path):
    """A folder of gray images of two classes."""
    for part, n in (("train", 6), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for index in range(n):
                picture(tmp_path / part / name / f"{index}.png", np.full((8, 10), 40 * label + index, np.uint8))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    return tmp_path


def test_a_folder_of_images_is_a_data_set_whose_classes_are_its_folders(folder):
    loaded, test = data.load(str(folder)), data.load_test(str(folder))
    assert (loaded.shape, loaded.n_classes) == ((1, 8, 10), 2)
    assert len(loaded.train) + len(loaded.validation) == 12
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert test.images[:, 0, 0, 0].tolist() == [0, 1, 40, 41]


def test_colours_are_kept_where_the_first_training_image_has_them(folder):
    picture(folder / "train" / "cat" / "0.png", RNG.integers(0, 256, (8, 10, 3), dtype=np.uint8))
    assert data.load(str(folder)).shape == (3, 8, 10)
    assert data.load_test(str(folder)).images.shape == (4, 3, 8, 10)


def test_images_of_several_sizes_are_refused_or_scaled(folder):
    path = folder / "train" / "dog" / "3.png"
    picture(path, np.full((20, 16), 9, np.uint8))
    expected = f"{path}: 16x20 pixels where 0.png has 10x8; set data.size to scale all to one size"
    assert sentence(data.load, str(folder)) == expected
    assert data.load(str(folder), settings("", size=12)).shape == (1, 12, 12)


@pytest.mark.parametrize(
    ("make", "verb", "expected"),
    [
        (lambda root: (root / "train" / "dog" / "9.png").write_bytes(b"no"), data.load,
         "train/dog/9.png: not an image (UnidentifiedImageError)"),
        (lambda root: (root / "test" / "cow").mkdir(), data.load_test, "test: class cow has no folder in train"),
        (lambda root: (root / "train").rename(root / "other"), data.load,
         "train: cannot be read: No such file or directory; expected a folder of each class, such as train/cat"),
    ],
)  # fmt: skip
def test_a_wrong_folder_is_one_sentence(folder, make, verb, expected):
    make(folder)
    assert sentence(verb, str(folder)) == f"{folder}/{expected}"


def test_a_folder_without_images_says_what_it_should_hold(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    expected = "expected images in train/CLASS/, such as train/cat/1.png; found none"
    assert sentence(data.load, str(tmp_path)) == f"{tmp_path}: {expected}"
