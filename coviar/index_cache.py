"""The indexes of a whole data set, kept in one file so that opening it again reads no video."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from coviar.files import whole_file
from coviar.index import VideoIndex, read_index

_FORMAT = 4


def read_indexes(
    paths: Sequence, cache_path: str | os.PathLike | None = None, bad: dict | None = None
) -> list:
    """The VideoIndex of every path, in order.

    cache_path: a .npz file of indexes. What it holds for files of unchanged size and time is used,
    the rest is read and added, also where an error ends it. It may be shared by processes and hosts
    writing at once: it is always replaced whole, and the worst case is that an index is read again.
    A cache that cannot be read is rebuilt; one that cannot be written is a warning. bad: takes
    {path: error} of the videos that cannot be read, whose index is None. Without it errors as
    `read_index`.
    """
    known = {} if cache_path is None else _load(cache_path)
    base = "" if cache_path is None else os.path.dirname(os.path.abspath(cache_path))
    indexes, fresh = [], {}
    try:
        for path in tqdm(paths, desc="index", unit="video", disable=None, delay=2):
            path = os.fspath(path)
            try:
                indexes.append(_index_of(path, base, known, fresh))
            except (OSError, ValueError) as error:
                if bad is None:
                    raise
                bad[path] = error
                indexes.append(None)
    finally:
        if fresh and cache_path is not None:
            _store(cache_path, {**_load(cache_path), **fresh})
    return indexes


def _index_of(path: str, base: str, known: dict, fresh: dict) -> VideoIndex:
    """From what is known, if it is of the same file; else read, and added to `fresh`."""
    key = os.path.relpath(os.path.abspath(path), base) if base else path
    status = os.stat(path)
    stamp = (status.st_size, status.st_mtime_ns)
    before, index = known.get(key, (None, None))
    if before != stamp:
        index = read_index(path)
        if base:
            fresh[key] = (stamp, index)
    return index._replace(path=path)


def _load(cache_path: str | os.PathLike) -> dict:
    """{path relative to the cache's folder: ((size, mtime), VideoIndex)}; {} if there is none."""
    try:
        with np.load(cache_path) as file:
            entries = json.loads(file["entries"].tobytes())
            offsets, sizes = file["offsets"], file["sizes"]
        if entries["format"] != _FORMAT:
            return {}
        known, first = {}, 0
        for key, size, mtime, width, height, lengths, header, tag in entries["videos"]:
            last = first + sum(lengths)
            known[key] = (
                (size, mtime),
                VideoIndex(
                    key,
                    width,
                    height,
                    tuple(lengths),
                    offsets[first:last],
                    sizes[first:last],
                    bytes.fromhex(header),
                    tag=tag,
                ),
            )
            first = last
        return known
    except Exception:  # NumPy and zipfile raise of many kinds where a file is damaged
        return {}


def _store(cache_path: str | os.PathLike, known: dict) -> None:
    videos = [
        (key, *stamp, index.width, index.height, index.gop_lengths, index.header.hex(), index.tag)
        for key, (stamp, index) in known.items()
    ]
    entries = json.dumps({"format": _FORMAT, "videos": videos}).encode()
    content = io.BytesIO()  # Python 3.9 prints a traceback where np.savez has no room on the disk
    np.savez(
        content,
        entries=np.frombuffer(entries, np.uint8),
        offsets=np.concatenate([index.offsets for _, index in known.values()]),
        sizes=np.concatenate([index.sizes for _, index in known.values()]),
    )
    try:
        with whole_file(cache_path) as temporary:
            temporary.write_bytes(content.getbuffer())
    except OSError as error:
        warnings.warn(f"the index cache could not be written: {error}", stacklevel=3)
