"""List files: which videos, of which class. `python -m dataset_team.lists` makes the official ones.

A line holds three columns, `Class/video.avi ClassName label`. Blank lines are skipped, and lines
that start with #. A class name may hold blanks where it is also the name of the video's folder.
"""

from __future__ import annotations

import os
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from dataset_team.registry import DATASETS

# Where one video exists in several formats the first of these is taken: re-encoded ones first.
EXTENSIONS = (".mp4", ".m4v", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp")

THREE_COLUMNS = re.compile(r"(?P<name>\S+)\s+(?P<class_name>\S+)\s+(?P<label>\S+)")
BLANKS_INSIDE = re.compile(
    r"(?P<name>(?:.*/)?(?P<class_name>[^/]+)/[^/]+?)\s+(?P=class_name)\s+(?P<label>\S+)"
)

# Videos cut from one recording share a group:
# v_Class_g01_c02 of UCF-101, Film_class_f_cm_np1_fr_goo_0 of HMDB-51.
UCF_GROUP = re.compile(r"_(g\d+)_c\d+$")
HMDB_GROUP = re.compile(r"(?P<film>.+)_[a-z]_[a-z]{2}_np\d+_[a-z]{2}_[a-z]{3}_\d+$")

MAX_PROBLEMS_SHOWN = 10


class Record(NamedTuple):
    """One video of a list."""

    name: str  # path in the list without extension, "Class/v_Class_g01_c01": unique, joins files
    path: str  # the existing file
    class_name: str
    label: int
    group: str | None  # recording the video was cut from, None where the name does not tell


class ListError(ValueError):
    """A list file that cannot be used; the message names file, lines and remedy."""


def read_list(list_path, data_root, data_name=None):
    """Read and check a list file; return its Records in order.

    A video is looked up under `data_root` whatever its extension; where there is no exact match,
    letter case and blank or underscore do not matter either (UCF-101's HandStandPushups is
    HandstandPushups on disk). Raises ListError naming every bad line (at most 10 shown): malformed,
    class and label that contradict an earlier line, label outside `data_name`'s classes, video
    listed twice, video not found.
    """
    list_path = Path(list_path)
    if not Path(data_root).is_dir():
        raise ListError(f"{data_root}: no such folder (the one that holds the class folders)")
    num_classes = DATASETS[data_name].num_classes if data_name in DATASETS else None
    finder = _VideoFinder(data_root)
    seen = _Seen(num_classes)
    records, problems = [], []
    for line_number, line in enumerate(list_path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            name, class_name, label = _parse_line(line)
            seen.check(name, class_name, label, line_number)
            path = finder.find(name)
            records.append(Record(name, path, class_name, label, group_of(name)))
        except ListError as error:
            problems.append(f"{list_path}:{line_number}: {error}")
    if problems:
        raise ListError(_summary(problems))
    if not records:
        raise ListError(f"{list_path}: no videos in this list")
    return records


def _parse_line(line):
    match = THREE_COLUMNS.fullmatch(line) or BLANKS_INSIDE.fullmatch(line)
    if not match:
        raise ListError(f"expected 'Class/video.avi ClassName label', found {line!r}")
    label = match["label"]
    if not (label.isascii() and label.isdigit()):
        raise ListError(f"the label must be a number from 0 on, found {label!r}")
    return _without_extension(match["name"]), match["class_name"], int(label)


def _without_extension(name):
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in EXTENSIONS else name


class _Seen:
    """What earlier lines said, to tell a line that contradicts them."""

    def __init__(self, num_classes):
        self.num_classes = num_classes
        self.line_of = {}
        self.label_of = {}
        self.class_of = {}

    def check(self, name, class_name, label, line_number):
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
        self.line_of[name] = line_number


class _VideoFinder:
    """Finds videos under a root; reads each folder once."""

    def __init__(self, root):
        self.root = os.fspath(root)
        self.folders = {}

    def find(self, name):
        folder = self.root
        *parents, stem = name.split("/")
        for parent in parents:
            folder = self._entry(folder, parent, name)
        return self._entry(folder, stem, name, is_video=True)

    def _entry(self, folder, wanted, name, is_video=False):
        if folder not in self.folders:
            self.folders[folder] = _read_folder(folder)
        exact, alike = self.folders[folder][is_video]
        entry = exact.get(wanted) or alike.get(_alike(wanted))
        if entry is None:
            raise ListError(
                f"no video {name}.* under {self.root} (check --data-root; videos from elsewhere "
                "are brought there by python -m coviar.reencode)"
            )
        return os.path.join(folder, entry)


def _alike(name):
    return name.casefold().replace(" ", "_")


def _read_folder(folder):
    """{is_video: ({name: entry}, {name without case and blanks: entry})} of one folder."""
    folders, videos = {}, defaultdict(list)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem, extension = os.path.splitext(entry.name)
            if extension.lower() in EXTENSIONS:
                videos[stem].append((EXTENSIONS.index(extension.lower()), entry.name))
            if entry.is_dir():
                folders[entry.name] = entry.name
    first_videos = {stem: min(candidates)[1] for stem, candidates in videos.items()}
    return {
        is_video: (exact, {_alike(name): entry for name, entry in exact.items()})
        for is_video, exact in ((False, folders), (True, first_videos))
    }


def _summary(problems):
    more = len(problems) - MAX_PROBLEMS_SHOWN
    shown = problems[:MAX_PROBLEMS_SHOWN] + ([f"... and {more} more"] if more > 0 else [])
    return "\n".join(shown)


def group_of(name):
    """The recording a video was cut from, read from its name; None where the name does not tell."""
    stem = name.rsplit("/", 1)[-1]
    if match := UCF_GROUP.search(stem):
        return match[1]
    if match := HMDB_GROUP.fullmatch(stem):
        return match["film"]
    return None


def split_heldout(records, fraction=0.15, seed=0):
    """Split records into (training, held-out), both in list order, class by class.

    Whole (class, group)s go to one side, single videos where there are no groups, so that clips of
    one recording are never on both. Each class gives about `fraction` of its videos, at least one
    group. Raises ListError for a class that has only one group. Depends on the seed and on the
    names of the videos, not on their order.
    """
    if not 0 < fraction < 1:
        raise ListError(f"held-out fraction must be between 0 and 1, found {fraction}")
    classes = defaultdict(lambda: defaultdict(list))
    for record in records:
        classes[record.class_name][record.group or record.name].append(record.name)
    heldout = set()
    for class_name, groups in classes.items():
        if len(groups) < 2:
            raise ListError(
                f"class {class_name!r} has one group only: holding it out would leave nothing to "
                "train on; add videos of another recording or use --select-on test"
            )
        heldout.update(_pick_groups(groups, fraction, random.Random(f"{seed}/{class_name}")))
    train = [record for record in records if record.name not in heldout]
    return train, [record for record in records if record.name in heldout]


def _pick_groups(groups, fraction, rng):
    """Names of about `fraction` of the videos: whole groups in random order while they fit."""
    order = sorted(groups)
    rng.shuffle(order)
    wanted = fraction * sum(len(names) for names in groups.values())
    picked = []
    for group in order[:-1]:
        if len(picked) + len(groups[group]) / 2 <= wanted:
            picked += groups[group]
    return picked or min((groups[group] for group in order), key=len)
