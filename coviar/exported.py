"""The motion vectors that are in a video file, as FFmpeg's decoders export them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import PictureType

from coviar.compiled import jit
from coviar.container import REMEDY
from coviar.source import decode_source

# FFmpeg's AVMotionVector, without the flags that no decoder sets.
VECTOR = np.dtype(
    {
        "names": [
            *("source", "w", "h", "src_x", "src_y", "dst_x", "dst_y"),
            *("motion_scale", "motion_x", "motion_y"),
        ],
        "formats": ["i4", "u1", "u1", "i2", "i2", "i2", "i2", "u2", "i4", "i4"],
        "offsets": [0, 4, 5, 6, 8, 10, 12, 32, 24, 28],
        "itemsize": 40,
    }
)
CODECS = (
    *("h264", "mpeg4", "mpeg2video", "mpeg1video", "h263", "h261", "flv", "snow"),
    *("msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "rv10", "rv20"),
)
# No vector depends on a pixel, so the pixels may do without H.264's loop filter.
DECODER_OPTIONS = {"flags2": "+export_mvs", "skip_loop_filter": "all"}
# FFmpeg gives the last picture of these without its vectors, unless another picture follows.
_DELAYED = ("mpeg4", "mpeg2video", "mpeg1video")
# Of other codecs' B-pictures FFmpeg exports memory that it has never written.
_WITH_B_VECTORS = ("h264", "mpeg2video", "mpeg1video")
_NO_B_VECTORS = "its B-pictures are without vectors, as FFmpeg does not export those of"


class PictureVectors(NamedTuple):
    """The motion vectors of one picture.

    index: its number in the order of showing, from 0. time: seconds, None if the file does not say.
    type: "I", "P", "B" or "S". size: (width, height) in pixels. vectors: array (n,) of VECTOR. mv,
    mask: as of `dense_field`, or None.
    """

    index: int
    time: float | None
    type: str
    size: tuple
    vectors: np.ndarray
    mv: np.ndarray | None
    mask: np.ndarray | None


def read_vectors(
    path: str | os.PathLike,
    start: int = 0,
    stop: int | None = None,
    *,
    dense: bool = False,
) -> Iterator[PictureVectors]:
    """Yield the PictureVectors of the pictures start..stop-1 (default: of all).

    A vector says that the block of w x h pixels around (dst_x, dst_y) was predicted from the one
    around (src_x, src_y) of another picture. Both centres are in pixels of the stored picture; src
    is cut to whole ones, and src = dst + motion / motion_scale. source: -1 the past (list 0 of a
    B-picture), 1 the future (list 1); which picture of a list is not exported. Blocks are of 16 or
    8 pixels, H.264's smaller ones are joined; parts may lie outside the picture. Blocks that did
    not move are listed; intra blocks, and I-pictures, have no vectors. B-pictures have vectors in
    H.264, MPEG-1 and MPEG-2 only; a UserWarning says that those of another codec are without.

    dense: also the field per pixel. Pictures before `start` have to be decoded, too. The memory in
    use does not grow with the video. The decoder has one thread, because with several FFmpeg loses
    vectors of H.264.

    Raises ValueError for a codec that exports no vectors, a damaged file and interlaced pictures;
    IndexError, after the last picture, for a range that goes beyond it. Other errors as
    `open_video`.
    """
    if start < 0 or (stop is not None and stop <= start):
        raise ValueError(f"pictures {start} to {stop} (not included) are no range")
    path = os.fspath(path)
    count, has_warned = 0, False
    for codec, time_base, frame in _pictures(path):
        if count >= start:
            if frame.interlaced_frame:
                raise ValueError(
                    f"{path}: picture {count} is interlaced: its vectors are of fields, not of "
                    f"pictures; for the vectors of a deinterlaced copy {REMEDY}"
                )
            kind = PictureType(int(frame.pict_type)).name
            vectors = _vectors(frame)
            if kind == "B" and codec not in _WITH_B_VECTORS:
                vectors = vectors[:0]
                if not has_warned:
                    warnings.warn(f"{path}: {_NO_B_VECTORS} {codec}", stacklevel=2)
                has_warned = True
            time = (
                None
                if frame.pts is None
                else frame.pts * time_base.numerator / time_base.denominator
            )
            size = (frame.width, frame.height)
            field = dense_field(vectors, *size) if dense else (None, None)
            yield PictureVectors(count, time, kind, size, vectors, *field)
        count += 1
        if count == stop:
            return
    if stop is not None or count <= start:
        wanted = start if stop is None else stop - 1
        raise IndexError(f"{path}: picture {wanted} is not in 0..{count - 1}")


def _pictures(path: str) -> Iterator[tuple]:
    """(codec, time base of the stream, frame) of each picture."""
    facts, last = None, None

    def prepare(stream) -> bool:
        nonlocal facts
        codec = stream.codec_context.codec.name
        facts = codec, stream.time_base  # the last picture is given when the file is closed
        if codec not in CODECS:
            raise ValueError(
                f"{path}: FFmpeg exports no motion vectors of the codec {codec} (only of "
                f"{', '.join(CODECS)}); for the vectors of an MPEG-4 copy {REMEDY}"
            )
        stream.codec_context.options = DECODER_OPTIONS
        return codec in _DELAYED

    for frame in decode_source(path, prepare=prepare):
        if last is not None:
            yield *facts, last
        last = frame
    if facts[0] not in _DELAYED:
        yield *facts, last


def _vectors(frame: av.VideoFrame) -> np.ndarray:
    # frame.side_data would keep every frame's memory until Python's garbage collector runs.
    found = SideDataContainer(frame).get("MOTION_VECTORS")
    if found is None:
        return np.empty(0, VECTOR)
    return np.frombuffer(bytearray(found), VECTOR)  # a copy


def dense_field(vectors: np.ndarray, width: int, height: int) -> tuple:
    """(mv, mask) of a picture's vectors, an array (n,) of VECTOR.

    mv: float32 (height, width, 2), x first: by how many pixels, fractions included, the content of
    each pixel moved on its way from the reference, dst - src. mask: int8 (height, width): -1 the
    reference is in the past, 1 in the future, 0 the pixel has no vector (and mv is 0). Where a
    B-picture has both, the past one is taken.
    """
    mv = np.empty((height, width, 2), np.float32)
    mask = np.empty((height, width), np.int8)
    # A pixel's two numbers are written at once, as one of 64 bits.
    _paint(np.ascontiguousarray(vectors, VECTOR), mv.view(np.uint64)[..., 0], mask)
    return mv, mask


@jit
def _paint(vectors, mv, mask):
    """Fill the blocks, as far as they are inside the picture; the rest is 0."""
    height, width = mask.shape
    mv[:], mask[:] = 0, 0
    motion = np.empty(2, np.float32)
    both = motion.view(np.uint64)
    for source in (np.int8(1), np.int8(-1)):
        for vector in vectors:
            if vector.source * source <= 0:
                continue
            motion[0] = -vector.motion_x / vector.motion_scale
            motion[1] = -vector.motion_y / vector.motion_scale
            left, top = vector.dst_x - vector.w // 2, vector.dst_y - vector.h // 2
            right, bottom = min(left + vector.w, width), min(top + vector.h, height)
            left, top = max(left, 0), max(top, 0)
            for row in range(top, bottom):
                mv[row, left:right] = both[0]
                mask[row, left:right] = source
