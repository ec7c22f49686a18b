"""Groups of videos that were cut from one recording, and so depend on each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from dataset_team.groups import UCF_GROUP, group_of
from dataset_team.list_file import plain_path, without_extension
from dataset_team.records import Record


def groups_of(names: Sequence[str]) -> list[str]:
    """The recording of each video by its name: "Class/g01" in a folder of its class, elsewhere
    "v_Class_g01". A name that does not tell is a group of its own."""
    return [_recording(without_extension(plain_path(name))) for name in names]


def _recording(stem: str) -> str:
    folder, _, own = stem.rpartition("/")
    recording = group_of(own)
    if recording is None:
        return stem
    is_of_class = own.casefold().startswith(f"v_{folder.rpartition('/')[2]}_g".casefold())
    if (match := UCF_GROUP.search(own)) and not is_of_class:
        recording = own[: match.end(1)]  # each class has a g01
    return f"{folder}/{recording}" if folder else recording


def names_tell(names: Sequence[str]) -> bool:
    """Whether any of the names tells its recording."""
    return any(group_of(without_extension(plain_path(name))) is not None for name in names)


def stated_groups(records: Sequence[Record]) -> list[str] | None:
    """The recordings of the file beside the list; None where there is none, and names tell."""
    if all(record.recording is None for record in records):
        return None
    by_name = groups_of([record.name for record in records])
    return [record.recording or group for record, group in zip(records, by_name)]


def split_off(groups: Sequence[str], share: float, seed: int = 0) -> np.ndarray:
    """(n,) bool: the videos of about `share` of the groups, always whole groups.

    Which groups they are depends only on the seed and the names.
    """
    names = shuffled(groups, seed)
    chosen = set(names[: round(share * len(names))])
    return np.array([group in chosen for group in groups])


def shuffled(groups: Sequence[str], seed: int = 0) -> list[str]:
    """The distinct groups, in an order that depends only on the seed and their names."""
    return sorted(set(groups), key=lambda name: _lot(name, seed))


def names_digest(names: Sequence[str]) -> str:
    """SHA-256, in hex, of the names in alphabetical order."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def _lot(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
