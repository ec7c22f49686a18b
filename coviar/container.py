"""Opening a video file: the one place that calls av.open to read, and says why it cannot."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

import av
from av.sidedata.sidedata import SideDataContainer

from coviar.complete import find_cut, read_head
from coviar.encryption import is_encrypted

REMEDY = "re-encode it: python -m coviar.reencode IN OUT"
CONTAINER_OPTIONS = {"protocol_whitelist": "file"}  # a playlist must not open other addresses

# A forked process, such as a loader's worker, has the garbage of its parent but not its threads: to
# free a decoder or scaler there waits for ever for one of them. So the garbage collector leaves
# alone what was inherited.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=gc.freeze)

_OTHER_FILES = {
    b"PK\3\4": "a ZIP archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF document",
    b"Salted__": "encrypted (by openssl)",
    b"-----BEGIN PGP": "encrypted (by PGP)",
}


@contextlib.contextmanager
def open_video(path: str | os.PathLike) -> Iterator[tuple]:
    """Yield (container, its video stream). Raises FileNotFoundError and other OSErrors, and
    ValueError that names the file and what it is instead of a video."""
    path = os.fspath(path)
    head = read_head(path)
    if not head:
        raise ValueError(f"{path}: the file is empty")
    try:
        with _open(path) as container:
            stream = _choose_stream(path, container)
            _check_codec(path, head, container, stream)
            yield container, stream
    except (av.error.FFmpegError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        cut = find_cut(path)
        what = f"the file is cut off: {cut}; a whole copy is needed" if cut else None
        raise ValueError(f"{path}: {what or _what_it_is(head, reason)}") from error


def _open(path: str):
    name = f"file:{path}"  # a colon in it is no protocol, a percent sign no pattern
    if int(av.__version__.split(".")[0]) >= 19:  # takes tags that are not UTF-8 by itself
        return av.open(name, container_options=CONTAINER_OPTIONS)
    return av.open(name, container_options=CONTAINER_OPTIONS, metadata_errors="replace")


def _choose_stream(path: str, container):
    """The first stream with more than one picture that is no cover; else the first of one."""
    streams = [s for s in container.streams.video if not _is_cover(s)]
    if not streams:
        kinds = " and ".join(sorted({s.type for s in container.streams if s.type != "video"}))
        covers = " and a cover picture" if container.streams.video else ""
        raise ValueError(
            f"{path}: there is no video in this file, only {kinds or 'nothing'}{covers}"
        )
    if len(streams) == 1:
        return streams[0]
    counts = dict.fromkeys((s.index for s in streams), 0)
    with contextlib.suppress(av.error.FFmpegError), _open(path) as other:
        for packet in other.demux([other.streams[index] for index in counts]):
            counts[packet.stream.index] += packet.size > 0
            if counts[streams[0].index] > 1:
                break
    return next((s for s in streams if counts[s.index] > 1), streams[0])


def _is_cover(stream) -> bool:
    return "attached_pic" in str(getattr(stream.disposition, "name", stream.disposition))


def _check_codec(path: str, head: bytes, container, stream) -> None:
    context = stream.codec_context
    if container.format.name == "tty":
        raise ValueError(f"{path}: this is a text file, not a video")
    if is_encrypted(path, head):
        raise ValueError(f"{path}: the video is encrypted; it can only be read without encryption")
    if context is None or not getattr(context, "name", None):
        raise ValueError(
            f"{path}: its video codec is not known to this FFmpeg; convert it with what plays it"
        )


def _what_it_is(head: bytes, reason: str) -> str:
    for magic, name in _OTHER_FILES.items():
        if head.startswith(magic):
            return f"this is {name}, not a video"
    if not head.strip(b"\0"):
        return "the file holds only zeros, as after a copy that did not finish"
    text = _as_text(head)
    if text is not None:
        is_page = text.lstrip().lower().startswith(("<!doctype html", "<html"))
        return "this is {}, not a video".format("a web page" if is_page else "a text file")
    return f"not a video that FFmpeg can read ({reason})"


def _as_text(head: bytes):
    encodings = ("utf-16",) if head[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8", "latin-1")
    for encoding in encodings:
        with contextlib.suppress(UnicodeError):
            text = head.decode(encoding, "ignore" if encoding == "utf-16" else "strict")
            return text if all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text) else None
    return None


def display_matrix(frame: av.VideoFrame) -> tuple:
    """(a, b, c, d), each -1, 0 or 1: a pixel (x, y) is shown at (a x + c y, b x + d y)."""
    found = SideDataContainer(frame).get("DISPLAYMATRIX")
    if found is None:
        return 1, 0, 0, 1
    values = memoryview(bytes(found)).cast("i")
    a, b, c, d = values[0], values[1], values[3], values[4]
    largest = max(map(abs, (a, b, c, d)))
    if largest == 0:
        return 1, 0, 0, 1
    signs = tuple(round(value / largest) for value in (a, b, c, d))
    off = max(abs(value / largest - sign) for value, sign in zip((a, b, c, d), signs))
    if off > 0.02 or abs(signs[0] * signs[3] - signs[1] * signs[2]) != 1:
        raise ValueError("its display matrix turns by no multiple of 90 degrees")
    return signs
