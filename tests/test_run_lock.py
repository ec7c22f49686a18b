"""One run per folder: the second is refused while the first lives."""

import contextlib
import errno
import os
import socket
import subprocess
import sys

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


def test_a_killed_holder_holds_no_more(hold, tmp_path):
    process = hold()
    process.kill()
    process.wait()
    RunLock(tmp_path).release()


def test_workers_that_outlive_a_killed_holder_hold_nothing(hold, tmp_path):
    process = hold(fork=True)
    process.kill()
    process.wait()
    RunLock(tmp_path).release()


def test_a_released_lock_can_be_taken_again(tmp_path):
    RunLock(tmp_path).release()
    RunLock(tmp_path).release()


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"host": "a"}', "\0\0"])
def test_a_file_that_is_no_lock_stops_nobody(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    RunLock(tmp_path).release()


def test_a_disk_without_locks_says_so(tmp_path, monkeypatch, capsys):
    def lockf(file, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(lock.fcntl, "lockf", lockf)
    RunLock(tmp_path).release()
    assert "has no locks: start no second run there" in capsys.readouterr().out
