"""What Lava's processes write down is what a trace says, in PyTorch's order."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain.errors import BackendError
from toolchain.simulate import record
from toolchain.simulate.record import Layer, Writer

T, SAMPLES = 3, 2


def layer(tmp_path, kind="spikes", shape=(5, 4, 3), index=0):
    return Layer(
        name="a", index=index, shape=shape, kind=kind, first=2, timesteps=T, samples=SAMPLES, directory=str(tmp_path)
    )


def written(layer, frames):
    """Frames handed over from step 1 on; those of the samples are the ones from `first`."""
    writer = Writer(layer)
    for step, frame in enumerate(frames, start=1):
        writer.take(step, frame)


@pytest.mark.parametrize("kind", ["spikes", "counts"])
@pytest.mark.parametrize("dtype", [np.bool_, np.int32])
def test_spikes_come_back_in_torch_order(tmp_path, kind, dtype):
    frames = np.random.default_rng(0).random((9, 5, 4, 3)) < 0.4
    readout = layer(tmp_path, "sums", (2,), index=1)
    layers = [layer(tmp_path, kind), readout]
    written(layers[0], frames.astype(dtype))
    written(readout, np.arange(18).reshape(9, 2))
    trace = record.take(layers, [10, 0], range(SAMPLES), names=["x"], backend="b")
    expected = frames[1:7].reshape(SAMPLES, T, 5, 4, 3).transpose(0, 1, 4, 3, 2)
    assert np.array_equal(trace.counts[0], expected.sum(axis=1))
    assert trace.counts[0].dtype == np.int32
    if kind == "spikes":
        assert np.array_equal(trace.spikes[0], expected)
        assert trace.spikes[0].dtype == np.bool_
    else:
        assert trace.spikes is None
    assert trace.logits.tolist() == [[2 + 4 + 6 + 30, 3 + 5 + 7], [8 + 10 + 12 + 30, 9 + 11 + 13]]
    assert list(tmp_path.iterdir()) == []


def test_spikes_of_a_dense_layer_have_maps_of_one(tmp_path):
    written(layer(tmp_path, shape=(11,)), np.ones((9, 11), dtype=bool))
    written(layer(tmp_path, "sums", (2,), index=1), np.ones((9, 2), dtype=int))
    layers = [layer(tmp_path, shape=(11,)), layer(tmp_path, "sums", (2,), index=1)]
    assert record.take(layers, [], range(2), names=["x"], backend="b").spikes[0].shape == (2, T, 11, 1, 1)


def test_a_sample_has_no_file_before_its_last_step(tmp_path):
    kept = layer(tmp_path)
    written(kept, np.ones((3, 5, 4, 3), dtype=bool))
    assert list(tmp_path.iterdir()) == []
    written(kept, np.ones((4, 5, 4, 3), dtype=bool))
    assert [path.name for path in tmp_path.iterdir()] == ["0-0"]


@pytest.mark.parametrize("content", [b"", b"x" * 22, None])
def test_a_file_that_is_not_whole_is_an_error(tmp_path, content):
    kept = layer(tmp_path)
    if content is not None:
        kept.path(1).write_bytes(content)
    with pytest.raises(BackendError) as raised:
        kept.read(1)
    assert str(raised.value) == f"lava: 0-1 holds {len(content or b'')} bytes instead of 24. Run it again"


def test_a_description_comes_back(tmp_path):
    layers = [layer(tmp_path), layer(tmp_path, "sums", (2,), index=1)]
    record.describe(tmp_path, layers, [3, -4])
    assert record.described(tmp_path) == (layers, [3, -4])
