import io
import zipfile

import numpy as np
import pytest
from toy import split, toy, write_npz

from toolchain import data, pipeline, recipe
from toolchain.errors import ConfigError, FormatError


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("executed",))


def sentence(path, **settings):
    with pytest.raises((FormatError, ConfigError)) as caught:
        data.load(str(path), recipe.DataSettings(**settings))
    return str(caught.value).removeprefix(f"{path}: ")


def test_digits_are_the_real_ones_in_uint8():
    from sklearn.datasets import load_digits

    loaded, test = data.load("digits"), data.load_test("digits")
    assert (len(loaded.train), len(loaded.validation), len(test)) == (1221, 216, 360)
    assert (loaded.shape, loaded.n_classes) == ((1, 8, 8), 10)
    pixels = np.concatenate([part.images for part in (loaded.train, loaded.validation, test)])
    expected = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, pixels)) == sorted(map(bytes, expected))


def test_the_split_is_the_same_in_every_version():
    assert data.load("digits").sha256 == "211777658e1e0b35d5a7a3fa8e5f1265861da554658c6927afb06bd8d2bbf600"
    assert data.load_test("digits").labels[:10].tolist() == [1, 6, 7, 2, 4, 5, 0, 7, 5, 1]


def test_no_test_image_is_a_training_or_validation_image():
    loaded, test = data.load("digits"), data.load_test("digits")
    parts = [{image.tobytes() for image in part.images} for part in (loaded.train, loaded.validation, test)]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]


def test_selection_cannot_reach_the_test_images():
    assert not hasattr(data.load("digits"), "test")


def test_mean_and_std_are_those_of_the_training_pixels():
    loaded = data.load("digits")
    pixels = loaded.train.images / 255
    assert loaded.mean == pytest.approx((pixels.mean(),))
    assert loaded.std == pytest.approx((pixels.std(),))


def test_images_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        data.load("digits").train.images[0] = 0


def test_an_npz_without_channel_axis_has_one_channel(tmp_path):
    shape = (24, 8, 8)
    path = write_npz(tmp_path / "d.npz")
    plain = write_npz(
        tmp_path / "e.npz",
        x_train=np.load(path)["x_train"][:, 0],
        x_test=np.load(path)["x_test"][:, 0],
    )
    assert data.load_test(str(plain)).images.shape == (24, 1, 8, 8)
    assert np.array_equal(data.load_test(str(plain)).images[:, 0], np.load(path)["x_test"][:, 0])
    assert np.load(plain)["x_test"].shape == shape
    assert data.load(str(plain)).layout == "NHW"


def test_the_channel_axis_is_the_one_that_can_be_it(tmp_path):
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 256, (96, 8, 10, 3)).astype(np.uint8), np.zeros((24, 8, 10, 3), np.uint8)
    last = write_npz(tmp_path / "last.npz", x_train=train, x_test=test)
    first = write_npz(tmp_path / "first.npz", x_train=train.transpose(0, 3, 1, 2), x_test=test.transpose(0, 3, 1, 2))
    one, other = data.load(str(last)), data.load(str(first))
    assert (one.layout, other.layout) == ("NHWC", "NCHW")
    assert one.shape == other.shape == (3, 8, 10)
    assert np.array_equal(one.train.images, other.train.images)
    assert one.sha256 == other.sha256


def test_an_axis_that_could_be_either_is_not_guessed(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (96, 3, 8, 3)).astype(np.uint8)
    path = write_npz(tmp_path / "d.npz", x_train=images, x_test=images[:24])
    expected = "x_train: shape (96, 3, 8, 3) does not tell which axis is the channels'; set data.layout to NCHW or NHWC"
    assert sentence(path) == expected
    assert data.load(str(path), recipe.DataSettings(layout="NHWC")).shape == (3, 3, 8)


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        ({"y_test": None},
         "expected the arrays x_train, y_train, x_test, y_test; y_test is missing, found x_train, y_train, x_test"),
        ({"x_train": np.zeros((96, 1, 8, 8))}, "x_train: expected uint8 pixels from 0 to 255, got float64"),
        ({"x_train": np.zeros((0, 1, 8, 8), np.uint8)},
         "x_train: expected images (N,H,W), (N,H,W,C) or (N,C,H,W), got shape (0, 1, 8, 8)"),
        ({"x_test": np.zeros((24, 8), np.uint8)},
         "x_test: expected images (N,H,W), (N,H,W,C) or (N,C,H,W), got shape (24, 8)"),
        ({"x_test": np.zeros((24, 1, 6, 8), np.uint8)},
         "x_test: expected images of shape (1, 8, 8) as in x_train, got (1, 6, 8)"),
        ({"y_train": np.arange(95) % 3}, "y_train: expected a label for each of 96 images, got 95"),
        ({"y_train": np.zeros((96, 1), int)}, "y_train: expected integers of shape (N,), got int64 of shape (96, 1)"),
        ({"y_train": np.zeros(96)}, "y_train: expected integers of shape (N,), got float64 of shape (96,)"),
        ({"y_train": np.zeros(96, int), "y_test": np.zeros(24, int)}, "y_train: expected at least two classes, got one"),
        ({"y_train": np.arange(96) % 2 * 2, "y_test": np.zeros(24, int)},
         "y_train: no image to train on has label 1 of 0 to 2; number the labels without gaps"),
        ({"y_test": np.zeros(20, int)}, "y_test: expected a label for each of 24 images, got 20"),
        ({"y_train": np.arange(96) % 3 - 1}, "y_train: expected labels from 0 to 1, the greatest of y_train, got -1 to 1"),
        ({"x_train": np.full((96, 1, 8, 8), 9, np.uint8)}, "x_train: every pixel of channel 0 is the same"),
        ({"y_train": np.array([Payload()] * 96)},
         "it holds arrays of Python objects, which could execute code; save plain uint8"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)  # fmt: skip
def test_a_wrong_file_is_one_sentence(tmp_path, capsys, replaced, expected):
    assert sentence(write_npz(tmp_path / "d.npz", **replaced)) == expected
    assert "executed" not in capsys.readouterr().out


def test_a_file_that_is_no_npz_is_one_sentence(tmp_path):
    path = tmp_path / "d.npz"
    path.write_bytes(b"hello")
    assert sentence(path) == "not an .npz file"
    assert sentence(tmp_path / "none.npz") == "cannot be read: No such file or directory"


def test_a_truncated_or_altered_file_is_one_sentence(tmp_path):
    whole = write_npz(tmp_path / "d.npz").read_bytes()
    path = tmp_path / "cut.npz"
    path.write_bytes(whole[: len(whole) // 2])
    assert sentence(path) == "not an .npz file"
    altered = bytearray(whole)
    altered[500] ^= 255
    path.write_bytes(altered)
    assert sentence(path).startswith("damaged: ")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{key}.npy", b"\x93NUMPY")
    path.write_bytes(buffer.getvalue())
    assert sentence(path).startswith("damaged: ")


def test_a_validation_share_that_leaves_nothing_is_one_sentence(tmp_path):
    path = write_npz(tmp_path / "d.npz")
    assert sentence(path, validation=0.001) == "validation: 0.001 of 96 training images leaves 0 and 96"


def test_a_test_label_without_a_training_image_is_refused_when_the_test_set_is_read(tmp_path):
    path = write_npz(tmp_path / "d.npz", y_test=np.full(24, 7))
    data.load(str(path))
    expected = f"{path}: y_test: expected labels from 0 to 2, the greatest of y_train, got 7 to 7"
    with pytest.raises(FormatError) as caught:
        data.load_test(str(path))
    assert str(caught.value) == expected


def large(path):
    """A data set whose test part is longer than what a zip file's reader reads ahead."""
    test = split(600, seed=1)
    return write_npz(path, x_test=test.images, y_test=test.labels)


def poisoned(path):
    """The same file with random bytes in place of its test images and labels, which cannot be read any more."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        for name in ("x_test.npy", "y_test.npy"):
            info = archive.getinfo(name)
            start = (
                info.header_offset
                + 30
                + int.from_bytes(content[info.header_offset + 28 : info.header_offset + 30], "little")
            )
            begin = start + len(name) + 128
            size = info.file_size - 128
            content[begin : begin + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(content)


def test_loading_takes_no_notice_of_test_images_or_labels(tmp_path):
    path = large(tmp_path / "d.npz")
    before = data.load(str(path))
    poisoned(path)
    after = data.load(str(path))
    assert after.sha256 == before.sha256
    assert np.array_equal(after.train.images, before.train.images)
    with pytest.raises(FormatError, match="damaged"):
        data.load_test(str(path))


def test_a_run_trains_the_same_model_whatever_the_test_set_is(tmp_path):
    made = {"train": {"epochs": 1}, "prune": {"epochs": 1}, "sparse": {"epochs": 1}, "finetune": {"epochs": 1}}
    path = large(tmp_path / "d.npz")
    settings = toy(data={"source": str(path)}, **made)
    expected = pipeline.run(settings, tmp_path / "one")["sha256"]
    poisoned(path)
    assert pipeline.run(settings, tmp_path / "other")["sha256"] == expected


def test_only_the_first_of_the_remaining_training_images_are_used(tmp_path):
    path = str(write_npz(tmp_path / "d.npz"))
    whole, few = data.load(path), data.load(path, recipe.DataSettings(train_images=30))
    assert np.array_equal(few.train.images, whole.train.images[:30])
    assert np.array_equal(few.train.labels, whole.train.labels[:30])
    assert np.array_equal(few.validation.images, whole.validation.images)
    assert few.mean == pytest.approx((whole.train.images[:30].mean() / 255,))


def test_pixels_are_averaged_and_rounded_in_every_part(tmp_path):
    path = str(write_npz(tmp_path / "d.npz"))
    settings = recipe.DataSettings(average=2)
    pairs = [
        (data.load(path).train, data.load(path, settings).train),
        (data.load_test(path), data.load_test(path, settings)),
    ]
    for whole, small in pairs:
        cells = [whole.images[:, :, y::2, x::2].astype(float) for y in (0, 1) for x in (0, 1)]
        assert np.array_equal(small.images, np.floor(sum(cells) / 4 + 0.5).astype(np.uint8))
        assert np.array_equal(small.labels, whole.labels)
    assert data.load(path, settings).shape == (1, 4, 4)
    assert sentence(path, average=3) == "data.average: 3x3 cells do not divide 8x8 images"


def test_extra_images_are_trained_on_but_neither_validate_nor_change_the_normalisation(tmp_path):
    path = str(write_npz(tmp_path / "d.npz"))
    more = split(10, seed=5)
    np.savez(tmp_path / "more.npz", x_train=255 - more.images[:, 0], y_train=more.labels)
    plain, extra = data.load(path), data.load(path, recipe.DataSettings(extra=str(tmp_path / "more.npz")))
    assert np.array_equal(extra.train.images, np.concatenate([plain.train.images, 255 - more.images]))
    assert np.array_equal(extra.train.labels, np.concatenate([plain.train.labels, more.labels]))
    assert np.array_equal(extra.validation.images, plain.validation.images)
    assert (extra.mean, extra.std) == (plain.mean, plain.std)
    assert extra.sha256 != plain.sha256


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x_train": np.zeros((4, 6, 8), np.uint8)},
         "x_train: expected images of shape (1, 8, 8) as in the data set, got (1, 6, 8)"),
        ({"y_train": np.full(4, 3)}, "y_train: expected labels from 0 to 2, the data set's greatest, got 3 to 3"),
        ({"y_train": None}, "expected the arrays x_train, y_train; y_train is missing, found x_train"),
    ],
)  # fmt: skip
def test_extra_images_must_suit_the_data_set(tmp_path, arrays, expected):
    path, more = write_npz(tmp_path / "d.npz"), tmp_path / "more.npz"
    arrays = {"x_train": np.zeros((4, 8, 8), np.uint8), "y_train": np.zeros(4, int), **arrays}
    np.savez(more, **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(FormatError) as caught:
        data.load(str(path), recipe.DataSettings(extra=str(more)))
    assert str(caught.value) == f"{more}: {expected}"
