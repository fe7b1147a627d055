"""Whoever is killed at whatever moment of a run, nothing of it is left: no process, no shared memory, no file.

The moments are spread evenly over a run's whole life, from its first process to well into its samples.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from bench import vgg
from networks import deployed, seeded
from remains import assert_nothing_left, processes, shared_memory

from toolchain import export, simulate
from toolchain.errors import BackendError

pytestmark = [pytest.mark.lava, pytest.mark.slow, pytest.mark.scale]

ROOT = Path(__file__).parents[2]
KILLS = 20
KILLS_OF_A_VGG = 3
SAMPLES = 4000
WAIT_S = 300
USER = """
    import sys
    import numpy as np
    from toolchain import simulate
    with simulate.Session() as session:
        print(session.name, flush=True)
        for part in session.stream(sys.argv[1], np.load(sys.argv[2]), timesteps=int(sys.argv[3]), kernels="fast"):
            print("samples", flush=True)
"""


def saved(folder, network, shown):
    """A network's file, its messages' file, and its steps."""
    (folder / "network.net").write_bytes(export.pack(deployed(network)))
    np.save(folder / "messages.npy", network.input.encode(shown).repeat(SAMPLES // len(shown), axis=0))
    return str(folder / "network.net"), str(folder / "messages.npy"), str(network.timesteps)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    case = seeded(6)
    return saved(tmp_path_factory.mktemp("small"), case.network, case.images)


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("vgg16"), vgg.build(16), vgg.images(2))


@contextlib.contextmanager
def user(files):
    """A process that simulates, in a group of its own, and the name of its session."""
    command = [sys.executable, "-c", textwrap.dedent(USER), *files]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True
    ) as process:
        try:
            name = process.stdout.readline().strip()
            assert name.startswith("rsnn-")
            yield process, name
        finally:
            process.kill()


def life_s(files):
    """How long a run takes to its first samples, and a little more."""
    with user(files) as (process, name):
        began = time.monotonic()
        assert process.stdout.readline() == "samples\n"
        taken = time.monotonic() - began
        assert len(processes(name)) > 8
        assert shared_memory(name)
    assert_nothing_left(name, within_s=WAIT_S)
    return 1.2 * taken


def kill(process, name, whom, rng):
    if whom == "the group":
        os.killpg(process.pid, signal.SIGKILL)
    elif whom == "the user":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(sorted(processes(name))), signal.SIGKILL)


def assert_kills_leave_nothing(files, whom, kills):
    rng, life = random.Random(0), life_s(files)
    for number in range(kills):
        with user(files) as (process, name):
            time.sleep(life * (number + rng.random()) / kills)
            kill(process, name, whom, rng)
            assert process.wait(WAIT_S) != 0  # the user of a killed Lava gets an error
        assert_nothing_left(name, within_s=WAIT_S)


@pytest.mark.parametrize("whom", ["the group", "the user"])
def test_a_killed_user_leaves_nothing(small, whom):
    assert_kills_leave_nothing(small, whom, KILLS)


@pytest.mark.parametrize("whom", ["the group", "the user", "one of Lava's processes"])
def test_a_killed_run_of_a_vgg16_leaves_nothing(vgg16, whom):
    assert_kills_leave_nothing(vgg16, whom, KILLS_OF_A_VGG)


def test_a_killed_process_of_lavas_is_an_error_and_the_session_goes_on(small):
    rng = random.Random(1)
    net, messages, timesteps = small[0], np.load(small[1]), int(small[2])
    with simulate.Session() as session:
        expected = session.run(net, messages[:3], timesteps=timesteps).logits.tolist()
        for number in range(KILLS):

            def strike(delay=number / KILLS, name=session.name):
                time.sleep(delay)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(sorted(processes(name))), signal.SIGKILL)

            striker = threading.Thread(target=strike)
            striker.start()
            with pytest.raises(BackendError):
                session.run(net, messages, timesteps=timesteps, record=False)
            striker.join()
            assert session.name is None or shared_memory(session.name) == []
            assert session.run(net, messages[:3], timesteps=timesteps).logits.tolist() == expected
        name = session.name
    assert_nothing_left(name, within_s=WAIT_S)
