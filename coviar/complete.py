"""Whether a video file is whole or cut off, by the structure of its container.

A count of pictures in a header is a hint and plays no part. A raw stream has no structure: its last
picture is decoded instead, by index.py and by source.py. Zeros at the end are the room for what a
download or a crashed machine did not write; where a format may be padded, its structure says more.
"""

from __future__ import annotations

import os
import struct

from coviar.files import is_special

SALVAGE = "to use what is there: python -m coviar.reencode --keep-damaged IN OUT"

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_EMPTY = 50  # bytes of a data object without data
# How the names of what follows the header begin: the data and four kinds of indexes.
_ASF_PARTS = {_ASF_DATA[:4], *map(bytes.fromhex, ("90080033", "d329e2d6", "f803b1fe", "d03fb73c"))}
_HEAD_BYTES = 1 << 16
_TAIL_BYTES = 1 << 18
_DISK_BLOCK = 4096
_MOST_BYTES = 1 << 20  # more than the largest list of parts (sidx) has
_LAST_PLACE = (1 << 63) - 1
_BLANK = b"\0\t\n\r "
_LONGEST_BLANK = 16


def read_head(path: str) -> bytes:
    """Raises ValueError for what is no regular file, and OSError."""
    if is_special(path):
        raise ValueError(f"{path}: this is a pipe or a device, not a file; copy what it gives")
    with open(path, "rb") as file:
        return file.read(_HEAD_BYTES)


def find_cut(path: str | os.PathLike) -> str | None:
    """What shows that the file is cut off; None if nothing does."""
    path = os.fspath(path)
    head = read_head(path)
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        check = next((check for fits, check in _FORMATS if fits(head)), None)
        if check:
            try:
                cut = check(file, size, head)
            except (struct.error, IndexError):
                return "a header at its end is incomplete"
            if cut or check in _MAY_BE_PADDED:
                return cut
        if size > _DISK_BLOCK and any(head) and not any(_at(file, size - _DISK_BLOCK, _DISK_BLOCK)):
            return "it ends in zeros, as after a copy that did not finish"
    return None


def _at(file, offset: int, count: int) -> bytes:
    """At most _MOST_BYTES from a place, which a damaged header may put anywhere."""
    file.seek(min(offset, _LAST_PLACE))
    return file.read(min(count, _MOST_BYTES))


def _is_blank(file, place: int, size: int) -> bool:
    """Whether only a few blanks follow, such as the line end that an editor or a script adds."""
    return size - place <= _LONGEST_BLANK and not _at(file, place, size - place).strip(_BLANK)


def _short(name: str, end: int, size: int) -> str:
    return f"its {name} ends at byte {end}, the file at {size}"


def _avi(file, size, head):
    end = 8 + struct.unpack_from("<I", head, 4)[0]
    place, has_index = 12, False
    wants_index = b"avih" in head[:64] and head[head.index(b"avih") + 20] & 0x10
    unknown = end in (8, 8 + 0xFFFFFFFF)
    while place + 8 <= size:
        name, length = struct.unpack("<4sI", _at(file, place, 8))
        is_movi = name == b"LIST" and _at(file, place + 8, 4) == b"movi"
        if is_movi and length in (0, 0xFFFFFFFF):
            place += 12
            continue
        if not name.strip(b"\0"):
            break
        has_index |= name == b"idx1"
        if name == b"RIFF":  # a further part of a large file
            end = max(end, place + 8 + length)
            place += 12
            continue
        if place + 8 + length > size:
            if place >= end and not unknown:
                break  # behind the last part, such as a tag
            return _short(f"part {name.decode('latin-1')!r}", place + 8 + length, size)
        place += 8 + length + length % 2
    if not unknown and end > size + 8:
        return _short("list of parts", end, size)
    if wants_index and not has_index and b"indx" not in head:
        return "its index (idx1) is missing"
    return None


def _mp4(file, size, head):
    place, names, indexed_end = 0, set(), 0
    while place < size and not _is_blank(file, place, size):
        if size - place < 8:
            return "a box at its end is incomplete"
        length, name = struct.unpack(">I4s", _at(file, place, 8))
        if length == 1:
            length = struct.unpack(">Q", _at(file, place + 8, 8))[0]
        elif length == 0 or length < 8:
            break  # to the end of the file, or padding
        if not name.isalnum() and not name.strip().isalnum():
            break
        names.add(name)
        if place + length > size:
            return _short(f"box {name.decode('latin-1')!r}", place + length, size)
        if name == b"sidx":
            indexed_end = max(indexed_end, _indexed_end(_at(file, place, length), place + length))
        place += length
    if not names & {b"moov", b"moof"}:
        return "its index (moov) is missing"
    return _short("list of parts (sidx)", indexed_end, size) if indexed_end > size else None


def _indexed_end(box: bytes, after: int) -> int:
    version = box[8]
    first = (
        struct.unpack_from(">Q", box, 28)[0] if version else struct.unpack_from(">I", box, 24)[0]
    )
    place = 36 if version else 28
    count = struct.unpack_from(">H", box, place + 2)[0]
    sizes = struct.unpack_from(">" + "III" * count, box, place + 4)[::3]
    return after + first + sum(s & 0x7FFFFFFF for s in sizes)


def _element(file, place: int) -> tuple:
    """(identifier, start of its content, its length or None where unknown)."""
    data = _at(file, place, 12)
    id_bytes = 9 - data[0].bit_length()
    size_bytes = 9 - data[id_bytes].bit_length()
    if id_bytes > 4 or size_bytes > 8:
        raise IndexError
    identifier = int.from_bytes(data[:id_bytes], "big")
    if len(data) < id_bytes + size_bytes:
        raise IndexError
    length = int.from_bytes(data[id_bytes : id_bytes + size_bytes], "big")
    length &= (1 << 7 * size_bytes) - 1
    unknown = length == (1 << 7 * size_bytes) - 1
    return identifier, place + id_bytes + size_bytes, None if unknown else length


def _matroska(file, size, head):
    place = 0
    while place < size and not _is_blank(file, place, size):
        identifier, start, length = _element(file, place)
        if identifier == 0:
            return None
        if length is None:
            place = start  # an unknown length: its parts are looked at one by one
            continue
        if start + length > size:
            return _short("last part", start + length, size)
        place = start + length
    return None


def _flv(file, size, head):
    place = head.find(b"\x00\x08filesize\x00")
    if place >= 0:
        stated = struct.unpack_from(">d", head, place + 11)[0]
        if stated > size:
            return f"its header states {stated:.0f} bytes, the file has {size}"
    place = 9 + 4
    while place < size and not _is_blank(file, place, size):
        tag = _at(file, place, 11)
        if len(tag) < 11:
            return "a tag at its end is incomplete"
        end = place + 11 + int.from_bytes(tag[1:4], "big")
        if end > size:
            return _short("last tag", end, size)
        place = end + 4
    return None


def _asf(file, size, head):
    place = 0
    while place + 24 <= size:
        length = struct.unpack("<Q", _at(file, place + 16, 8))[0]
        name = _at(file, place, 16)
        if length <= _ASF_EMPTY and name == _ASF_DATA:
            return None  # to the end of the file, as in a broadcast
        if length < 24 or (place and name[:4] not in _ASF_PARTS):
            return None  # no object, such as a tag
        if place + length > size:
            return _short("last object", place + length, size)
        place += length
    return None


def _ogg(file, size, head):
    start = max(0, size - _TAIL_BYTES)
    tail = _at(file, start, _TAIL_BYTES)
    place = tail.rfind(b"OggS")
    if place < 0 or len(tail) < place + 27:
        return "its last page is incomplete"
    count = tail[place + 26]
    table = tail[place + 27 : place + 27 + count]
    end = start + place + 27 + count + sum(table)
    if len(table) < count or end > size:
        return _short("last page", end, size)
    return None if tail[place + 5] & 4 else "its last page is missing"


def _transport(file, size, head):
    for length, first in ((188, 0), (192, 4), (204, 0)):
        if len(head) > 2 * length and all(
            head[i : i + 1] == b"G" for i in range(first, min(len(head), 5 * length), length)
        ):
            left = size % length
            if left and not _is_blank(file, size - left, size):
                return f"its last packet has {left} of {length} bytes"
            return None
    return None


def _program(file, size, head):
    start = max(0, size - _TAIL_BYTES)
    tail = _at(file, start, _TAIL_BYTES)
    place = tail.rfind(b"\0\0\1\xba")
    if place < 0:
        return None
    is_second_version = tail[place + 4] >> 6 == 1  # MPEG-2's pack header
    place += 14 + (tail[place + 13] & 7) if is_second_version else 12
    while place < len(tail) and tail[place : place + 3] == b"\0\0\1":
        if tail[place + 3] == 0xB9:
            return None
        end = place + 6 + struct.unpack_from(">H", tail, place + 4)[0]
        if end > len(tail):
            return _short("last packet", start + end, size)
        place = end
    return None


def _ivf(file, size, head):
    place = struct.unpack_from("<H", head, 6)[0]
    while place < size and not _is_blank(file, place, size):
        end = place + 12 + struct.unpack("<I", _at(file, place, 4))[0]
        if end > size:
            return _short("last picture", end, size)
        place = end
    return None


def _gif(file, size, head):
    tail = _at(file, max(0, size - 4096), 4096).rstrip(_BLANK)
    return None if tail.endswith(b";") else "its end mark is missing"


def _raw_pictures(file, size, head):
    return None  # a black one is zeros; without its header a picture cannot be decoded


_MAY_BE_PADDED = (_avi, _mp4, _matroska, _gif, _raw_pictures)
_FORMATS = (
    (lambda head: head[:4] == b"RIFF" and head[8:11] == b"AVI", _avi),
    (lambda head: head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"), _mp4),
    (lambda head: head[:4] == b"\x1a\x45\xdf\xa3", _matroska),
    (lambda head: head[:3] == b"FLV", _flv),
    (lambda head: head[:16] == _ASF, _asf),
    (lambda head: head[:4] == b"OggS", _ogg),
    (lambda head: head[:4] == b"\0\0\1\xba", _program),
    (lambda head: head[:4] == b"DKIF", _ivf),
    (lambda head: head[:4] == b"GIF8", _gif),
    (lambda head: head[:9] == b"YUV4MPEG2", _raw_pictures),
    (lambda head: head[:1] == b"G" or head[4:5] == b"G", _transport),
)
