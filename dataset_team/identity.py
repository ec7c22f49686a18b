"""Whether two paths are one file, and which files hold equal bytes."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable

SAMPLE_BYTES = 65536


def real_file(path: str | os.PathLike) -> tuple[int, int]:
    """Device and inode: the same for every spelling of a path and every link to a file."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def equal_files(paths: Iterable[str]) -> list[list[str]]:
    """Groups of two or more of `paths` that are one file or hold equal bytes, in order.

    Only files of equal size are read, and read whole only where their middles are equal. Empty
    files, which are no videos, are copies of nothing.
    """
    groups = [part for part in _divide(list(paths), os.path.getsize) if os.path.getsize(part[0])]
    for key in (_middle, file_digest):
        groups = [part for group in groups for part in _divide(group, key)]
    return groups


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _divide(paths: list[str], key: Callable[[str], Hashable]) -> list[list[str]]:
    parts = defaultdict(list)
    for path in paths:
        parts[key(path)].append(path)
    return [part for part in parts.values() if len(part) > 1]


def _middle(path: str) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - SAMPLE_BYTES) // 2)
        return hashlib.sha256(file.read(SAMPLE_BYTES)).digest()
