"""A lock on a run folder: a second run there is refused and told who holds it."""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import os
import socket
from pathlib import Path

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}  # the file system has none


class LockedError(ValueError):
    """Another run holds the folder; the message says which."""


class RunLock:
    """The file `lock` of a run folder, held from construction to `release` or the process's end.

    It is a record lock of the system. The system drops it when the holder ends, even by kill -9. It
    also works between hosts if the shared file system supports locks, as NFS does. The holder's
    loader workers do not hold it. A lock of the package filelock would pass to them, and stay after
    a kill.
    """

    def __init__(self, folder: Path):
        self.path = Path(folder) / "lock"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                holder = self._read()
                os.close(self._file)
                raise LockedError(
                    f"{self.path.parent} is in use by the process {holder}; wait until it has"
                    " ended, or give another --checkpoint_dir"
                ) from None
            print(f"warning: the disk of {self.path} has no locks: start no second run there")
        since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        text = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since})
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode(), 0)

    def release(self) -> None:
        """Unlock the folder. The file stays, since another process may have it open already."""
        os.ftruncate(self._file, 0)
        os.close(self._file)

    def _read(self) -> str:
        """Who holds the lock, in words."""
        try:
            holder = json.loads(os.pread(self._file, 4096, 0))
            return f"{holder['pid']} on {holder['host']} since {holder['since']}"
        except (ValueError, TypeError, KeyError):
            return "that is just starting"
