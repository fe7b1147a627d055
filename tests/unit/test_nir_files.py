"""Files that are no graphs, or more than that: refused before memory is asked for, and never followed elsewhere."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from toolchain import nirfile
from toolchain.errors import FormatError, ToolchainError

pytest.importorskip("nir")

GRAPHS = Path(__file__).parents[1] / "graphs"
SHAPE = (1, 8, 8)


def read(path):
    return nirfile.read(path, SHAPE, timesteps=4, dt=1e-4)


@pytest.fixture
def graph(tmp_path):
    return Path(shutil.copy(GRAPHS / "spikingjelly.nir", tmp_path / "a.nir"))


def huge(nodes):
    del nodes["_0/weight"]
    nodes.create_dataset("_0/weight", shape=(1 << 20, 1 << 16), dtype="f8", chunks=(1024, 1024))


def soft(nodes):
    nodes["more"] = h5py.SoftLink("/node/nodes/_0")


def outside(nodes):
    nodes["more"] = h5py.ExternalLink("other.nir", "/node")


def circle(nodes):
    nodes["more"] = nodes


def elsewhere(nodes):
    del nodes["_0/weight"]
    nodes.create_dataset("_0/weight", shape=(4,), dtype="f8", external=[("other", 0, 32)])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (huge, "more than any network's"),
        (soft, "/node/nodes/more is a link to something else"),
        (outside, "/node/nodes/more is a link to something else"),
        (circle, "/node/nodes/more is in it twice"),
        (elsewhere, "/node/nodes/_0/weight is in another file"),
    ],
)
def test_a_file_that_refers_elsewhere_or_is_too_large_is_refused(graph, change, reason):
    read(graph)
    with h5py.File(graph, "r+") as file:
        change(file["node/nodes"])
    with pytest.raises(FormatError) as error:
        read(graph)
    assert str(error.value).startswith(f"{graph}: ")
    assert str(error.value).endswith(reason)


def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path):
    content, path = np.frombuffer((GRAPHS / "norse.nir").read_bytes(), dtype=np.uint8), tmp_path / "a.nir"
    rng, refused = random.Random(0), 0
    places = np.flatnonzero(content).tolist()
    for _ in range(40):
        damaged = content.copy()
        for place in rng.sample(places, 20):
            damaged[place] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])].tobytes())
        try:
            read(path)
        except ToolchainError:
            refused += 1
    assert refused > 10
