"""One Lava child for all tests that need Lava; importing Lava takes ten seconds."""

from pathlib import Path

import pytest

from toolchain import simulate


def pytest_collection_modifyitems(items):
    missing = not simulate._is_installed()
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.lava)
            if missing:
                item.add_marker(pytest.mark.skip(reason="Lava runs on Python 3.10 only"))


def segments():
    return {entry.name for entry in Path("/dev/shm").iterdir()}


@pytest.fixture(scope="session")
def lava():
    before = segments()
    with simulate.Session() as session:
        yield session
        name = session.name
    assert not any(name in entry for entry in segments() - before)
