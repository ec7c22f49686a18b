"""Which files are videos by their name, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

# The containers and raw streams that FFmpeg reads pictures from. Where one video exists in several
# formats, the first of these is taken: re-encoded ones come first.
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".3g2"),
    *(".264", ".265", ".amv", ".asf", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265"),
    *(".hevc", ".ivf", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".mj2", ".mjpeg", ".mjpg", ".mod"),
    *(".mpe", ".mpv", ".mts", ".mxf", ".nut", ".obu", ".ogm", ".ogv", ".qt", ".rm", ".rmvb"),
    *(".tod", ".trp", ".ts", ".vob", ".vro", ".wtv", ".xvid", ".y4m"),
)

DIGEST_BYTES = 4096  # a block of a disk

_NAME_BYTES = 255  # of the longest name of a file
_RANDOM_BYTES = 8  # of temporary names

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # disk full, quota used up, file too large


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; rename it to `path` if the block succeeds.

    A reader sees the old file or the new one, never a part. If the block raises (disk full,
    interrupt), the old file is untouched and the temporary one removed; the OSError of a full disk
    says so. Parents are created. The temporary name keeps the suffix of `path`, since some writers
    choose the format by it.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OSError(
            error.errno, f"{error.strerror} while writing {path}, which stays as it was"
        ) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def half_written(path: Path) -> list[Path]:
    """What killed writers of `path`, whose name may hold wildcards, left beside it."""
    return list(path.parent.glob(f"{_prefix(path)}*{path.suffix}"))


def _temporary(path: Path) -> Path:
    """A new file, with the rights of any new file: tempfile's are for their owner alone."""
    name = f"{_prefix(path)}{secrets.token_hex(_RANDOM_BYTES // 2)}{path.suffix}"
    temporary = path.parent / name
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def _prefix(path: Path) -> str:
    """How the temporary name begins: as much of the stem as leaves room for the rest."""
    stem = path.stem
    while stem and len(os.fsencode(f".{stem}.{path.suffix}")) + _RANDOM_BYTES > _NAME_BYTES:
        stem = stem[:-1]
    return f".{stem}."


def is_special(path: str | os.PathLike) -> bool:
    """Whether it is a pipe, a socket or a device, whose reading may never end."""
    return not os.path.isfile(path) and os.path.exists(path) and not os.path.isdir(path)


def sample_digest(path: str | os.PathLike) -> str:
    """16 hex digits of a file's size and of what stands at its beginning, middle and end: enough to
    tell another file of the same name, without reading all of it."""
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for start in (0, (size - DIGEST_BYTES) // 2, size - DIGEST_BYTES):
            file.seek(max(0, start))
            digest.update(file.read(DIGEST_BYTES))
    return digest.hexdigest()[:16]


def check_suffix(path: str | os.PathLike | None, suffix: str) -> None:
    """ValueError for an output of another suffix, which may be the name of a video."""
    if path is not None and Path(path).suffix.lower() != suffix:
        raise ValueError(f"{path} does not end in {suffix}")


def check_out(path: str | os.PathLike | None) -> None:
    """Raise OSError, before the work, where `whole_file` could not write: a folder is there, or the
    parent is none or closed."""
    if path is None:
        return
    path = Path(path).absolute()
    parent = next(folder for folder in path.parents if folder.exists())
    if path.is_dir():
        fault, place = errno.EISDIR, path
    elif not parent.is_dir():
        fault, place = errno.ENOTDIR, parent
    elif not os.access(parent, os.W_OK):
        fault, place = errno.EACCES, parent
    else:
        return
    raise OSError(fault, os.strerror(fault), str(place))


def write_json(path: str | os.PathLike, content: dict) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_json(path: str | os.PathLike, remedy: str) -> dict:
    """The object in a JSON file. Raises FileNotFoundError, and ValueError, with the remedy, where
    it holds none."""
    text = Path(path).read_bytes()
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it is not JSON ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged, it holds no JSON object; {remedy}")
    return content
