"""List files: which videos, of which class.

    python -m dataset_team.lists ucf101 ucfTrainTestlist lists

makes the three-column lists of a data set from its official split files. A line holds
`Class/video.avi ClassName label`; blank lines are skipped, and lines that start with #. A class
name may hold blanks where it is also the name of the video's folder.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from coviar.files import whole_file
from dataset_team import official_lists
from dataset_team.finder import VideoFinder, without_extension
from dataset_team.registry import DATASETS

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

    Videos are looked up under `data_root` as finder.VideoFinder does. Raises ListError naming every
    bad line (at most 10 shown): malformed, class and label that contradict an earlier line, label
    outside `data_name`'s classes, video listed twice, video not found.
    """
    if not Path(data_root).is_dir():
        raise ListError(f"{data_root}: no such folder (the one that holds the class folders)")
    num_classes = DATASETS[data_name].num_classes if data_name in DATASETS else None
    finder = VideoFinder(data_root)
    seen = _Seen(num_classes)
    records, problems = [], []
    for line_number, line in _lines(list_path):
        try:
            name, class_name, label = _parse_line(line)
            seen.check(name, class_name, label, line_number)
            path = finder.find(name)
            if path is None:
                raise ListError(
                    f"no video {name}.* under {data_root} (check --data-root; "
                    "python -m coviar.reencode brings videos there)"
                )
            records.append(Record(name, path, class_name, label, group_of(name)))
        except ListError as error:
            problems.append(f"{list_path}:{line_number}: {error}")
    if problems:
        raise ListError(shorten(problems))
    if not records:
        raise ListError(f"{list_path}: no videos in this list")
    return records


def read_class_names(list_path, num_classes):
    """Class names by label, of a list file whose videos need not be there.

    A label without a video is named by its number. Raises ListError naming a line that is malformed
    or contradicts an earlier one, or has a label outside the classes.
    """
    seen = _Seen(num_classes)
    for line_number, line in _lines(list_path):
        try:
            seen.check(*_parse_line(line), line_number)
        except ListError as error:
            raise ListError(f"{list_path}:{line_number}: {error}") from error
    return [seen.class_of.get(label, str(label)) for label in range(num_classes)]


def _lines(list_path):
    """(number, line) of every line that says something."""
    for line_number, line in enumerate(Path(list_path).read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield line_number, line


def _parse_line(line):
    match = THREE_COLUMNS.fullmatch(line) or BLANKS_INSIDE.fullmatch(line)
    if not match:
        raise ListError(f"expected 'Class/video.avi ClassName label', found {line!r}")
    label = match["label"]
    if not (label.isascii() and label.isdigit()):
        raise ListError(f"the label must be a number from 0 on, found {label!r}")
    return without_extension(match["name"]), match["class_name"], int(label)


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


def shorten(problems):
    """The first ten of a list of problems, a line each, and how many more there are."""
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


def write_list(path, entries):
    """Write official_lists.Entry's as a list file, whole."""
    with whole_file(path) as temporary:
        lines = [f"{entry.name} {entry.class_name} {entry.label}\n" for entry in entries]
        temporary.write_text("".join(lines), encoding="utf-8")


def get_args_parser():
    parser = argparse.ArgumentParser(
        prog="python -m dataset_team.lists",
        description="Make the lists of a data set from its official split files.",
    )
    parser.add_argument("data_name", choices=sorted(official_lists.READERS))
    parser.add_argument(
        "splits",
        metavar="SPLITS",
        help="the folder of the official files: ucfTrainTestlist with classInd.txt, "
        "testTrainMulti_7030_splits, or Kinetics-400's train.csv and val.csv",
    )
    parser.add_argument("out", metavar="OUT", help="folder for <data>_<split>_<part>.txt")
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="leave out the videos that are not in DIR and say how many (Kinetics videos vanish)",
    )
    return parser


def main(args, parser):
    finder = None
    if args.data_root is not None:
        if not Path(args.data_root).is_dir():
            parser.error(f"--data-root {args.data_root}: no such folder")
        finder = VideoFinder(args.data_root)
    try:
        lists = official_lists.READERS[args.data_name](args.splits)
    except official_lists.SplitFileError as error:
        parser.exit(1, f"{error}\n")
    result = {}
    for part, entries in lists.items():
        path = Path(args.out) / f"{args.data_name}_{part}.txt"
        listed = [entry for entry in entries if finder is None or finder.find(entry.name)]
        write_list(path, listed)
        result[str(path)] = {"videos": len(listed), "missing": len(entries) - len(listed)}
        print(f"{path}: {len(listed)} videos, {len(entries) - len(listed)} missing")
    print(f"result: {json.dumps(result)}")


if __name__ == "__main__":
    the_parser = get_args_parser()
    main(the_parser.parse_args(), the_parser)
