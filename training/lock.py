"""One run folder, one run: a second one that is pointed at it is told who is there."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path

BEAT_SECONDS = 10.0
# A holder on another host is watched for so long; what a network file system keeps in its caches
# of a lock's content, it reads again whenever the lock is taken.
PATIENCE_SECONDS = 3.5 * BEAT_SECONDS
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}  # the file system has none


class LockedError(ValueError):
    """Another run holds the folder; the message says which."""


class RunLock:
    """The file `lock` of a run folder, held from construction to `release` or the process's end.

    On one host the system's record lock decides: it goes with the process that holds it, however
    that ends. A holder on another host, whose locks may not reach this one, counts its beats into
    the file: if the count stands still it is gone. Workers forked from the holder do not hold it.
    """

    def __init__(self, folder: Path):
        self.path = Path(folder) / "lock"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._take()
        self._me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "beat": 0,
        }
        self._write()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _take(self) -> int:
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._refuse_unless_free(file)
                if os.fstat(file).st_ino == os.stat(self.path).st_ino:
                    return file
            except FileNotFoundError:
                pass  # its holder has just finished and removed it: make a new one
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _refuse_unless_free(self, file: int) -> None:
        holder, can_lock = _read(file), _lock(file)
        if can_lock is False:
            raise self._error(holder)
        holder = _read(file)
        if holder is None:
            return
        if holder["host"] == socket.gethostname():
            if can_lock is None and _is_alive(holder):
                raise self._error(holder)
        else:
            self._watch(file, holder)
        print(f"{self.path}: stale, its process {_describe(holder)} is gone; taking it over")

    def _watch(self, file: int, holder: dict) -> None:
        """Raise LockedError when the holder's beat is heard."""
        print(f"{self.path}: listening whether {_describe(holder)} is alive", flush=True)
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                fcntl.lockf(file, fcntl.LOCK_UN)
            time.sleep(BEAT_SECONDS / 5)
            if _lock(file) is False or _read(file) != holder:
                raise self._error(holder)

    def _error(self, holder: dict | None) -> LockedError:
        who = _describe(holder) if holder else "that is just starting"
        return LockedError(
            f"{self.path.parent} is in use by the process {who}; wait until it has ended, or give"
            " another --checkpoint_dir"
        )

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            self._me["beat"] += 1
            with contextlib.suppress(OSError):  # a full disk is for the checkpoint to complain of
                self._write()

    def _write(self) -> None:
        text = json.dumps(self._me).encode()
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))


def _lock(file: int) -> bool | None:
    """True: it is ours. False: another process has it. None: this file system knows no locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in NO_LOCKS else False
    return True


def _read(file: int) -> dict | None:
    """What the holder wrote; None of an empty file, or one that is no lock."""
    try:
        holder = json.loads(os.pread(file, 4096, 0))
        return holder if {"host", "pid", "process_start", "since"} <= holder.keys() else None
    except (ValueError, AttributeError):
        return None


def _describe(holder: dict) -> str:
    return f"{holder['pid']} on {holder['host']} since {holder['since']}"


def _is_alive(holder: dict) -> bool:
    """Whether the very process that wrote the lock still runs on this host."""
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _process_start(holder["pid"]) == holder["process_start"]


def _process_start(pid: int) -> str | None:
    """Clock ticks from boot to the start of a process, None where /proc does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]
