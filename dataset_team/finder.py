"""Finding the file of a video that a list names."""

from __future__ import annotations

import os
from collections import defaultdict

from coviar.files import VIDEO_SUFFIXES


def without_extension(name):
    """`name` without the extension of a video; other dots are part of the name."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in VIDEO_SUFFIXES else name


class VideoFinder:
    """Finds videos under a folder by name, "Class/video"; reads each folder once.

    The extension does not matter. Where there is no exact match, letter case and blank or
    underscore do not matter either: UCF-101's HandStandPushups is HandstandPushups on disk.
    """

    def __init__(self, root):
        self.root = os.fspath(root)
        self._folders = {}

    def find(self, name):
        """The path of a video, with or without extension in its name; None if there is none."""
        *parents, stem = without_extension(name).split("/")
        folder = self.root
        for parent in parents:
            folder = self._entry(folder, parent, is_video=False)
            if folder is None:
                return None
        return self._entry(folder, stem, is_video=True)

    def _entry(self, folder, wanted, is_video):
        if folder not in self._folders:
            self._folders[folder] = _read_folder(folder)
        exact, alike = self._folders[folder][is_video]
        entry = exact.get(wanted) or alike.get(_alike(wanted))
        return entry and os.path.join(folder, entry)


def _alike(name):
    return name.casefold().replace(" ", "_")


def _read_folder(folder):
    """{is_video: ({name: entry}, {name without case and blanks: entry})} of one folder."""
    folders, videos = {}, defaultdict(list)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem, extension = os.path.splitext(entry.name)
            if extension.lower() in VIDEO_SUFFIXES:
                videos[stem].append((VIDEO_SUFFIXES.index(extension.lower()), entry.name))
            elif entry.is_dir():
                folders[entry.name] = entry.name
    first_videos = {stem: min(candidates)[1] for stem, candidates in videos.items()}
    return {
        is_video: (exact, {_alike(name): entry for name, entry in exact.items()})
        for is_video, exact in ((False, folders), (True, first_videos))
    }
