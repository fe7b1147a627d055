"""What stock Lava once computed is what the emulator, the reference and, with `--target lava`, Lava compute today."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from traces import differences

from toolchain import export
from toolchain.emulate import reference
from toolchain.trace import Trace

FILES = sorted(Path(__file__).parent.glob("*.net"))


def golden(path: Path):
    """Return the network of a golden file, its images, and the trace that stock Lava made of them."""
    network = export.read(path).network
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
        images, logits = stored["images"], stored["logits"]
        shapes = [(len(images), network.timesteps, *shape) for shape in network.shapes[:-1]]
        spikes = tuple(
            np.unpackbits(stored[f"spikes{index}"], count=int(np.prod(shape))).reshape(shape).astype(bool)
            for index, shape in enumerate(shapes)
        )
    names = tuple(layer.name for layer in network.layers)
    counts = tuple(layer.sum(axis=1, dtype=np.int32) for layer in spikes)
    return network, images, Trace(backend="golden", layers=names, logits=logits, counts=counts, spikes=spikes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_target_spikes_as_stock_lava_did(target, path):
    network, images, expected = golden(path)
    assert differences(expected, target(network, images)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_reference_spikes_as_stock_lava_did(path):
    network, images, expected = golden(path)
    assert differences(expected, reference.run(network, images, record=True)) == []


def test_every_layer_of_every_golden_network_spikes_but_not_always():
    rates = [spikes.mean() for path in FILES for spikes in golden(path)[2].spikes]
    assert len(FILES) == 8
    assert min(rates) > 0
    assert max(rates) < 1
