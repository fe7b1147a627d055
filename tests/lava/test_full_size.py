"""Networks of the size that is deployed: every spike of every layer of VGGs and a wide ResNet on Lava is the emulator's."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import vgg, wide
from networks import deployed
from traces import differences

from toolchain import emulate, export

pytestmark = [pytest.mark.lava, pytest.mark.slow, pytest.mark.scale]

IMAGES = 10
SHARED_MEMORY_BYTES = 64 << 20
WRN_28_4 = 933_888, 1_662_976
"""Neurons and relays"""


def compared(lava, tmp_path, network, kernels, images):
    """What differs between the emulator and Lava, all layers and steps; the most shared memory seen on the way."""
    path = tmp_path / "network.net"
    path.write_bytes(export.pack(deployed(network)))
    shown, expected, done, most, different = vgg.images(images), emulate.Emulator(network), 0, 0, []
    names = [layer.name for layer in network.layers]
    for part in lava.stream(
        path, network.input.encode(shown), timesteps=network.timesteps, kernels=kernels, layers=names
    ):
        segments = Path("/dev/shm").glob(f"*{lava.name}*")
        most = max(most, sum(segment.stat().st_size for segment in segments))
        emulated = expected.run(shown[done : done + part.n_samples], record=True)
        assert all(0.02 < spikes.mean() < 0.5 for spikes in emulated.spikes)
        different += differences(emulated, part)
        done += part.n_samples
    assert done == images
    return different, most


@pytest.mark.parametrize("depth", [11, 16])
def test_a_vgg_with_fast_kernels_is_the_emulators_in_every_spike(lava, tmp_path, depth):
    network = vgg.build(depth)
    different, shared_bytes = compared(lava, tmp_path, network, "fast", IMAGES)
    assert different == []
    assert 0 < shared_bytes < SHARED_MEMORY_BYTES


def test_a_vgg11_on_stock_lava_is_the_emulators_in_every_spike(lava, tmp_path):
    network = vgg.build(11, timesteps=2)
    different, shared_bytes = compared(lava, tmp_path, network, "stock", 2)
    assert different == []
    assert 0 < shared_bytes < SHARED_MEMORY_BYTES


def test_wrn_28_4_with_fast_kernels_is_the_emulators_in_every_spike_relays_included(lava, tmp_path):
    network = wide.build()
    sizes = [(layer.n_relays, shape) for layer, _, shape in network.wired() if layer is not network.readout]
    relays = sum(n * shape[1] * shape[2] for n, shape in sizes)
    together = sum(shape[0] * shape[1] * shape[2] for _, shape in sizes)
    assert len(network.layers) == 25
    assert (together - relays, relays) == WRN_28_4
    different, shared_bytes = compared(lava, tmp_path, network, "fast", 2)
    assert different == []
    assert 0 < shared_bytes < SHARED_MEMORY_BYTES
