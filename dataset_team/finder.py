"""Find the file of a video that a list names."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict

from coviar.files import VIDEO_SUFFIXES, is_special
from dataset_team.list_file import ListError

Names = dict[str, str]  # what is looked for: the entry of the folder


class VideoFinder:
    """Finds videos under a folder by name, "Class/video", and reads each folder once.

    Their extension does not matter. Where there is no exact match, letter case and blank or
    underscore do not matter either, nor how Unicode writes an accent: UCF-101's HandStandPushups is
    HandstandPushups on disk. Where several are alike, ListError names them.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = os.fspath(root)
        self._folders: dict[str, dict[bool, tuple[Names, dict]]] = {}

    def find(self, name: str) -> str | None:
        """The path of a video by its name without extension, as a Record has it; None if there is
        none."""
        *parents, stem = name.split("/")
        folder = self.root
        for parent in parents:
            folder = self._entry(folder, parent, is_video=False)
            if folder is None:
                return None
        return self._entry(folder, stem, is_video=True)

    def _entry(self, folder: str, wanted: str, is_video: bool) -> str | None:
        if folder not in self._folders:
            self._folders[folder] = _read_folder(folder)
        exact, similar = self._folders[folder][is_video]
        found = [exact[wanted]] if wanted in exact else similar.get(alike(wanted), [])
        if len(found) > 1:
            raise ListError(
                f"{wanted!r} may be {' or '.join(map(repr, found))} in {folder}; write it as it is"
                " there"
            )
        return os.path.join(folder, found[0]) if found else None


def alike(name: str) -> str:
    """Equal for names that differ only in letter case, in blanks and underscores, or in whether an
    accent is a character of its own (as macOS writes it)."""
    return unicodedata.normalize("NFC", name).casefold().replace(" ", "_")


def _by_likeness(exact: Names) -> dict[str, list[str]]:
    similar = defaultdict(list)
    for name, entry in exact.items():
        similar[alike(name)].append(entry)
    return dict(similar)


def _read_folder(folder: str) -> dict[bool, tuple[Names, dict]]:
    """{is_video: ({name: entry}, {alike(name): its entries})} of one folder."""
    folders, videos = {}, defaultdict(list)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem, extension = os.path.splitext(entry.name)
            if entry.is_dir():
                folders[entry.name] = entry.name
            elif extension.lower() in VIDEO_SUFFIXES and (
                entry.is_file() or not is_special(entry.path)
            ):
                videos[stem].append((VIDEO_SUFFIXES.index(extension.lower()), entry.name))
    first_videos = {stem: min(candidates)[1] for stem, candidates in videos.items()}
    return {
        is_video: (exact, _by_likeness(exact))
        for is_video, exact in ((False, folders), (True, first_videos))
    }
