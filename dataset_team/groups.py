"""The recording that a video was cut from: by its name, or by a file beside the list."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from coviar.files import whole_file
from dataset_team.finder import alike
from dataset_team.list_file import (
    ListError,
    decoded,
    plain_path,
    relative_name,
    without_extension,
)

# Beside lists: two columns, the path of a video as in the lists, and its recording.
RECORDINGS_NAME = "recordings.csv"

# Videos cut from one recording share a group:
# v_Class_g01_c02 of UCF-101, Film_class_f_cm_np1_fr_goo_0 of HMDB-51, with any suffix, as .avi.npy.
UCF_GROUP = re.compile(r"_(g\d+)_c\d+(?:\..*)?$")
HMDB_GROUP = re.compile(r"(?P<film>.+)_[a-z]_[a-z]{2}_np\d+_[a-z]{2}_[a-z]{3}_\d+(?:\..*)?$")


def group_of(name: str) -> str | None:
    """The recording a video was cut from, read from its name; None where the name does not tell."""
    stem = name.rsplit("/", 1)[-1]
    if match := UCF_GROUP.search(stem):
        return match[1]
    if match := HMDB_GROUP.fullmatch(stem):
        return match["film"]
    return None


def film_of(name: str) -> str | None:
    """The film that a video of HMDB-51 was cut from, which may hold several classes; else None.

    A group of HMDB-51 is the film's name and, where the folder is the class, the class:
    "sit/Casablanca_sit_f_..." and "walk/Casablanca_walk_f_..." are both of "Casablanca".
    """
    folder, _, stem = name.rpartition("/")
    match = HMDB_GROUP.fullmatch(stem)
    if match is None:
        return None
    ending = "_" + folder.rpartition("/")[2]
    film = match["film"]
    return film[: -len(ending)] if film.endswith(ending) else film


def read_recordings(path: str | os.PathLike, data_root: str | os.PathLike = ".") -> dict[str, str]:
    """{name without extension: recording} of a file with two columns. Raises ListError.

    A recording may hold clips of several classes. Commas or semicolons stand between the columns.
    A video may be written in every way a list allows, also as an absolute path below `data_root`.
    """
    found: dict[str, str] = {}
    for number, video, recording in _read_rows(path):
        name = _plain_name(video)
        with contextlib.suppress(ListError):  # a video of another folder keeps its path
            name = relative_name(name, data_root)
        known = found.setdefault(name, recording)
        if known != recording:
            raise ListError(
                f"{path}: row {number} says that {video} is of {recording!r}, an earlier row"
                f" {known!r}; leave one of them out"
            )
    return found


def _read_rows(path: str | os.PathLike) -> Iterator[tuple[int, str, str]]:
    """(number of the row, video as written, recording) of each row."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ListError(f"{path} cannot be read: {error}") from error
    text = decoded(content, "utf-8", path, "save it as UTF-8", ListError).removeprefix("\ufeff")
    separator = ";" if ";" in text.split("\n")[0] else ","
    rows = csv.reader(text.splitlines(), delimiter=separator, strict=True)
    number = 0
    while True:
        number += 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ListError(f"{path}: row {number} is no row of a CSV file: {error}") from error
        if row is None:
            return
        if not "".join(row).strip():
            continue
        video, recording = [*(cell.strip() for cell in row), ""][:2]
        if not video or not recording:
            raise ListError(
                f"{path}: row {number} lacks a column; two are needed, video and recording"
            )
        yield number, video, recording


def _plain_name(video: str) -> str:
    return without_extension(plain_path(video))


class Recordings:
    """What a file says of recordings, looked up by the name of a video as VideoFinder looks up its
    file: by the exact name, else by one that is alike."""

    def __init__(self, path: str | os.PathLike, data_root: str | os.PathLike):
        """Raises ListError as `read_recordings`."""
        self.path = path
        self._exact = read_recordings(path, data_root)
        self._similar: dict[str, set[str]] = defaultdict(set)
        for name, recording in self._exact.items():
            self._similar[alike(name)].add(recording)

    def find(self, name: str) -> str | None:
        """The recording of a video, None if the file does not say. `name`: as the file of the video
        is named, without extension. Raises ListError where names that are alike differ in it."""
        if name in self._exact:
            return self._exact[name]
        found = sorted(self._similar.get(alike(name), ()))
        if len(found) > 1:
            raise ListError(
                f"{self.path}: {name} may be of {' or '.join(map(repr, found))}; write it there as"
                " the file is named"
            )
        return found[0] if found else None

    def warn_of_others(self, list_path: str | os.PathLike, num_named: int, total: int) -> None:
        """A UserWarning if the file does not name all videos of a list."""
        if num_named < total:
            warnings.warn(
                f"{self.path} names {num_named} of the {total} videos of {list_path}; any other is"
                " of the recording that its name tells, or one of its own; write Class/video there"
                " as in the list",
                stacklevel=2,
            )


def recordings_beside(
    list_path: str | os.PathLike, data_root: str | os.PathLike
) -> Recordings | None:
    """Those of the RECORDINGS_NAME in a list's folder; None where there is none."""
    path = Path(list_path).parent / RECORDINGS_NAME
    return Recordings(path, data_root) if path.exists() else None


def write_recordings(folder: Path, recordings: Mapping[str, str]) -> None:
    """Write {path: recording} to the RECORDINGS_NAME of a folder. Other videos in it stay there, as
    they are written. Raises ListError for an empty recording, which could not be read again."""
    path = folder / RECORDINGS_NAME
    empty = [name for name, recording in recordings.items() if not recording.strip()]
    if empty:
        raise ListError(f"{path}: {len(empty)} videos have an empty recording, first {empty[0]}")
    before = _read_rows(path) if path.exists() else ()
    names = {"path", *map(_plain_name, recordings)}
    others = {video: known for _, video, known in before if _plain_name(video) not in names}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("path", "recording"))
    rows.writerows(sorted({**others, **recordings}.items()))
    with whole_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
