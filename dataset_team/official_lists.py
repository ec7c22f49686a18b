"""The official split files of UCF-101, HMDB-51 and Kinetics-400, as published on their pages."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dataset_team.list_file import decoded


class Entry(NamedTuple):
    """One video of an official list; `name` has the file extension the list gives it."""

    name: str
    class_name: str
    label: int


class SplitFileError(ValueError):
    """Official split files that are missing or not as expected."""


Lists = dict[str, list[Entry]]  # by split and part: "split1_train"


def ucf101(folder: str | os.PathLike) -> Lists:
    """ucfTrainTestlist: {"split1_train": [Entry...], "split1_test": [...], ... "split3_test"}.

    Classes and labels are classInd.txt's (from 0 on). A class is found by the video's folder,
    whatever its letter case: the lists spell HandStandPushups in two ways.
    """
    classes: dict[str, tuple[str, int]] = {}
    class_file = _existing(Path(folder) / "classInd.txt")
    for where, line in _lines(class_file):
        number, _, class_name = line.partition(" ")
        if not number.isdigit() or not class_name:
            raise SplitFileError(f"{where}: expected 'number ClassName', found {line!r}")
        classes[class_name.casefold()] = (class_name, int(number) - 1)
    lists: Lists = {}
    for split in (1, 2, 3):
        for part in ("train", "test"):
            entries = lists[f"split{split}_{part}"] = []
            for where, line in _lines(_existing(Path(folder) / f"{part}list0{split}.txt")):
                name, _, number = line.partition(" ")
                class_name, label = classes.get(name.split("/")[0].casefold(), (None, None))
                if label is None or number not in ("", str(label + 1)):
                    raise SplitFileError(f"{where}: {line!r} does not agree with {class_file}")
                entries.append(Entry(name, class_name, label))
    return lists


def hmdb51(folder: str | os.PathLike) -> Lists:
    """testTrainMulti_7030_splits: {"split1_train": [...], ...}; labels in alphabetical order.

    A file <class>_test_split<k>.txt marks each video 1 (train), 2 (test) or 0 (not used).
    """
    files = {}
    for path in sorted(Path(folder).glob("*_test_split[123].txt")):
        class_name, split = re.fullmatch(r"(.+)_test_split(\d)\.txt", path.name).groups()
        files[class_name, int(split)] = path
    if not files:
        raise SplitFileError(f"{folder}: holds no files <class>_test_split1.txt")
    labels = {name: label for label, name in enumerate(sorted({name for name, _ in files}))}
    lists: Lists = {f"split{split}_{part}": [] for split in (1, 2, 3) for part in ("train", "test")}
    for class_name, label in labels.items():
        for split in (1, 2, 3):
            path = Path(folder) / f"{class_name}_test_split{split}.txt"
            for where, line in _lines(_existing(path)):
                video, _, mark = line.rpartition(" ")
                if mark not in ("0", "1", "2") or not video.strip():
                    raise SplitFileError(f"{where}: expected 'video 0|1|2', found {line!r}")
                if mark != "0":
                    part = "train" if mark == "1" else "test"
                    entry = Entry(f"{class_name}/{video.strip()}", class_name, label)
                    lists[f"split{split}_{part}"].append(entry)
    return lists


def kinetic400(folder: str | os.PathLike) -> Lists:
    """train.csv and val.csv (or validate.csv): {"train": [...], "test": [...]}.

    The labelled part to test on is the validation one. Videos are Class/<id>_<start>_<end>.mp4 with
    six-digit seconds, labels alphabetical. Class names get underscores for blanks, so that a list
    has three words a line; the folders may have either.
    """
    folder = Path(folder)
    validation = folder / "val.csv"
    if not validation.exists():
        validation = folder / "validate.csv"
    parts = {"train": _existing(folder / "train.csv"), "test": _existing(validation)}
    rows = {part: _kinetics_rows(path) for part, path in parts.items()}
    class_names = sorted({class_name for class_name, _, _ in rows["train"]})
    labels = {class_name: label for label, class_name in enumerate(class_names)}
    lists: Lists = {part: [] for part in parts}
    for part, path in parts.items():
        for class_name, video, where in rows[part]:
            if class_name not in labels:
                raise SplitFileError(f"{where}: class {class_name!r} is not in {parts['train']}")
            word = class_name.replace(" ", "_")
            lists[part].append(Entry(f"{word}/{video}.mp4", word, labels[class_name]))
        if not lists[part]:
            raise SplitFileError(f"{path}: holds no videos")
    return lists


def _kinetics_rows(path: Path) -> list[tuple[str, str, str]]:
    """(class name, video name, "file:line") of each row."""
    rows = []
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    for row in reader:
        where = f"{path}:{reader.line_num}"
        try:
            start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
            rows.append((row["label"], f"{row['youtube_id']}_{start:06}_{end:06}", where))
        except (KeyError, TypeError, ValueError):
            raise SplitFileError(
                f"{where}: expected the columns label, youtube_id, time_start, time_end, "
                f"found {row}"
            ) from None
    return rows


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise SplitFileError(f"{path}: no such file; it belongs to the official split files")
    return path


def _text(path: Path) -> str:
    remedy = "download the official file again, or save it as UTF-8"
    text = decoded(path.read_bytes(), "utf-8", path, remedy, SplitFileError)
    return text.removeprefix("\ufeff")  # of a program that marks UTF-8


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """("file:line", text) of the lines that are not blank."""
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


READERS = {"ucf101": ucf101, "hmdb51": hmdb51, "kinetic400": kinetic400}
