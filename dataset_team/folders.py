"""Lists for training and test, from own videos in one folder per class.

Videos cut from one recording look alike, so a recording on both sides would make the test easy. The
user says which videos are of one recording, by a regular expression or a CSV file, or their names
tell. Equal files are always of one recording.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import av

from coviar.container import open_video
from coviar.folder import list_folder
from dataset_team.finder import VideoFinder
from dataset_team.groups import Recordings, group_of
from dataset_team.identity import equal_files
from dataset_team.list_file import ListError, without_extension
from dataset_team.official_lists import Entry

# Endings that mark a copy or a part: " (1)", "_part2", "-trim", "_copy"; "clip 1" alone is a name.
COPY_ENDING = re.compile(
    r"(?<=[^ _.-])(?:[ _.-]*"
    r"(?:\(\d+\)|copy ?\d*|kopie|edit(?:ed)?|trim(?:med)?|(?:cut|part|clip) ?\d+))+$",
    re.IGNORECASE,
)
NEEDED = {"train": 2, "test": 1}  # groups of each class, a list
FEW_TEST_CLIPS = 5  # one video more or less is 20 points or more


class ClassVideo(NamedTuple):
    """One video in a class folder."""

    name: str  # Class/video.mp4
    path: str
    class_name: str
    seconds: float


def read_videos(folder: Path) -> tuple[list[ClassVideo], list[str]]:
    """The videos below `folder`'s class folders, and a line for each that is left out.

    Raises ListError when there are fewer than two classes.
    """
    finder, videos, left_out = VideoFinder(folder), [], []
    for path in list_folder(folder).videos:
        name = path.as_posix()
        if len(path.parts) < 2:
            left_out.append(f"{name}: lies in no class folder")
            continue
        taken = finder.find(without_extension(name))
        if Path(taken) != folder / path:
            left_out.append(f"{name}: {taken} has the same name and is taken")
            continue
        try:
            videos.append(ClassVideo(name, taken, path.parts[0], _seconds(taken)))
        except (OSError, ValueError) as error:
            left_out.append(f"{name}: cannot be opened: {error}")
    classes = {video.class_name for video in videos}
    if len(classes) < 2:
        raise ListError(
            f"{folder} holds videos of {len(classes)} class(es); put them into one folder per"
            f" class: {folder}/Class/video.mp4"
        )
    return videos, left_out


def _seconds(path: str) -> float:
    with open_video(path) as (container, stream):
        if container.duration:
            return container.duration / av.time_base
        count = sum(packet.size > 0 for packet in container.demux(stream))
        return count / float(stream.average_rate or 25)


def groups_by_regex(videos: Sequence[ClassVideo], pattern: str) -> dict[str, str]:
    """{name: recording}: what the first group of `pattern` that takes part, or all of it, matches
    in Class/video.

    Raises ListError for a wrong pattern, and for names where it matches nothing.
    """
    try:
        groups = {video.name: _matched(pattern, without_extension(video.name)) for video in videos}
    except re.error as error:
        raise ListError(f"--group-regex {pattern!r} is no regular expression: {error}") from error
    bad = [name for name, group in groups.items() if not group.strip()]
    if bad:
        raise ListError(
            f"--group-regex {pattern!r} matches nothing in {len(bad)} names, first {bad[0]}"
        )
    return groups


def _matched(pattern: str, name: str) -> str:
    match = re.search(pattern, name)
    if match is None:
        return ""
    return next((part for part in match.groups() if part is not None), match[0])


def groups_by_csv(
    videos: Sequence[ClassVideo], path: Path, folder: Path = Path()
) -> dict[str, str]:
    """{name: recording} of a file with the columns Class/video, recording; absolute paths are those
    below `folder`. Raises ListError."""
    try:
        recordings = Recordings(path, folder)
        found = {video.name: recordings.find(without_extension(video.name)) for video in videos}
    except ListError as error:
        raise ListError(f"--group-csv {error}") from error
    missing = [name for name, recording in found.items() if recording is None]
    if missing:
        raise ListError(f"--group-csv {path} lacks {len(missing)} videos, first {missing[0]}")
    return found


def groups_by_name(videos: Sequence[ClassVideo]) -> dict[str, str]:
    """{name: recording}: names that differ only by the ending of a copy or part are one recording.

    Names of UCF-101 and HMDB-51 hold their recording.
    """
    groups = {}
    for video in videos:
        stem = without_extension(video.name).rsplit("/", 1)[-1]
        known = group_of(stem)
        groups[video.name] = (
            f"{video.class_name}/{known}" if known else COPY_ENDING.sub("", stem).casefold()
        )
    return groups


def join_equal_files(videos: Sequence[ClassVideo], groups: Mapping[str, str]) -> tuple[dict, list]:
    """(groups, those with equal files joined; the names of equal files)."""
    joined, name_of = dict(groups), {video.path: video.name for video in videos}
    equal = [[name_of[path] for path in paths] for paths in equal_files(name_of)]
    for names in equal:
        others = {joined[name] for name in names}
        joined.update({n: joined[names[0]] for n, group in joined.items() if group in others})
    return joined, equal


def divide(
    videos: Sequence[ClassVideo],
    groups: Mapping[str, str],
    shares: Sequence[float],
    seed: int,
    least: Sequence[int],
) -> list[list[ClassVideo]]:
    """Clips in parts of about these shares of each class; a group is in one part.

    The largest groups go first, each to the part that lacks most of its classes. least: of how many
    groups each part has videos of a class, if the class has enough groups, and they hold no other
    class; with fewer, as many parts as there are groups have some.
    """
    members = defaultdict(list)
    for video in videos:
        members[groups[video.name]].append(video)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -len(members[group]))
    totals = Counter(video.class_name for video in videos)
    left = Counter(c for group in order for c in {video.class_name for video in members[group]})
    counts, held = ([Counter() for _ in shares] for _ in range(2))  # videos and groups by class
    parts = [[] for _ in shares]
    for group in order:
        own = Counter(video.class_name for video in members[group])
        lacking = {c: [max(0, n - part[c]) for n, part in zip(least, held)] for c in own}

        def gain(part: int, own: Counter = own, lacking: Mapping = lacking) -> tuple[int, float]:
            pressed = [c for c in own if left[c] <= sum(lacking[c]) and lacking[c][part]]
            must = sum(1 if held[part][c] else 2 for c in pressed)
            return must, sum(shares[part] * totals[c] - counts[part][c] for c in own)

        best = max(range(len(shares)), key=gain)
        counts[best].update(own)
        held[best].update(own.keys())
        left.subtract(own.keys())
        parts[best] += members[group]
    return [sorted(part) for part in parts]


def make_splits(
    videos: Sequence[ClassVideo],
    groups: Mapping[str, str],
    share: float,
    folds: int | None,
    seed: int,
) -> dict[str, list[Entry]]:
    """{"split1_train": entries, "split1_test": ...}, a split per fold; labels in name order."""
    labels = {name: label for label, name in enumerate(sorted({c.class_name for c in videos}))}
    shares = [1 / folds] * folds if folds else [1 - share, share]
    # Training lists need two groups of a class, one of them to choose models on.
    least = [NEEDED["train"] if folds == 2 else 1] * folds if folds else list(NEEDED.values())
    parts = divide(videos, groups, shares, seed, least)
    lists = {}
    for number, test in enumerate(parts if folds else parts[1:], 1):
        names = {video.name for video in test}
        train = [video for video in sorted(videos) if video.name not in names]
        for part, chosen in (("train", train), ("test", test)):
            lists[f"split{number}_{part}"] = [
                Entry(video.name, video.class_name, labels[video.class_name]) for video in chosen
            ]
    return lists


def class_table(
    videos: Sequence[ClassVideo], groups: Mapping[str, str], lists: Mapping[str, Sequence[Entry]]
) -> list[str]:
    """A table of the classes, and a warning for each class too small to train or test."""
    test = Counter(e.class_name for key, part in lists.items() if "test" in key for e in part)
    lines = [f"{'class':24}{'clips':>7}{'groups':>8}{'minutes':>9}{'test':>6}"]
    warnings = []
    for name in sorted({video.class_name for video in videos}):
        own = [video for video in videos if video.class_name == name]
        number = len({groups[video.name] for video in own})
        minutes = sum(video.seconds for video in own) / 60
        lines.append(f"{name:24}{len(own):7}{number:8}{minutes:9.1f}{test[name]:6}")
        for part, entries in lists.items():
            found = len({groups[e.name] for e in entries if e.class_name == name})
            needed = next(n for kind, n in NEEDED.items() if kind in part)
            if found < needed:
                warnings.append(
                    f"warning: {name} has {found or 'no'} group(s) in {part}, which needs {needed}:"
                    f" it has {number} in all; film it in more recordings"
                )
        if number < 3:
            warnings.append(
                f"warning: {name} has {number} group(s); training, held-out videos and test need"
                " three"
            )
        elif 0 < test[name] < FEW_TEST_CLIPS:
            warnings.append(
                f"warning: {name} has {test[name]} test clip(s): each is"
                f" {100 / test[name]:.0f} points of its accuracy"
            )
    return [*lines, *warnings]
