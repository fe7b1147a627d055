"""What the suites share: one long-lived Lava child, and the backend that `--target` names."""

from __future__ import annotations

from pathlib import Path

import pytest
from networks import deployed, fed

from toolchain import emulate, export, heap, simulate

WITHOUT_LAVA = "Lava is not installed"


def pytest_configure():
    heap.keep_freed()  # as every command does


def pytest_addoption(parser):
    parser.addoption(
        "--target", choices=["emulator", "lava"], default="emulator", help="backend that the target suite runs on"
    )


def pytest_collection_modifyitems(config, items):
    on_lava = config.getoption("target") == "lava"
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "lava" in fixtures or (on_lava and "target" in fixtures):
            item.add_marker(pytest.mark.lava)
        if item.get_closest_marker("lava") and not simulate._is_installed():
            item.add_marker(pytest.mark.skip(reason=WITHOUT_LAVA))


def _segments():
    return {entry.name for entry in Path("/dev/shm").iterdir()}


@pytest.fixture(scope="session")
def lava():
    """A Lava session for the whole run; importing Lava takes ten seconds."""
    before = _segments()
    with simulate.Session() as session:
        yield session
        name = session.name
    assert not any(name in entry for entry in _segments() - before)


@pytest.fixture
def run_on_lava(lava, tmp_path):
    """Run a network on Lava by way of its exported file."""

    def run(network, images, kernels="stock"):
        path = tmp_path / "network.net"
        path.write_bytes(export.pack(deployed(network)))
        names = [layer.name for layer in network.layers]
        return lava.run(
            path, fed(network, images), timesteps=network.timesteps, kernels=kernels, record=True, layers=names
        )

    return run


@pytest.fixture
def target(request):
    """Run a network on the backend that `--target` names, recording every spike."""
    if request.config.getoption("target") == "lava":
        return request.getfixturevalue("run_on_lava")
    return lambda network, images: emulate.run(network, images, record=True)
