"""One run per folder: the second is refused while the first lives, on this host or another."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from training import lock
from training.lock import LockedError, RunLock

# A process that takes the lock and says so, then waits for a line, and ends without releasing it.
HOLD = """
import sys
sys.path.insert(0, {repo!r})
from training.lock import RunLock
lock = RunLock({folder!r})
if {fork}:
    import os
    if os.fork() == 0:
        import time
        time.sleep(60)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def hold(tmp_path):
    """Starts processes that hold the lock of tmp_path."""
    started = []

    def start(fork=False):
        repo = os.path.dirname(os.path.dirname(lock.__file__))
        code = HOLD.format(repo=repo, folder=str(tmp_path), fork=fork)
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def test_the_second_is_told_who_is_there(hold, tmp_path):
    process = hold()
    with pytest.raises(LockedError, match=f"process {process.pid} on {socket.gethostname()} since"):
        RunLock(tmp_path)


def test_a_killed_holder_holds_no_more(hold, tmp_path, capsys):
    process = hold()
    process.kill()
    process.wait()
    RunLock(tmp_path).release()
    assert f"stale, its process {process.pid}" in capsys.readouterr().out


def test_workers_that_outlive_a_killed_holder_hold_nothing(hold, tmp_path):
    process = hold(fork=True)
    process.kill()
    process.wait()
    RunLock(tmp_path).release()


def test_a_released_lock_leaves_no_file(tmp_path):
    RunLock(tmp_path).release()
    assert os.listdir(tmp_path) == []
    RunLock(tmp_path).release()


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"host": "a"}', "\0\0"])
def test_a_file_that_is_no_lock_stops_nobody(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    RunLock(tmp_path).release()


def write_lock(folder, **changes):
    holder = {"host": "elsewhere", "pid": 1, "process_start": "1", "since": "noon", "beat": 0}
    (folder / "lock").write_text(json.dumps({**holder, **changes}))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.5)


def test_another_host_is_believed_while_its_beat_is_heard(tmp_path, quick):
    """Its record lock is not seen here, as on a disk whose locks stay on their host."""
    write_lock(tmp_path)
    ended = threading.Event()

    def beat():
        count = 0
        while not ended.wait(0.02):
            count += 1
            write_lock(tmp_path, beat=count)

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(LockedError, match="process 1 on elsewhere since noon"):
        RunLock(tmp_path)
    ended.set()
    thread.join()


def test_another_host_without_a_beat_is_gone(tmp_path, quick, capsys):
    write_lock(tmp_path)
    RunLock(tmp_path).release()
    assert "stale, its process 1 on elsewhere" in capsys.readouterr().out


def test_the_beat_goes_on_as_long_as_the_lock_is_held(tmp_path, quick):
    held = RunLock(tmp_path)
    first = json.loads((tmp_path / "lock").read_text())["beat"]
    end = time.monotonic() + 30
    while json.loads((tmp_path / "lock").read_text())["beat"] < first + 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    held.release()


@pytest.mark.parametrize("is_same", [True, False])
def test_without_record_locks_the_process_is_looked_up(tmp_path, monkeypatch, is_same):
    """A process number is used again; the start time tells the two processes apart."""
    monkeypatch.setattr(lock, "_lock", lambda file: None)
    me = {"host": socket.gethostname(), "pid": os.getpid()}
    write_lock(tmp_path, **me, process_start=lock._process_start(os.getpid()) if is_same else "1")
    if is_same:
        with pytest.raises(LockedError, match=f"process {os.getpid()} on"):
            RunLock(tmp_path)
    else:
        RunLock(tmp_path).release()
