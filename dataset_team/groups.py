"""The recording that a video was cut from: by its name, or by a file beside the list."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

from coviar.files import whole_file
from dataset_team.list_file import ListError, decoded, without_extension

# Beside lists: two columns, the path of a video as in the lists, and its recording.
RECORDINGS_NAME = "recordings.csv"

# Videos cut from one recording share a group:
# v_Class_g01_c02 of UCF-101, Film_class_f_cm_np1_fr_goo_0 of HMDB-51.
UCF_GROUP = re.compile(r"_(g\d+)_c\d+$")
HMDB_GROUP = re.compile(r"(?P<film>.+)_[a-z]_[a-z]{2}_np\d+_[a-z]{2}_[a-z]{3}_\d+$")


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


def read_recordings(path: str | os.PathLike) -> dict[str, str]:
    """{name without extension: recording} of a file with two columns. Raises ListError.

    A recording may hold clips of several classes. Commas or semicolons stand between the columns.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ListError(f"{path} cannot be read: {error}") from error
    text = decoded(content, "utf-8", path, "save it as UTF-8", ListError).removeprefix("\ufeff")
    separator = ";" if ";" in text.split("\n")[0] else ","
    found: dict[str, str] = {}
    rows = csv.reader(text.splitlines(), delimiter=separator, strict=True)
    number = 0
    while True:
        number += 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ListError(f"{path}: row {number} is no row of a CSV file: {error}") from error
        if row is None:
            return found
        if not "".join(row).strip():
            continue
        video, recording = [*(cell.strip() for cell in row), ""][:2]
        if not video or not recording:
            raise ListError(
                f"{path}: row {number} lacks a column; two are needed, video and recording"
            )
        known = found.setdefault(without_extension(video.replace("\\", "/")), recording)
        if known != recording:
            raise ListError(
                f"{path}: row {number} says that {video} is of {recording!r}, an earlier row"
                f" {known!r}; leave one of them out"
            )


def recordings_beside(list_path: str | os.PathLike) -> dict[str, str]:
    """`read_recordings` of the RECORDINGS_NAME in a list's folder; {} where there is none."""
    path = Path(list_path).parent / RECORDINGS_NAME
    return read_recordings(path) if path.exists() else {}


def write_recordings(folder: Path, recordings: Mapping[str, str]) -> None:
    """Write {path: recording} to the RECORDINGS_NAME of a folder. Other videos in it stay there."""
    path = folder / RECORDINGS_NAME
    names = {without_extension(name) for name in recordings}
    others = {n: r for n, r in recordings_beside(path).items() if n not in {*names, "path"}}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("path", "recording"))
    rows.writerows(sorted({**others, **recordings}.items()))
    with whole_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
