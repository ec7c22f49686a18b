"""Tables of measurements, to which runs with other settings or on other machines add rows."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from coviar.files import whole_file
from training.lock import NO_LOCKS


def check_table(path: str | os.PathLike | None, columns: Sequence[str], key: Sequence[str]) -> None:
    """Raise ValueError where rows of these columns cannot be put into what is at `path`."""
    if path is None or not os.path.exists(path):
        return
    try:
        with open(path, newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no table ({error}); name another --out") from error
    # Tables of earlier versions may lack a column.
    if not set(key) <= set(header) <= set(columns):
        raise ValueError(
            f"{path} has the columns {','.join(header)}, not {','.join(columns)}: it is another"
            " table; name another --out"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process changes a table in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in {*NO_LOCKS, errno.EBADF}:  # NFS locks no folder
                raise
            print(f"warning: the disk of {folder} has no locks: change its tables one at a time")
        yield
    finally:
        os.close(descriptor)


def update_rows(
    path: str | os.PathLike, columns: Sequence[str], key: Sequence[str], rows: Sequence[dict]
) -> None:
    """Put rows into a CSV file, in the place of those that have the same values in `key`.

    Other processes may do the same at once. Raises ValueError as `check_table`.
    """
    new = {tuple(str(row[column]) for column in key) for row in rows}
    with _locked(Path(path).parent):
        check_table(path, columns, key)
        kept = []
        if os.path.exists(path):
            with open(path, newline="") as file:
                kept = [r for r in csv.DictReader(file) if tuple(r[k] for k in key) not in new]
        with whole_file(path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows([*kept, *rows])
