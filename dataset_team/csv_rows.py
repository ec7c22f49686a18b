"""Read CSV files that scripts write. What is not whole is refused by its line."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from dataset_team.list_file import decoded


class CsvText(NamedTuple):
    """header: the columns. rows: of text. lines: of each row, where it ends. text: all of it."""

    header: list[str]
    rows: list[dict[str, str]]
    lines: list[int]
    text: str


def read_csv_text(
    path: str | os.PathLike,
    script: str = "",
    required: Collection[str] = (),
    numbers: Collection[str] | None = (),
    *,
    texts: Collection[str] = (),
    whole: Collection[str] = (),
    columns: Sequence[str] | None = None,
    may_be_empty: bool = False,
    is_output: bool = False,
    remedy: str = "",
) -> CsvText:
    """The file that `script` wrote. required: columns without empty cells. numbers: columns whose
    other cells are finite numbers, None for all but `texts`; whole: those that are counts. columns:
    all there are, if known.
    may_be_empty: no rows are fine. is_output: of the script that reads it, which adds rows.
    remedy: for a table that the script does not write again as a whole.

    Raises ValueError for other columns, and "FILE, line N: ...; SCRIPT writes it again" for a file
    that is empty or not UTF-8, a row with too few or too many cells, an empty cell or a text in
    place of a number, and a last line without its end.
    """
    again = remedy or f"{'remove it, and ' if is_output else ''}{script} writes it again"
    text = decoded(Path(path).read_bytes(), "utf-8", path, again, ValueError)
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(reader, [])
        table = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; {again}") from error
    if not header:
        raise ValueError(f"{path} is empty; {again}")
    missing = [name for name in (columns or required) if name not in header]
    if missing or header != list(columns or header):
        words = f"no column {missing[0]}" if missing else "other columns"
        remedy = f"{script} writes such files; leave it out or make it again"
        remedy = "name another --out" if is_output else remedy
        raise ValueError(f"{path} is no file of {script} ({words}): {remedy}")
    if numbers is None:
        numbers = [name for name in header if name not in texts]
    rows = []
    for line, cells in table:
        row = dict(zip(header, cells))
        fault = (
            f"{len(cells)} cells in place of {len(header)}"
            if len(cells) != len(header)
            else _fault(row, required, numbers, whole)
        )
        if fault:
            raise ValueError(f"{path}, line {line}: {fault}; {again}")
        rows.append(row)
    if not text.endswith(("\n", "\r")):
        raise ValueError(f"{path}, line {reader.line_num}: the line has no end; {again}")
    if not rows and not (may_be_empty or is_output):
        raise ValueError(f"{path} has no rows; {again}")
    return CsvText(header, rows, [line for line, _ in table], text)


def _fault(
    row: dict[str, str],
    required: Collection[str],
    numbers: Collection[str],
    whole: Collection[str],
) -> str:
    for name in required:
        if not row[name]:
            return f"{name} is empty"
    for name in numbers:
        if row.get(name) and not _is_number(row[name]):
            return f"{name} is {row[name]!r}, no number"
    for name in whole:
        if row.get(name) and not re.fullmatch("[0-9]{1,18}", row[name]):
            return f"{name} is {row[name]!r}, no whole number"
    return ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
