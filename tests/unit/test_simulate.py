"""The parts of `simulate` that need no Lava: supervision by a fake child, the files' order."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from toolchain import simulate
from toolchain.errors import BackendError, ConfigError, FormatError
from toolchain.simulate import supervisor

pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="watches /dev/shm and /proc")

# Ends only when killed, and so does what it forks; `{parent}` is where a fake child finds its channel.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
open(os.path.join(sys.argv[1], f"alive-{os.getpid()}"), "w").close()
time.sleep(60)
"""
READY = """
import os, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[2]))
channel.sendall(b'{"event": "ready"}\\n')
"""

# Does a sample of one layer and a readout whenever the one before has been taken, for ever; counts itself in logits.
STREAM = (
    """
import json
import numpy as np
from pathlib import Path
from toolchain.simulate import record
"""
    + READY
    + """
while True:
    request = json.loads(channel.recv(9999))
    directory = request["directory"]
    shared = {"first": 1, "timesteps": 2, "samples": request["samples"], "directory": directory}
    layers = [
        record.Layer(name="a", index=0, shape=(3, 2, 2), kind="spikes", **shared),
        record.Layer(name="b", index=1, shape=(2,), kind="sums", **shared),
    ]
    record.describe(Path(directory), layers, [])
    writers = [record.Writer(layer) for layer in layers]
    channel.sendall(b'{"event": "started", "limit_s": 60}\\n')
    channel.setblocking(False)
    for sample in range(request["samples"]):
        for step in (1, 2):
            writers[0].take(2 * sample + step, np.eye(3, 4, dtype=bool).reshape(3, 2, 2))
            writers[1].take(2 * sample + step, np.array([sample, 1]))
        channel.sendall(json.dumps({"event": "progress", "done": sample + 1, "limit_s": 60}).encode() + b"\\n")
        while layers[1].path(sample).exists():
            time.sleep(0.001)
        try:
            channel.recv(9999)
            channel.sendall(b'{"event": "cancelled"}\\n')
            break
        except BlockingIOError:
            pass
    else:
        channel.sendall(b'{"event": "done"}\\n')
    channel.setblocking(True)
"""
)


def remains(name):
    """Processes (not zombies), shared memory and directories of a session."""
    found = [str(path) for path in (*Path("/dev/shm").glob(f"*{name}*"), *Path("/tmp").glob(f"{name}*"))]
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if name.encode() in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                found.append(f"process {entry.name}")
    return found


def assert_gone(name, within_s=5.0):
    deadline = time.monotonic() + within_s
    while remains(name) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert remains(name) == []


@pytest.fixture
def supervised(tmp_path_factory):
    """A function that starts a supervisor with a child that runs `code`; what it started is gone at the end."""
    started = []

    def start(code):
        directory = Path("/tmp") / f"rsnn-test-{os.getpid()}-{len(started)}"
        (directory / "groups").mkdir(parents=True)
        Path(f"/dev/shm/{directory.name}-segment").touch()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-c", code, str(directory), str(theirs.fileno())]
        process = subprocess.Popen(
            [sys.executable, "-I", supervisor.__file__, str(directory), str(theirs.fileno()), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        started.append((process, ours, directory))
        return process, directory

    yield start
    for process, ours, directory in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        ours.close()
        supervisor.sweep(directory, wait=lambda: None)


def wait_for(directory, pattern, count):
    deadline = time.monotonic() + 10
    while len(list(directory.glob(pattern))) < count:
        assert time.monotonic() < deadline, pattern
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["closed pipe", "byte", "SIGTERM", "SIGINT"])
def test_nothing_is_left_when_the_user_is_gone(supervised, how):
    process, directory = supervised(STUBBORN)
    wait_for(directory, "alive-*", 2)
    match how:
        case "closed pipe":
            process.stdin.close()
        case "byte":
            process.stdin.write(b"q")
            process.stdin.flush()
        case _:
            process.send_signal(signal.Signals[how])
    assert process.wait(10) == 0
    assert remains(directory.name) == []


def test_the_childs_exit_code_is_the_supervisors(supervised):
    process, directory = supervised("import sys; sys.exit(3)")
    assert process.wait(10) == 3
    assert remains(directory.name) == []


def test_a_killed_supervisor_takes_the_child_with_it(supervised):
    process, directory = supervised("import os, sys, time; open(sys.argv[1] + '/alive-1', 'w'); time.sleep(60)")
    wait_for(directory, "alive-*", 1)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any(left.startswith("process") for left in remains(directory.name)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sorted(remains(directory.name)) == [f"/dev/shm/{directory.name}-segment", str(directory)]


def test_messages_come_back_whole_however_they_arrive():
    reading, writing = os.pipe()
    lines = supervisor.Lines(reading)
    first, second = supervisor.encode({"event": "a\nb"}), supervisor.encode({"event": "c"})
    os.write(writing, first + second[:4])
    assert lines.read() == [{"event": "a\nb"}]
    os.write(writing, second[4:])
    assert lines.read() == [{"event": "c"}]
    os.close(writing)
    assert lines.read() is None
    os.close(reading)


def test_an_endless_message_is_refused():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lines = supervisor.Lines(ours.fileno())
        theirs.sendall(b"x" * 70_000)
        with pytest.raises(ValueError, match="a message is longer than 65,536 bytes"):
            list(iter(lines.read, None))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A function that makes sessions start a child that runs `code` instead of Lava's."""

    def use(code):
        (tmp_path / "child.py").write_text(code)
        monkeypatch.setattr(simulate, "_CHILD", tmp_path / "child.py")
        monkeypatch.setattr(simulate, "_is_installed", lambda: True)
        (tmp_path / "network.net").touch()
        return tmp_path / "network.net"

    return use


MESSAGES = np.zeros((2, 1, 4, 4), dtype=np.int32)


def test_a_child_that_ends_is_an_error_with_the_end_of_its_log(fake):
    net = fake(READY + "channel.recv(9999); print('what Lava said last', file=sys.stderr); sys.exit(1)")
    session = simulate.Session()
    session.start()
    name = session.name
    with pytest.raises(BackendError) as raised:
        session.run(net, MESSAGES, timesteps=4)
    assert str(raised.value) == (
        "lava: the Lava child process ended\n    what Lava said last\n"
        ". Run it again; if it fails again, use --backend emulator"
    )
    assert remains(name) == []
    assert session.name is None


def test_a_killed_supervisor_is_an_error_and_leaves_nothing(fake):
    net = fake(READY + "channel.recv(9999); os.kill(os.getppid(), 9); time.sleep(60)")
    with simulate.Session() as session:
        name = session.name
        with pytest.raises(BackendError, match="the Lava child process ended"):
            session.run(net, MESSAGES, timesteps=4)
        assert_gone(name)


def test_a_child_that_does_not_answer_is_ended_after_the_time_limit(fake, monkeypatch):
    monkeypatch.setattr(simulate, "_END_LIMIT_S", 0.2)
    net = fake(READY + "time.sleep(60)")
    with simulate.Session() as session:
        name = session.name
        with pytest.raises(BackendError) as raised:
            session.run(net, MESSAGES, timesteps=4, time_limit_s=0.5)
    assert str(raised.value) == (
        "lava: 0 of 2 samples were done after 0.5 s. Allow more time, simulate fewer samples, "
        "or use --kernels fast or --backend emulator"
    )
    assert_gone(name)


def test_an_interrupt_ends_everything_and_propagates(fake):
    net = fake(STREAM)

    def interrupt(done):
        raise KeyboardInterrupt

    with simulate.Session() as session:
        name = session.name
        with pytest.raises(KeyboardInterrupt):
            session.run(net, MESSAGES, timesteps=4, progress=interrupt)
        assert remains(name) == []


def test_samples_arrive_one_by_one_and_leave_no_file(fake):
    net, seen = fake(STREAM), []
    with simulate.Session() as session:
        for part in session.stream(net, np.zeros((5, 1, 4, 4), dtype=np.int32), timesteps=2, layers=["first"]):
            assert (part.n_samples, part.layers, part.backend) == (1, ("first",), "lava (stock kernels)")
            assert part.spikes[0].shape == (1, 2, 2, 2, 3)
            seen += part.logits.tolist()
            assert len(list(Path("/tmp", session.name).rglob("1/*-*"))) == 0
        assert seen == [[0, 2], [2, 2], [4, 2], [6, 2], [8, 2]]
        assert remains(f"{session.name}/1") == []


def test_a_stream_that_is_closed_ends_the_run_and_keeps_the_session(fake):
    net, messages = fake(STREAM), np.zeros((50, 1, 4, 4), dtype=np.int32)
    with simulate.Session() as session:
        name = session.name
        parts = session.stream(net, messages, timesteps=2)
        assert next(parts).logits.tolist() == [[0, 2]]
        parts.close()
        assert session.name == name
        assert session.run(net, messages[:3], timesteps=2).logits.tolist() == [[0, 2], [2, 2], [4, 2]]


def test_a_wrong_number_of_layer_names_is_an_error(fake):
    net = fake(STREAM)
    with simulate.Session() as session, pytest.raises(ConfigError, match="expected 1 names of hidden layers, got 2"):
        session.run(net, MESSAGES, timesteps=2, layers=["a", "b"])


def test_what_a_user_does_between_samples_is_not_counted_as_waiting(fake, monkeypatch):
    net, clock = fake(STREAM), SimpleNamespace(ahead=0.0)
    monkeypatch.setattr(simulate, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + clock.ahead))
    with simulate.Session() as session:
        for _ in session.stream(net, MESSAGES, timesteps=2, time_limit_s=100):
            clock.ahead += 1000


def test_lava_that_cannot_be_imported_is_an_error_that_says_what_to_do(fake):
    net = fake(READY.replace('"ready"', '"refused", "reason": "no h5py"'))
    with pytest.raises(BackendError) as raised:
        simulate.Session().run(net, MESSAGES, timesteps=4)
    assert str(raised.value) == (
        "lava: no h5py. Install under Python 3.10, or on 3.11 or 3.12 run `make install-lava`, or use --backend emulator"
    )


def test_without_lava_the_error_says_what_to_do(fake, monkeypatch):
    net = fake("")
    monkeypatch.setattr(simulate, "_is_installed", lambda: False)
    with pytest.raises(BackendError) as raised:
        simulate.Session().run(net, MESSAGES, timesteps=4)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert str(raised.value) == (
        f"lava: Lava is not installed in this Python {version}. "
        "Install under Python 3.10, or on 3.11 or 3.12 run `make install-lava`, or use --backend emulator"
    )


def test_all_faults_of_a_request_are_listed_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError) as raised:
        simulate.Session().run(tmp_path, MESSAGES[0].astype(float), timesteps=0, kernels="quick")
    assert raised.value.faults == (
        "messages: expected integers (samples, C, H, W), got float64 (1, 4, 4)",
        "timesteps: expected a positive integer, got 0",
        "kernels: expected 'stock' or 'fast', got 'quick'",
    )


def test_a_missing_file_is_an_error_before_anything_starts(tmp_path):
    with pytest.raises(FormatError) as raised:
        simulate.Session().run(tmp_path / "network.net", MESSAGES, timesteps=1)
    assert str(raised.value) == f"{tmp_path}/network.net: no such file; make it with `rsnn-deploy export`"


def test_a_folder_that_cannot_be_written_is_an_error_that_says_what_to_do(fake, monkeypatch):
    net = fake(READY)
    monkeypatch.setattr(simulate.tempfile, "gettempdir", lambda: "/proc/self")
    with pytest.raises(
        BackendError, match=r"^lava: cannot write /proc/self/rsnn-\w+ \(.*\)\. Free some space there, or"
    ):
        simulate.Session().run(net, MESSAGES, timesteps=4)


def test_importing_simulate_loads_neither_torch_nor_lava():
    code = "import sys, toolchain.simulate; sys.exit(any(name in sys.modules for name in ('torch', 'lava', 'h5py')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
