"""The pictures of a file of any codec, in order, and the packets where decoding can start.

Packets are read, not decoded. `SourceIndex` describes the stream that `coviar.reencode` would make
of the file: pictures of `size`, GOPs of `gop` pictures. So a SourceIndex stands wherever a
VideoIndex does, in `load_clip` too.
"""

from __future__ import annotations

import itertools
import os
from array import array
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from coviar import mpeg4
from coviar.complete import SALVAGE
from coviar.container import open_video
from coviar.convert import Converter
from coviar.encoder import GOP, SIZE, naming
from coviar.index import VideoIndex, read_index
from coviar.source import check_whole, decode_source, is_blank

# Decoding gives the same pictures wherever it starts: at any picture the container calls a key.
_SEEKABLE = {
    *("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "mpeg1video", "mpeg2video"),
    *("vc1", "wmv3", "h263", "flv", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2"),
}
_MOST_REORDERED = 32  # pictures between a picture's places in the file and on the screen
_CHECKED_PICTURES = 16  # whose times are compared with their packets'
_MIN_CODED_BYTES = 16  # a smaller MPEG-4 packet may only say "show the last picture again"
_SHOWN_BIT = 0x10  # of the first byte of a VP8 picture


class SourceIndex(NamedTuple):
    """A file of any codec as `coviar.reencode` would write it; small, picklable.

    path; width, height: of the re-encoded pictures; gop_lengths: pictures per re-encoded GOP.
    fit: see Converter. rate: pictures per second, None if unknown. note: what the user should know
    of the conversion, or None.
    streamed: why windows are found by decoding the file from its start, None if they are sought.
    seconds: (num_frames,) when each picture is shown, from the first one on.
    pts, dts: of each packet, in the file's order and time base; pictures: its picture's number, -1
    if it is not shown; keys: the packets where decoding can start; first_of: for each key, the
    first picture from which all are decoded. Empty where `streamed`.
    """

    path: str
    width: int
    height: int
    gop_lengths: tuple
    fit: str
    rate: Fraction | None
    note: str | None
    streamed: str | None
    seconds: np.ndarray
    pts: np.ndarray
    dts: np.ndarray
    pictures: np.ndarray
    keys: np.ndarray
    first_of: np.ndarray

    @property
    def num_frames(self) -> int:
        return sum(self.gop_lengths)

    @property
    def num_gops(self) -> int:
        return len(self.gop_lengths)

    @property
    def gop_starts(self) -> range:
        """The number of each GOP's first picture."""
        return range(0, self.num_frames, self.gop_lengths[0])


class _Packets(NamedTuple):
    """Of all packets of a file: their times, and which are shown and are keys."""

    pts: np.ndarray
    dts: np.ndarray
    shown: np.ndarray
    keys: np.ndarray


class CannotSeek(ValueError):
    """The windows of this file can only be found by decoding it from its start."""


def read_any_index(
    path: str | os.PathLike, size: tuple = SIZE, gop: int = GOP, fit: str = "stretch"
) -> VideoIndex | SourceIndex:
    """A VideoIndex where the file is loaded as it is; else a SourceIndex. Both go to `load_clip`.

    index = read_any_index("film.mkv")
    positions = segment_positions(index.gop_lengths, 8)
    for position in positions:                                # each decoded only when asked for
        clip = load_clip(index.path, [position], encode=True, index=index)

    size, gop, fit: of the re-encoding, without effect on a file that is loaded as it is. Raises
    FileNotFoundError, and ValueError where neither is possible.
    """
    try:
        return read_index(path)
    except ValueError:
        return read_source_index(path, size, gop, fit)


def read_source_index(
    path: str | os.PathLike,
    size: tuple = SIZE,
    gop: int = GOP,
    fit: str = "stretch",
    stream: bool = False,
) -> SourceIndex:
    """Count the pictures of a file of any codec by its packets; a few are decoded.

    size: (width, height), gop: pictures per GOP, fit: as of `coviar.reencode`. stream: decode the
    file from its start for every clip, as is done where its packets do not tell which pictures
    come out. Raises ValueError that names the file if it is cut off, damaged where it is looked at,
    or cannot be converted; errors of opening as `open_video`. Damage inside pictures is found when
    their window is decoded.
    """
    path = os.fspath(path)
    with open_video(path) as (container, video):
        rate, pixel_shape = video.average_rate, video.sample_aspect_ratio
        time_base, codec = video.time_base, video.codec_context.codec
        check_whole(path)
        reason = "asked for" if stream else _why_not_seekable(codec)
        if reason is None:
            try:
                packets = _read_packets(path, container, video)
            except CannotSeek as error:
                reason = str(error)
    converter = Converter(size, fit, pixel_shape)
    common = {"path": path, "width": size[0], "height": size[1], "fit": fit, "rate": rate}
    with naming(path):
        if reason is None:
            try:
                found = _arrange(packets, _first_times(path, converter))
                ticks = np.sort(found["pts"][found["pictures"] >= 0])
                # From integers, rounded once: the edges of windows are compared with these.
                seconds = (ticks - ticks[0]) * time_base.numerator / time_base.denominator
            except CannotSeek as error:
                reason = str(error)
        if reason is not None:
            seconds = _count(path, converter, rate)
            none = np.empty(0, np.int64)
            found = dict.fromkeys(("pts", "dts", "pictures", "keys", "first_of"), none)
    return SourceIndex(
        **common,
        **found,
        gop_lengths=_gop_lengths(len(seconds), gop),
        note=converter.note,
        streamed=reason,
        seconds=seconds - seconds[0],
    )


def _gop_lengths(num_frames: int, gop: int) -> tuple:
    lengths = (gop,) * (num_frames // gop)
    return (*lengths, num_frames % gop) if num_frames % gop else lengths


def _why_not_seekable(codec: av.codec.Codec) -> str | None:
    if codec.intra_only or codec.name in _SEEKABLE:
        return None
    return f"decoding of {codec.name} starts at its first picture"


def _read_packets(path: str, container, stream) -> _Packets:
    """Read all packets; ValueError if one is damaged, CannotSeek if one has no time."""
    codec = stream.codec_context.codec.name
    pts, dts, shown, is_key = array("q"), array("q"), bytearray(), bytearray()
    sizes = set()
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        if packet.is_corrupt or is_blank(stream, packet):
            problem = "its data are damaged" if packet.is_corrupt else "only zeros"
            raise ValueError(
                f"{path}: the file is cut off or damaged: {problem} after {len(pts)} pictures;"
                f" {SALVAGE}"
            )
        if packet.pts is None:
            raise CannotSeek("its pictures have no times")
        if packet.is_keyframe and codec in ("mpeg1video", "mpeg2video"):
            sizes.add(_mpeg_size(bytes(packet)))
            if len(sizes - {None}) > 1:  # the decoder loses a picture there
                raise CannotSeek("its picture size changes")
        pts.append(packet.pts)
        dts.append(packet.pts if packet.dts is None else packet.dts)
        shown.append(not packet.is_discard and _gives_picture(codec, packet))
        is_key.append(packet.is_keyframe)
    if not pts:
        raise ValueError(f"{path}: there is no picture in this file that can be decoded")
    times = (np.array(column, np.int64) for column in (pts, dts))
    return _Packets(*times, np.array(shown, bool), np.flatnonzero(np.array(is_key)))


def _mpeg_size(packet: bytes) -> bytes | None:
    """The picture size in the sequence header of MPEG-1 or 2, as its 24 bits."""
    place = packet.find(b"\0\0\1\xb3")
    return packet[place + 4 : place + 7] if place >= 0 else None


def _gives_picture(codec: str, packet: av.Packet) -> bool:
    """Whether a packet is shown; CannotSeek where it holds other than one picture."""
    if codec == "vp8":
        return bool(memoryview(packet)[0] & _SHOWN_BIT)
    if codec == "mpeg4":
        is_coded = packet.size >= _MIN_CODED_BYTES
        if not is_coded or bytes(packet).count(bytes((0, 0, 1, mpeg4.VOP))) != 1:
            raise CannotSeek("its packets hold several pictures or none")
    return True


def _first_times(path: str, converter: Converter) -> list:
    """The times of the first pictures that come out of the decoder, in the stream's time base."""
    times = []
    for frame in itertools.islice(decode_source(path), _CHECKED_PICTURES):
        converter.prepare(frame)
        if converter.deinterlace:
            raise CannotSeek("its pictures are interlaced")
        times.append(frame.pts)
    return times


def _arrange(packets: _Packets, first_times: list) -> dict:
    """The number of each packet's picture, and what can be decoded from each key."""
    # Pictures before the first that comes out have lost what they refer to.
    inside = np.flatnonzero(packets.shown & (packets.pts >= first_times[0]))
    times = packets.pts[inside]
    order = np.argsort(times, kind="stable")
    if times[order[: len(first_times)]].tolist() != first_times:
        raise CannotSeek("its pictures are shown at other times than its packets say")
    if np.any(np.diff(times[order]) == 0):
        raise CannotSeek("two of its pictures are shown at one time")
    ranks = np.empty(len(inside), np.int64)
    ranks[order] = np.arange(len(inside))
    if np.abs(ranks - np.arange(len(inside))).max() > _MOST_REORDERED:
        raise CannotSeek("its pictures do not lie in the order of their times")
    pictures = np.full(len(packets.pts), -1, np.int64)
    pictures[inside] = ranks
    before = np.maximum.accumulate(np.concatenate([[-1], pictures[:-1]])) + 1
    led = np.searchsorted(times[order], packets.pts[packets.keys])  # leading pictures are not
    first_of = np.maximum(before[packets.keys], led)
    return {
        "pts": packets.pts,
        "dts": packets.dts,
        "pictures": pictures,
        "keys": packets.keys,
        "first_of": first_of,
    }


def _count(path: str, converter: Converter, rate: Fraction | None) -> np.ndarray:
    """The seconds of the pictures of a file that has to be decoded from its start."""
    seconds = []
    for frame in decode_source(path):
        converter.prepare(frame)
        known = frame.pts is not None and frame.time_base
        seconds.append(float(frame.pts * frame.time_base) if known else len(seconds) / (rate or 25))
    return np.array(seconds, np.float64)
