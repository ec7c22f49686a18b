"""The rows of a list file of any program: video, class and label.

The forms are `Class/video.avi ClassName label` with blanks, tabs, commas or semicolons between the
columns (CoViAR, Excel), `path frames label` (TSN), `path label` (mmaction, UCF-101), and a path
alone where no class is needed. The text is UTF-8 or UTF-16 with any line ends. If a row has no
class name, the video's folder is the class. A line that could mean two things is an error.
"""

from __future__ import annotations

import codecs
import csv
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from coviar.files import VIDEO_SUFFIXES

EXPECTED = "expected 'Class/video.avi ClassName label'"
HEADER_WORDS = {
    *("name", "path", "video", "file", "filename", "clip", "class", "classname", "class_name"),
    *("label", "class_id", "id", "frames", "num_frames"),
}
# The first bytes of a text, and its encoding. UTF-32 comes first, because it begins like UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

_SUFFIX = "|".join(map(re.escape, VIDEO_SUFFIXES))
_PATH_THEN_REST = re.compile(rf"(?P<path>.+(?:{_SUFFIX}))(?:\s+(?P<rest>.*))?", re.IGNORECASE)
_CLASS_IS_FOLDER = re.compile(
    r"(?P<path>(?:.*/)?(?P<class_name>[^/]+)/[^/]+?)\s+(?P=class_name)\s+(?P<label>\S+)"
)


class ListError(ValueError):
    """A list file that cannot be used. The message names file, lines and remedy."""


class Row(NamedTuple):
    """One line of a list."""

    line: int
    path: str  # of the video, with plain slashes
    class_name: str | None  # None, like the label, where the row is a path alone
    label: int | None
    has_class: bool  # whether a column names the class, so that it is not the folder's name only
    mark: str  # "#" or "# " where the line starts so: a comment, or a name

    @property
    def name(self) -> str:
        return without_extension(self.path)


def read_rows(list_path: str | os.PathLike, needs_class: bool = True) -> Iterator[Row | ListError]:
    """Each row in order, and a ListError for each line that cannot be read.

    needs_class=False: a row with a label and no class, not even a folder, has the class "".
    Raises FileNotFoundError, and ListError when the file is not a text.
    """
    return parse_rows(_read_lines(list_path), list_path, needs_class)


def parse_rows(
    lines: Iterable[str], list_path: str | os.PathLike, needs_class: bool = True
) -> Iterator[Row | ListError]:
    """`read_rows` of the lines of a list; `list_path` only names it."""
    is_first = True
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line:
            continue
        if is_first and _is_header(line):
            is_first = line.startswith("sep=")
            continue
        mark = re.match(r"#?\s?", line)[0] if line.startswith("#") else ""
        if not mark:
            is_first = False
        try:
            yield Row(number, *_parse(line, needs_class), mark)
        except ListError as error:
            if not mark:
                yield ListError(f"{list_path}:{number}: {error}")


def relative_name(name: str, data_root: str | os.PathLike) -> str:
    """A row's name as a path below `data_root`. Raises ListError for a path outside of it."""
    if os.path.isabs(name) or re.match(r"[A-Za-z]:/", name):
        for root in (os.path.abspath(data_root), os.path.realpath(data_root)):
            root = root.replace("\\", "/").rstrip("/") + "/"
            if name.startswith(root):
                return name[len(root) :]
        raise ListError(
            f"{name} is an absolute path outside of --data-root {data_root}; write Class/video, or "
            "have it written: python -m dataset_team.lists convert LIST OUT --data-root DIR"
        )
    if name.split("/")[0] == "..":
        raise ListError(f"{name} leads out of --data-root {data_root}; write Class/video")
    return name


def name_of_file(path: str | os.PathLike, data_root: str | os.PathLike) -> str:
    """The name of a video as its file has it, however a list spells it."""
    return without_extension(os.path.relpath(path, data_root))


def without_extension(name: str) -> str:
    """`name` without the extension of a video; other dots are part of the name."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in VIDEO_SUFFIXES else name


def _read_lines(list_path: str | os.PathLike) -> list[str]:
    try:
        content = Path(list_path).read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ListError(f"{list_path}: cannot be read: {error.strerror}") from error
    marked = (e for mark, e in BYTE_ORDER_MARKS.items() if content.startswith(mark))
    encoding = next(marked, "utf-8")
    if encoding.startswith("utf-8") and b"\0" in content:
        raise ListError(
            f"{list_path}: is no list file: it holds zero bytes, like a video or UTF-16 without "
            "its mark; save a list as UTF-8 text"
        )
    remedy = "save the list as UTF-8 (in Excel: CSV UTF-8)"
    return re.split(r"\r\n|\r|\n", decoded(content, encoding, list_path, remedy, ListError))


def decoded(
    content: bytes, encoding: str, path: str | os.PathLike, remedy: str, kind: type[ValueError]
) -> str:
    """The text of a file; raises `kind`, naming the line and the byte, where it is other text."""
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = content[error.start]
        raise kind(
            f"{path}:{line}: is not {encoding.upper()} text (byte {byte:#x}); {remedy}"
        ) from error


def _is_header(line: str) -> bool:
    """Whether a first line names the columns or Excel's separator."""
    words = re.split(r"[\s,;]+", line.casefold().replace('"', "").strip(",; \t"))
    return words[0].startswith("sep=") or all(word in HEADER_WORDS for word in words)


def _parse(line: str, needs_class: bool) -> tuple[str, str | None, int | None, bool]:
    """(path, class name, label, whether a column names the class) of a line."""
    path, *rest = _columns(line)
    path = plain_path(path)
    if not rest:
        return path, None, None, False
    *class_names, label = rest
    if not (label.isascii() and label.isdigit() and len(label) < 19):
        raise ListError(f"the label must be a number from 0 on, found {label!r}")
    # A number is a class where a folder has its name, at any depth, else a count of frames.
    folders = path.split("/")[:-1]
    folder = folders[-1] if folders else None
    class_name = class_names[0] if class_names else None
    has_class = class_name is not None and (not class_name.isdigit() or class_name in folders)
    if not has_class:
        if not folder and needs_class:
            form = "path label" if class_name is None else "path frames label"
            raise ListError(
                f"{line!r} reads as '{form}' without a class folder; {EXPECTED[9:]} is needed. "
                "python -m dataset_team.lists convert LIST OUT --data-root DIR writes it"
            )
        class_name = folder or ""
    return path, class_name, int(label), has_class


def _columns(line: str) -> list[str]:
    """Path, path and label, or path, class (or frames) and label."""
    tables = []
    for separator in "\t;,":
        fields = _csv_fields(line, separator)
        # `A/x A<tab>1` has three columns, not a path with a blank and a label.
        is_whole = len(fields) == 3 or (
            len(fields) == 2 and (" " not in fields[0] or without_extension(fields[0]) != fields[0])
        )
        if is_whole and fields[-1].isdigit():
            tables.append(fields)
    if len(tables) > 1:
        raise ListError(f"{line!r} can be read with two separators; use tabs between the columns")
    if tables:
        return tables[0]
    if match := _CLASS_IS_FOLDER.fullmatch(line):
        return list(match.group("path", "class_name", "label"))
    match = _PATH_THEN_REST.fullmatch(line)
    columns = [match["path"], *(match["rest"] or "").split()] if match else line.split()
    is_column_lost = len(columns) == 2 and not columns[1].lstrip("-").isdigit()
    if len(columns) > 3 or is_column_lost:
        raise ListError(
            f"{EXPECTED}, found {line!r}; a class name with blanks must be the name of the video's "
            "folder, or tabs must stand between the columns"
        )
    return columns


def _csv_fields(line: str, separator: str) -> list[str]:
    try:
        (fields,) = csv.reader([line], delimiter=separator, skipinitialspace=True)
    except (csv.Error, ValueError):
        return []
    fields = [field.strip() for field in fields]
    while fields and not fields[-1]:
        fields.pop()
    return fields if all(fields) else []


def plain_path(path: str) -> str:
    """The path with single slashes, without `.`, and without `Folder/..`."""
    plain = posixpath.normpath(path.replace("\\", "/"))
    return "/" + plain.lstrip("/") if plain.startswith("/") else plain
