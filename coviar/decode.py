"""Decoding the pictures of chosen GOPs, with the motion vectors FFmpeg exports."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

if TYPE_CHECKING:
    from coviar.index import VideoIndex

VECTOR_BYTES = 40  # FFmpeg's AVMotionVector


class CorruptVideoWarning(UserWarning):
    """A damaged stream: the decoder concealed what it could; names the file and the GOP."""


def decode(index: VideoIndex, last_of: dict, gops: Iterator[int] | None = None) -> Iterator[tuple]:
    """Decode GOPs of a video, each from its I-picture up to a last position.

    last_of: {gop: last position}. gops: its keys in any order, each taken when the one before is
    done; None: the file's order. Yields (gop, position, frame). Damage is concealed by the decoder
    and reported by a CorruptVideoWarning per GOP; a picture nothing can be made of is left out.
    What comes of a GOP does not depend on which others are decoded. ValueError if the pictures are
    of another size than the index says.
    """
    context = _open_decoder(index)
    starts = index.gop_starts
    with _open_file(index) as file:
        for gop in sorted(last_of) if gops is None else gops:
            first, count = starts[gop], last_of[gop] + 1
            intact = 0
            context.flush_buffers()  # a damaged I-picture must not show what was decoded before
            for number in range(first, first + count):
                for frame in _decode_packet(context, _read_packet(file, index, number)):
                    _check_size(frame, index, gop)
                    intact += not frame.is_corrupt
                    yield gop, number - first, frame
            if intact < count:
                warnings.warn(
                    f"{index.path}: GOP {gop} is damaged ({count - intact} of {count} pictures)",
                    CorruptVideoWarning,
                    stacklevel=3,
                )


def decode_alone(index: VideoIndex, number: int) -> av.VideoFrame | None:
    """One picture without those it refers to: grey, but its bits are read to the end."""
    # Old torchvision turns PyAV's log on; that there is no picture to refer to is no news.
    with _open_file(index) as file, av.logging.Capture():
        frames = _decode_packet(_open_decoder(index), _read_packet(file, index, number))
    return frames[0] if frames else None


def _open_file(index: VideoIndex) -> io.RawIOBase | io.BytesIO:
    if index.content is not None:
        return io.BytesIO(index.content)
    return open(index.path, "rb", buffering=0)


def _open_decoder(index: VideoIndex) -> av.CodecContext:
    """A decoder in its first state: opening one costs less than decoding a hundredth of a picture,
    and what an earlier, perhaps damaged video left behind cannot leak into this one."""
    context = av.CodecContext.create("mpeg4", "r")
    context.options = {
        "flags": "+low_delay",  # without B-frames, every picture comes out at once
        "flags2": "+export_mvs",
        # A damaged header must not ask for gigabytes. FFmpeg pads and aligns, hence the room.
        "max_pixels": str(4 * (index.width + 256) * (index.height + 256)),
    }
    context.thread_count = 1
    context.extradata = index.header
    if index.tag:
        context.codec_tag = index.tag
    return context


def _read_packet(file, index: VideoIndex, number: int) -> av.Packet:
    """A packet that owns its memory: FFmpeg reads a little past the end, which must be zeros."""
    packet = av.Packet(int(index.sizes[number]))
    file.seek(int(index.offsets[number]))
    if file.readinto(packet) != packet.size:
        raise ValueError(f"{index.path}: the file is shorter than when it was indexed")
    return packet


def _decode_packet(context: av.CodecContext, packet: av.Packet) -> list:
    try:
        return context.decode(packet)
    except av.error.FFmpegError:
        return []  # counted as damaged by the caller


def _check_size(frame: av.VideoFrame, index: VideoIndex, gop: int) -> None:
    found = (frame.width, frame.height, frame.format.name)
    if found != (index.width, index.height, "yuv420p"):
        raise ValueError(
            f"{index.path}: GOP {gop} has pictures of {found}, "
            f"expected {(index.width, index.height, 'yuv420p')}"
        )


def planes(frame: av.VideoFrame) -> list:
    """Y, U and V of a frame as uint8 views of the decoder's memory, rows padded on the right."""
    return [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size) for plane in frame.planes]


def append_vectors(frame: av.VideoFrame, to: bytearray) -> None:
    """Append the motion vectors of a frame, VECTOR_BYTES each; see kernels.py for what they say."""
    # frame.side_data would make frame and side data refer to each other, and keep every frame's
    # memory until Python's garbage collector runs.
    found = SideDataContainer(frame).get("MOTION_VECTORS")
    if found is not None:
        to += found
