"""Tables of measurements, to which runs with other settings or on other machines add rows."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from coviar.files import check_out, whole_file
from dataset_team.csv_rows import read_csv_text
from training.lock import NO_LOCKS


def check_table(path: str | os.PathLike | None, columns: Sequence[str], key: Sequence[str]) -> None:
    """Raise ValueError or OSError, before anything is measured, where rows of these columns cannot
    be put into what is at `path`: another table, a damaged one, a place that cannot be written.
    """
    check_out(path)
    if path is not None:
        _rows(path, columns, key)


def _rows(path: str | os.PathLike, columns: Sequence[str], key: Sequence[str]) -> list[dict]:
    if not os.path.exists(path):
        return []
    found = read_csv_text(path, may_be_empty=True, remedy="mend it, or name another --out")
    # Tables of earlier versions may lack a column.
    if not set(key) <= set(found.header) <= set(columns):
        raise ValueError(
            f"{path} has the columns {','.join(found.header)}, not {','.join(columns)}: it is"
            " another table; name another --out"
        )
    return found.rows


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
        found = _rows(path, columns, key)
        kept = [row for row in found if tuple(row[column] for column in key) not in new]
        with whole_file(path) as place, open(place, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows([*kept, *rows])
