"""Whether the container of a video file says that its video is encrypted."""

from __future__ import annotations

import struct

_MP4_ENTRIES = (b"encv", b"drmi")
_ASF_OBJECTS = tuple(
    map(bytes.fromhex, ("fbb3112223bdd211b4b700a0c955fc6e", "14e68a292226174cb935dae07ee9289c"))
)
_MATROSKA, _CONTENT_ENCODINGS, _CONTENT_ENCRYPTION = b"\x1a\x45\xdf\xa3", b"\x6d\x80", b"\x50\x35"
_PROGRAM, _VIDEO_PACKET = b"\0\0\1\xba", b"\0\0\1\xe0"
_PACKET = 188  # bytes of a transport stream's packet
_SYNCS = 5  # packets whose first byte must be right


def is_encrypted(path: str, head: bytes) -> bool:
    """head: the first bytes of the file. OSError if it cannot be read."""
    if head[4:8] == b"ftyp":
        return _is_mp4_encrypted(path)
    if head.startswith(_MATROSKA):
        place = head.find(_CONTENT_ENCODINGS)
        return place >= 0 and _CONTENT_ENCRYPTION in head[place : place + 64]
    if head.startswith(_PROGRAM):
        place = head.find(_VIDEO_PACKET)
        scrambling = head[place + 6 : place + 7].hex()[:1]
        return place >= 0 and scrambling in ("9", "a", "b")
    syncs = head[: _SYNCS * _PACKET : _PACKET]  # a GIF begins like the first of them
    if len(syncs) > 2 and not syncs.strip(b"G"):
        starts = range(0, len(head) - 3, _PACKET)
        return 2 * sum(head[i + 3] >> 6 > 0 for i in starts) > len(starts)
    return any(object_id in head for object_id in _ASF_OBJECTS)


def _is_mp4_encrypted(path: str) -> bool:
    with open(path, "rb") as file:
        for _ in range(1000):
            header = file.read(16)
            if len(header) < 8:
                return False
            length, name = struct.unpack_from(">I4s", header)
            header_bytes = 8
            if length == 1 and len(header) == 16:
                length, header_bytes = struct.unpack_from(">Q", header, 8)[0], 16
            if length < header_bytes:
                return False
            file.seek(header_bytes - len(header), 1)
            if name == b"moov":
                return _has_encrypted_entry(file.read(length - header_bytes))
            file.seek(length - header_bytes, 1)
    return False


def _has_encrypted_entry(moov: bytes) -> bool:
    place = moov.find(b"stsd")
    while place >= 0:
        if moov[place + 16 : place + 20] in _MP4_ENTRIES:
            return True
        place = moov.find(b"stsd", place + 4)
    return False
