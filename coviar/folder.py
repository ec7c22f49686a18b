"""What is in a folder and in those below: videos, or files of a name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from coviar.files import VIDEO_SUFFIXES, is_special


class Contents(NamedTuple):
    """videos: paths relative to the folder, sorted. others: {suffix: files taken for no video}; a
    pipe or a device is none, whatever its suffix."""

    videos: list
    others: Counter


def list_folder(folder: Path) -> Contents:
    """What is in a folder and in those below; videos are known by their suffix."""
    videos, others = [], Counter()

    def skip(error: OSError) -> None:
        others["unreadable folder(s)"] += 1

    for path in _all_files(folder, skip):
        suffix = path.suffix.lower()
        if path.name.startswith("."):
            others["hidden"] += 1
        elif suffix in VIDEO_SUFFIXES and is_special(path):
            others["pipe(s) or device(s)"] += 1
        elif suffix in VIDEO_SUFFIXES:
            videos.append(path.relative_to(folder))
        else:
            others[suffix or "no suffix"] += 1
    return Contents(sorted(videos), others)


def files_below(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """The files of these names in a folder and in those below."""
    return (path for path in _all_files(folder) if path.name in names)


def _all_files(folder: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Links are followed, each folder once: a loop ends, and a second name of a folder is left out.

    onerror: is told of a folder that cannot be read.
    """
    visited, to_visit = set(), [folder]
    while to_visit:  # real folders before linked ones: a folder is entered once, by its own path
        for here, children, names in os.walk(to_visit.pop(0), onerror=onerror):
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in visited:
                children.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            paths = (Path(here, child) for child in sorted(children))
            to_visit += [path for path in paths if path.is_symlink()]
            yield from (Path(here, name) for name in names)


def describe(others: Counter) -> str:
    """For a message: what was taken for no video."""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    return f"{kinds} (videos are known by their suffix)"
