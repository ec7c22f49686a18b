"""The videos that a command line names, and the files that their pictures go to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Union

from coviar.folder import list_folder
from coviar.live import STDIN, is_live

Source = Union[Path, str]  # a file, or a live source


def list_sources(names: Sequence[str]) -> list[Source]:
    """The files named and those in the folders named; live sources stay text. Raises ValueError."""
    sources: list[Source] = []
    for name in names:
        path = Path(name)
        if is_live(name):
            sources.append(name)
        elif path.is_dir():
            found = list_folder(path).videos
            if not found:
                raise ValueError(f"{path} holds no video; name the files themselves")
            sources += [path / name for name in found]
        else:
            sources.append(path)
    return sources


def picture_paths(show: Path | None, sources: Sequence[Source]) -> dict[Source, Path]:
    """Where each source is drawn: the file `show`, or files of different names in a folder.

    Raises ValueError where `show` is neither, or a file for several sources.
    """
    if show is None:
        return {}
    is_file = show.suffix.lower() == ".png"
    if is_file and len(sources) > 1:
        raise ValueError(f"--show {show}: {len(sources)} videos need a folder, not a file")
    if is_file:
        return {sources[0]: show}
    if show.exists() and not show.is_dir():
        raise ValueError(f"--show {show} is neither a .png file nor a folder")
    paths, taken = {}, set()
    for source in dict.fromkeys(sources):  # one that is named twice is drawn once
        stem = "stdin" if str(source) == STDIN else Path(source).stem
        name, number = stem, 1
        while name.casefold() in taken:  # some file systems have no letter case
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        paths[source] = show / f"{name}.png"
    return paths
