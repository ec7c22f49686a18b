"""The videos of a list file as Records: found on the disk and checked against each other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dataset_team.finder import VideoFinder
from dataset_team.groups import group_of, recordings_beside
from dataset_team.identity import real_file
from dataset_team.list_file import (
    EXPECTED,
    ListError,
    Row,
    name_of_file,
    read_rows,
    relative_name,
)
from dataset_team.registry import DATASETS

MAX_PROBLEMS_SHOWN = 10
UNLABELLED = -1


class Record(NamedTuple):
    """One video of a list."""

    name: str  # the list's path without extension, "Class/v_Class_g01_c01"; unique
    path: str  # the existing file
    class_name: str
    label: int
    group: str | None  # the recording, None where nothing tells
    recording: str | None = None  # as the file beside the list says, over all classes


def read_list(
    list_path: str | os.PathLike, data_root: str | os.PathLike, data_name: str | None = None
) -> list[Record]:
    """Read and check a list file; return its Records in order.

    Videos are looked up under `data_root` as finder.VideoFinder does. A recordings.csv beside the
    list says which are of one recording, and a warning how many it does not name; else their names
    may tell. Raises ListError naming every bad line (at most 10 shown): malformed, class and label
    that contradict an earlier line, label outside `data_name`'s classes, video listed twice (one
    file under two names too), not found.
    """
    num_classes = DATASETS[data_name].num_classes if data_name in DATASETS else None
    return _read_records(list_path, data_root, Seen(num_classes), labelled=True)


def read_unlabelled(list_path: str | os.PathLike, data_root: str | os.PathLike) -> list[Record]:
    """The videos of a list as Records with the label UNLABELLED, whatever it says of their classes.

    A line may be a path alone. Raises ListError naming every bad line, as `read_list`.
    """
    return _read_records(list_path, data_root, Seen(None), labelled=False)


def _read_records(
    list_path: str | os.PathLike, data_root: str | os.PathLike, seen: Seen, labelled: bool
) -> list[Record]:
    if not Path(data_root).is_dir():
        raise ListError(f"{data_root}: no such folder (the one that holds the class folders)")
    finder, recordings = VideoFinder(data_root), recordings_beside(list_path, data_root)
    records, problems = [], []
    for row in read_rows(list_path, needs_class=labelled):
        if isinstance(row, ListError):
            problems.append(str(row))
            continue
        try:
            name = relative_name(row.name, data_root)
            path = finder.find(name)
            if row.mark and path is None:
                if labelled:
                    _check_comment(row, finder)
                continue
            if labelled and row.label is None:
                raise ListError(f"{EXPECTED}, found a path alone, {row.name!r}")
            class_name, label = (row.class_name, row.label) if labelled else ("", UNLABELLED)
            seen.check(name, class_name, label, row.line)
            if path is None:
                raise ListError(
                    f"no video {name}.* under {data_root} (check --data-root; "
                    "python -m coviar.reencode brings videos there)"
                )
            seen.check_file(name, path, row.line)
            found = name_of_file(path, data_root)
            recording = recordings.find(found) if recordings else None
            group = recording or group_of(name)
            records.append(Record(name, path, class_name, label, group, recording))
        except ListError as error:
            problems.append(f"{list_path}:{row.line}: {error}")
        except OSError as error:
            problems.append(f"{list_path}:{row.line}: {row.name} cannot be looked up: {error}")
    if problems:
        raise ListError(shorten(problems))
    if not records:
        raise ListError(f"{list_path}: no videos in this list")
    if recordings:
        named = sum(record.recording is not None for record in records)
        recordings.warn_of_others(list_path, named, len(records))
    return records


def read_paths(list_path: str | os.PathLike, data_root: str | os.PathLike) -> list[Path]:
    """The files of a list whose rows need no class. A video that is not found keeps its path.

    Raises ListError naming the lines that cannot be read.
    """
    finder = VideoFinder(data_root)
    paths, problems = [], []
    for row in read_rows(list_path, needs_class=False):
        if isinstance(row, ListError):
            problems.append(str(row))
            continue
        listed = os.path.join(data_root, row.path)  # the path itself where that is absolute
        try:
            found = _find_listed(finder, row.name) or listed
        except ListError as error:
            problems.append(f"{list_path}:{row.line}: {error}")
            continue
        if not row.mark or os.path.exists(found):
            paths.append(Path(found))
    if problems:
        raise ListError(shorten(problems))
    return paths


def _find_listed(finder: VideoFinder, name: str) -> str | None:
    try:
        if os.path.isabs(name):
            folder, stem = os.path.split(name)
            return VideoFinder(folder).find(stem)
        return finder.find(name)
    except OSError:
        return None


def read_class_names(list_path: str | os.PathLike, num_classes: int) -> list[str]:
    """Class names by label, of a list file whose videos need not be there.

    A label without a video is named by its number. Raises ListError naming a line that is
    malformed, contradicts an earlier one, or has a label outside the classes.
    """
    seen = Seen(num_classes)
    for row in read_rows(list_path):
        if isinstance(row, ListError):
            raise row
        if row.mark:
            continue
        try:
            if row.label is None:
                raise ListError(f"{EXPECTED}, found a path alone, {row.name!r}")
            seen.check(row.name, row.class_name, row.label, row.line)
        except ListError as error:
            raise ListError(f"{list_path}:{row.line}: {error}") from error
    return [seen.class_of.get(label, str(label)) for label in range(num_classes)]


def list_digest(list_path: str | os.PathLike, data_root: str | os.PathLike) -> str:
    """16 hex digits that depend on a list's videos, classes, labels and their order.

    Its path, separators and comments do not matter. Rows need no class. Raises ListError, naming
    the line.
    """
    digest, finder = hashlib.sha256(), VideoFinder(data_root)
    for row in read_rows(list_path, needs_class=False):
        if isinstance(row, ListError):
            raise row
        try:
            name = relative_name(row.name, data_root)
            if row.mark and _find_listed(finder, name) is None:
                continue
        except ListError as error:
            raise ListError(f"{list_path}:{row.line}: {error}") from error
        digest.update(f"{name}\t{row.class_name}\t{row.label}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _check_comment(row: Row, finder: VideoFinder) -> None:
    """Raise ListError for a row after a # that may name a missing video."""
    is_comment = row.mark == "# " or row.label is None or finder.find(row.name.lstrip("#"))
    if not is_comment:
        raise ListError(
            f"no video {row.name}.* under {finder.root}, nor one without the #; if the line is a "
            "comment, begin it with # and a blank"
        )


class Seen:
    """What earlier lines said; its checks raise ListError for a line that contradicts them."""

    def __init__(self, num_classes: int | None):
        self.num_classes = num_classes
        self.line_of: dict[str, int] = {}
        self.label_of: dict[str, int] = {}
        self.class_of: dict[int, str] = {}
        self.first_of: dict[tuple[int, int], tuple[str, int]] = {}  # by real file: name, line

    def check(self, name: str, class_name: str, label: int, line: int) -> None:
        if self.num_classes is not None and label >= self.num_classes:
            raise ListError(f"label {label} is outside 0..{self.num_classes - 1}")
        if name in self.line_of:
            raise ListError(f"{name} is listed twice, first in line {self.line_of[name]}")
        known_label = self.label_of.setdefault(class_name, label)
        known_class = self.class_of.setdefault(label, class_name)
        if (known_label, known_class) != (label, class_name):
            raise ListError(
                f"class {class_name!r} with label {label}, but earlier lines have "
                f"{class_name!r} with label {known_label} and label {label} for {known_class!r}"
            )
        self.line_of[name] = line

    def check_file(self, name: str, path: str, line: int) -> None:
        first, first_line = self.first_of.setdefault(real_file(path), (name, line))
        if first != name:
            raise ListError(
                f"{name} is listed twice: it is the same file as {first} of line {first_line}"
            )


def shorten(problems: Sequence[str]) -> str:
    """The first ten of a list of problems, a line each, and how many more there are."""
    more = len(problems) - MAX_PROBLEMS_SHOWN
    shown = [*problems[:MAX_PROBLEMS_SHOWN], *([f"... and {more} more"] if more > 0 else [])]
    return "\n".join(shown)
