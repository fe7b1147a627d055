"""Lava itself: exactness, alignment and order on small networks, and that no failure leaves anything behind.

Three children are started: the shared session's, and one each for the two ways a user's process ends.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from remains import assert_nothing_left, leaves, processes, segments, shared_memory

from toolchain import simulate
from toolchain.emulate import reference
from toolchain.errors import BackendError
from toolchain.ir import Conv, Dense, Input, Network, Neuron, Readout

pytestmark = pytest.mark.lava

T = 5


def network(seed, *, shape=(2, 7, 6), convs=1, dense=True, stride=(1, 1), dilation=(1, 1), groups=1):
    """A network whose layers spike, with maps that are not square, signed messages and theta per channel."""
    rng = np.random.default_rng(seed)
    weights = lambda *size: rng.integers(-60, 61, size)  # noqa: E731
    layers, source, theta = [], shape, 9000
    for index in range(convs):
        neuron = Neuron(theta=rng.integers(theta // 2, theta, 4), bias=rng.integers(-60, 60, 4))
        weight = weights(4, source[0] // groups, 3, 2)
        shared = {"stride": stride, "padding": (1, 2), "dilation": dilation, "groups": groups}
        layers.append(Conv(name=f"c{index}", weight=weight, neuron=neuron, **shared))
        source, theta = layers[-1].output_shape(source), 60
    if dense:
        neuron = Neuron(theta=rng.integers(theta, 2 * theta, 9), bias=rng.integers(-20, 20, 9))
        layers.append(Dense(name="d", weight=weights(9, int(np.prod(source))), neuron=neuron))
        source = (9, 1, 1)
    readout = Readout(name="out", weight=weights(5, int(np.prod(source))), bias=rng.integers(-99, 99, 5))
    offset = rng.integers(90, 160, shape[0])
    return Network(input=Input(shape=shape, offset=offset), layers=tuple(layers), readout=readout, timesteps=T)


def write(path, network):
    """The network as a netx file, written by hand so that nothing of `export` is assumed."""
    with h5py.File(path, "w") as file:
        group, flat = file.create_group("layer"), False

        def add(kind, **entries):
            entry = group.create_group(str(len(group)))
            entry["type"] = np.array([kind.encode()])
            for name, value in entries.items():
                entry[name] = value
            return entry

        add("input", shape=np.array(network.input.shape))
        for layer, source, shape in network.wired():
            if isinstance(layer, Conv):
                settings = {name: np.array(getattr(layer, name)) for name in ("stride", "padding", "dilation")}
                entry = add("conv", shape=np.array(shape), groups=layer.groups, **settings)
            else:
                if not flat:
                    add("flatten", shape=np.array([np.prod(source)]))
                entry, flat = add("dense", shape=np.array([shape[0]])), True
            entry["weight"] = layer.weight
            neuron = Neuron(theta=1 << 17, bias=layer.bias) if isinstance(layer, Readout) else layer.neuron
            entry["bias"] = neuron.bias.transpose()
            entry["neuron/type"] = np.array([b"CUBA"])
            entry["neuron/vThMant"] = neuron.theta - 1
            entry["neuron/iDecay"] = neuron.i_decay
            entry["neuron/vDecay"] = neuron.v_decay
    return path


def pixels(network, samples, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (samples, *network.input.shape), dtype=np.uint8)


def assert_only_the_session_left(session):
    """The supervisor and the child with its import: three processes at most, while a tracker ends."""
    assert shared_memory(session.name) == []
    assert len(processes(session.name)) == 2
    assert list(Path("/tmp", session.name, "groups").iterdir()) != []
    assert [path.name for path in Path("/tmp", session.name).iterdir() if path.name.isdigit()] == []


NETWORKS = {
    "conv, dense": network(1),
    "convs": network(2, convs=3, dense=False),
    "strided": network(3, shape=(1, 9, 8), convs=2, stride=(2, 1), dilation=(1, 2)),
    "groups": network(4, shape=(4, 6, 5), convs=2, groups=2),
    "dense first": network(5, convs=0),
}


@pytest.mark.parametrize("kernels", ["stock", "fast"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_spike_and_logit_is_the_specifications(lava, tmp_path, kind, kernels):
    net, done = NETWORKS[kind], []
    images = pixels(net, 7)
    expected = reference.run(net, images, record=True)
    actual = lava.run(
        write(tmp_path / "n.net", net),
        net.input.encode(images),
        timesteps=T,
        kernels=kernels,
        layers=[layer.name for layer in net.layers],
        progress=done.append,
    )
    assert actual.backend == f"lava ({kernels} kernels)"
    assert actual.layers == expected.layers
    for name, count, spikes in zip(actual.layers, expected.counts, expected.spikes, strict=True):
        assert 0.02 < spikes.mean() < 0.98, f"{name} proves nothing"
        index = actual.layers.index(name)
        assert np.array_equal(actual.spikes[index], spikes), name
        assert np.array_equal(actual.counts[index], count), name
    assert np.array_equal(actual.logits, expected.logits)
    assert done[-1] == 7
    assert done == sorted(set(done))
    assert_only_the_session_left(lava)


def test_without_a_record_counts_and_logits_are_the_same(lava, tmp_path):
    net = NETWORKS["conv, dense"]
    images = pixels(net, 2)
    expected = reference.run(net, images)
    actual = lava.run(write(tmp_path / "n.net", net), net.input.encode(images), timesteps=T, record=False)
    assert actual.spikes is None
    assert actual.layers == ("layer/1", "layer/3")
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(actual.counts, expected.counts, strict=True))
    assert np.array_equal(actual.logits, expected.logits)


def test_lava_waits_for_a_slow_reader(lava, tmp_path, monkeypatch):
    monkeypatch.setattr(simulate, "_AHEAD_BYTES", 1)
    net = NETWORKS["conv, dense"]
    images, files, logits = pixels(net, 20), [], []
    for part in lava.stream(write(tmp_path / "n.net", net), net.input.encode(images), timesteps=T):
        time.sleep(0.05)
        files.append(len(list(Path("/tmp", lava.name).glob("*/*-*"))))
        logits += part.logits.tolist()
    assert max(files) <= 3 * len(net.chain)
    assert np.array_equal(logits, reference.run(net, images).logits)


def test_all_shared_memory_of_a_run_carries_the_sessions_name(lava, tmp_path):
    net, seen = NETWORKS["conv, dense"], set()
    before = segments()
    lava.run(
        write(tmp_path / "n.net", net),
        net.input.encode(pixels(net, 2)),
        timesteps=T,
        progress=lambda _: seen.update(segments() - before),
    )
    others = {entry for entry in seen if entry.startswith("rsnn-") and lava.name not in entry}
    assert seen - others
    assert all(entry.startswith(f"{lava.name}-") for entry in seen - others)


def test_a_file_can_be_rewritten_after_a_run(lava, tmp_path):
    for kind in ("conv, dense", "convs"):
        net = NETWORKS[kind]
        images = pixels(net, 1)
        actual = lava.run(write(tmp_path / "n.net", net), net.input.encode(images), timesteps=T)
        assert np.array_equal(actual.logits, reference.run(net, images).logits)


def test_a_layer_that_netx_would_skip_is_refused(lava, tmp_path):
    net = NETWORKS["conv, dense"]
    path = write(tmp_path / "n.net", net)
    with h5py.File(path, "a") as file:
        file["layer/2/type"][...] = np.array([b"fold"])
    with pytest.raises(BackendError) as raised:
        lava.run(path, net.input.encode(pixels(net, 1)), timesteps=T)
    assert str(raised.value) == f"lava: {path} has layers of type fold, which netx skips or cannot run"
    assert_only_the_session_left(lava)


def test_messages_of_another_shape_are_refused(lava, tmp_path):
    path = write(tmp_path / "n.net", NETWORKS["conv, dense"])
    with pytest.raises(BackendError) as raised:
        lava.run(path, np.zeros((1, 2, 6, 7), dtype=np.int32), timesteps=T)
    assert str(raised.value) == f"lava: {path} takes messages of shape (2, 7, 6), got (2, 6, 7)"


def test_a_file_that_is_no_netx_file_is_refused(lava, tmp_path):
    (tmp_path / "n.net").write_text("not HDF5")
    with pytest.raises(BackendError, match="is not a netx file"):
        lava.run(tmp_path / "n.net", np.zeros((1, 1, 2, 2), dtype=np.int32), timesteps=T)


def test_a_model_that_raises_is_named_with_its_traceback_and_the_session_goes_on(lava, tmp_path):
    net = NETWORKS["conv, dense"]
    path = write(tmp_path / "n.net", net)
    with h5py.File(path, "a") as file:
        del file["layer/3/neuron/vThMant"]
        file["layer/3/neuron/vThMant"] = np.arange(1, 8)  # 7 thresholds for 9 neurons
    began = time.monotonic()
    with pytest.raises(BackendError) as raised:
        lava.run(path, net.input.encode(pixels(net, 3)), timesteps=T)
    assert time.monotonic() - began < 30  # the time limit is minutes
    assert raised.value.reason.startswith(
        "process layer/3 neurons (PyLifResetModelBitAcc) failed: ValueError: operands could not be broadcast"
    )
    assert "in spiking_activation" in raised.value.reason
    assert_only_the_session_left(lava)
    images = pixels(net, 1)
    actual = lava.run(write(tmp_path / "n.net", net), net.input.encode(images), timesteps=T)
    assert np.array_equal(actual.logits, reference.run(net, images).logits)


@pytest.mark.parametrize("which", ["a leaf", "the main process"])
def test_a_lava_process_that_is_killed_is_named(lava, tmp_path, which):
    net, killed = NETWORKS["conv, dense"], []

    def kill(done):
        if killed:  # news sent before the end may come after it, when others have these places
            return
        killed.append(done)
        victims = leaves(lava.name)
        os.kill(victims[-2] if which == "a leaf" else processes(lava.name)[victims[0]], signal.SIGKILL)

    began = time.monotonic()
    with pytest.raises(BackendError) as raised:
        lava.run(
            write(tmp_path / "n.net", net),
            net.input.encode(pixels(net, 3000)),
            timesteps=T,
            progress=kill,
            record=False,
        )
    assert time.monotonic() - began < 30  # the time limit is minutes
    assert raised.value.reason.partition("\n")[0].endswith("was killed by SIGKILL")
    assert_only_the_session_left(lava)


def test_a_run_that_hangs_ends_at_the_time_limit(lava, tmp_path):
    net, stopped = NETWORKS["conv, dense"], []

    def stop(done):
        if not stopped:
            stopped.append(done)
            os.kill(leaves(lava.name)[-2], signal.SIGSTOP)

    path, messages = write(tmp_path / "n.net", net), net.input.encode(pixels(net, 3000))
    began = time.monotonic()
    with pytest.raises(BackendError) as raised:
        lava.run(path, messages, timesteps=T, time_limit_s=12, progress=stop)
    assert stopped
    assert time.monotonic() - began < 30
    assert raised.value.reason.endswith("of 3000 samples were done after 12 s")
    assert_only_the_session_left(lava)


USER = """
    import sys
    import numpy as np
    from toolchain import simulate
    with simulate.Session() as session:
        try:
            session.run(sys.argv[1], np.load(sys.argv[2]), timesteps=5,
                        progress=lambda done: print(session.name, flush=True))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            raise
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_users_process_takes_everything_with_it(tmp_path, number):
    net = NETWORKS["conv, dense"]
    np.save(tmp_path / "messages.npy", net.input.encode(pixels(net, 3000)))
    command = [sys.executable, "-c", textwrap.dedent(USER), write(tmp_path / "n.net", net), tmp_path / "messages.npy"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True
    ) as user:
        name = user.stdout.readline().strip()
        assert name.startswith("rsnn-")
        assert len(processes(name)) > 8
        assert shared_memory(name)
        os.killpg(user.pid, number)  # as a terminal, or a job scheduler, does
        assert user.wait(10) == -number
        assert ("interrupted" in user.stdout.read()) == (number == signal.SIGINT)
    assert_nothing_left(name)
