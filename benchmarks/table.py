"""Tables of measurements, to which runs with other settings or on other machines add rows."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence

from coviar.files import whole_file


def update_rows(
    path: str | os.PathLike, columns: Sequence[str], key: Sequence[str], rows: Sequence[dict]
) -> None:
    """Put rows into a CSV file, in the place of those that have the same values in `key`."""
    new = {tuple(str(row[column]) for column in key) for row in rows}
    kept = []
    if os.path.exists(path):
        with open(path, newline="") as file:
            kept = [row for row in csv.DictReader(file) if tuple(row[k] for k in key) not in new]
    with whole_file(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])
