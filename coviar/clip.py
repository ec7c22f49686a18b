"""Loading I-frames, motion vectors and residuals of chosen pictures in one pass over a video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import av
import numpy as np

from coviar import kernels
from coviar.decode import VECTOR_BYTES, append_vectors, decode, planes
from coviar.index import VideoIndex, read_index
from coviar.source_index import SourceIndex
from coviar.threads import in_threads, num_threads
from coviar.windows import encode_windows

FRAME, MV, RESIDUAL = range(3)  # `representation` of `load`, CoViAR's numbers
_BURST = 16  # pictures whose motion is followed at once: decoder and loops share a cache


class Clip(NamedTuple):
    """Stacked arrays of n pictures: iframe (n, h, w, 3), mv (n, h, w, 2), residual (n, h, w, 3)."""

    iframe: np.ndarray
    mv: np.ndarray
    residual: np.ndarray


def load_clip(
    path: str | os.PathLike,
    positions: Sequence,
    *,
    accumulate: bool = True,
    encode: bool = False,
    crop: tuple | None = None,
    flip: bool = False,
    index: VideoIndex | SourceIndex | None = None,
    out: Clip | None = None,
    threads: int | None = None,
) -> Clip:
    """Load the I-frame, motion vectors and residual of every (gop, position) of a clip.

    positions: pairs in any order. Position 0 is the I-frame itself; its motion vectors and residual
    are zero. Row j of the result belongs to positions[j]; iframe[j] is the I-frame of its GOP.
    accumulate: relative to the GOP's I-frame; else to the picture before.
    encode: False: iframe uint8 BGR, mv int16 in pixels (x, y), residual int16 BGR.
        True: the network's uint8: iframe RGB, mv * 127.5 / 20 (truncated) + 128, residual + 128
        (BGR), clipped to 0..255.
    crop: (left, top, width, height) in pixels: only this window is computed; default all.
    flip: mirror the window left to right, which negates the motion vectors' x (before encoding).
    index: the video's VideoIndex, saves scanning the file; with a SourceIndex, a file of any codec
    gives the arrays of its re-encoded copy, of which only the GOPs asked for are made. threads: as
    many GOPs are worked on at once; None: one for each processor, and one in a worker process of
    `multiprocessing` (a DataLoader's). out: a Clip to write into and return.

    Raises FileNotFoundError, IndexError for a position the video does not have, and ValueError for
    files that cannot be read exactly (see read_index), pictures too damaged to decode, and a crop
    or `out` that does not fit.
    """
    index = read_index(path) if index is None else index
    crop = _check_crop(crop, index)
    rows = _rows_by_picture(positions, index)
    out = _check_out(out, len(positions), crop, encode)
    last_of = {}
    for gop, position in rows:
        last_of[gop] = max(position, last_of.get(gop, 0))
    if isinstance(index, SourceIndex):
        return _load_windows(index, last_of, rows, threads, (accumulate, encode, crop, flip), out)
    count = num_threads(threads, len(last_of))
    # Threads take GOPs one by one, the longest first, so that all have work to the end.
    gops = iter(sorted(last_of, key=last_of.get, reverse=True) if count > 1 else sorted(last_of))

    def load_gops() -> set:
        writer = _Writer(index, crop, flip, accumulate, encode, out)
        for gop, position, frame in decode(index, last_of, gops):
            writer.follow(gop, position, frame, rows)
        return writer.written

    missing = rows.keys() - set().union(*in_threads(load_gops, count))
    if missing:
        gop, position = min(missing)
        raise ValueError(f"{index.path}: GOP {gop} position {position} is damaged beyond decoding")
    return out


def _load_windows(index, last_of, rows, threads, options, out) -> Clip:
    accumulate, encode, crop, flip = options
    for gop, window in encode_windows(index, last_of, threads):
        positions = [position for other, position in rows if other == gop]
        found = load_clip(
            index.path,
            [(0, position) for position in positions],
            accumulate=accumulate,
            encode=encode,
            crop=crop,
            flip=flip,
            index=window,
        )
        for row, position in enumerate(positions):
            for result, array in zip(out, found):
                result[rows[gop, position]] = array[row]
    return out


class _Writer:
    """Follows the pictures of GOPs in decoding order and writes the wanted ones into a Clip."""

    def __init__(self, index, crop, flip, accumulate, encode, out):
        self.left, self.top, _, _ = crop
        self.flip, self.accumulate, self.encode, self.out = flip, accumulate, encode, out
        self.written = set()
        self.gop = None
        self.previous = None
        whole = (index.height, index.width)
        self.reference = np.empty(whole, np.uint32)
        self.identity, *self.spare = np.empty((3, *whole), np.uint32)  # spare[0] is written next
        kernels.identity_map(self.identity)
        self.places = self.identity
        self.vectors, self.ends = bytearray(), []

    def follow(self, gop: int, position: int, frame: av.VideoFrame, rows: dict) -> None:
        wanted = rows.get((gop, position), ())
        if position == 0:
            self._begin(gop, frame, [row for key in rows if key[0] == gop for row in rows[key]])
        elif gop != self.gop:
            return  # its I-frame is lost, so nothing can refer to it
        elif self.accumulate or wanted:
            append_vectors(frame, self.vectors)
            self.ends.append(len(self.vectors) // VECTOR_BYTES)
        if self.ends and (wanted or len(self.ends) == _BURST):
            self._catch_up()
        if wanted:
            self._write(position, frame, wanted)
            self.written.add((gop, position))
        self.previous = None if self.accumulate else frame

    def _begin(self, gop: int, frame: av.VideoFrame, rows: list) -> None:
        self.gop = gop
        self.places = self.identity
        self.vectors, self.ends = bytearray(), []
        first = self.out.iframe[rows[0]]
        kernels.pack_picture(
            *(*planes(frame), self.reference),
            *(self.left, self.top, self.flip, self.encode),
            first,
        )
        for row in rows[1:]:
            self.out.iframe[row] = first

    def _catch_up(self) -> None:
        before = self.places if self.accumulate else self.identity
        moved = np.frombuffer(self.vectors, np.int16).reshape(-1, VECTOR_BYTES // 2)
        kernels.move_pictures(moved, np.array(self.ends), before, *self.spare)
        if len(self.ends) % 2:
            self.spare.reverse()
        self.places = self.spare[1]
        self.vectors, self.ends = bytearray(), []

    def _write(self, position: int, frame: av.VideoFrame, rows: list) -> None:
        mv, residual = self.out.mv[rows[0]], self.out.residual[rows[0]]
        if position == 0:
            mv[:] = residual[:] = 128 if self.encode else 0
        else:
            if not self.accumulate:
                nothing = self.out.iframe[rows[0], :0]
                kernels.pack_picture(
                    *planes(self.previous), self.reference, 0, 0, False, False, nothing
                )
            kernels.difference(
                *(self.places, self.reference, *planes(frame)),
                *(self.left, self.top, self.flip, self.encode),
                *(mv, residual),
            )
        for row in rows[1:]:
            self.out.mv[row], self.out.residual[row] = mv, residual


def _check_crop(crop: tuple | None, index: VideoIndex | SourceIndex) -> tuple:
    if crop is None:
        return 0, 0, index.width, index.height
    left, top, width, height = crop
    inside = left + width <= index.width and top + height <= index.height
    if not inside or min(left, top) < 0 or min(width, height) < 1:
        raise ValueError(
            f"{index.path}: crop (left, top, width, height) = {tuple(crop)} is not inside the "
            f"{index.width}x{index.height} picture"
        )
    return left, top, width, height


def _rows_by_picture(positions: Sequence, index: VideoIndex | SourceIndex) -> dict:
    """{(gop, position): rows of the result}; IndexError for a picture the video does not have."""
    if len(positions) == 0:
        raise ValueError("positions is empty: ask for at least one (gop, position)")
    rows = {}
    for row, (gop, position) in enumerate(positions):
        if not 0 <= gop < index.num_gops:
            raise IndexError(f"{index.path}: GOP {gop} is not in 0..{index.num_gops - 1}")
        if not 0 <= position < index.gop_lengths[gop]:
            raise IndexError(
                f"{index.path}: position {position} is not in 0..{index.gop_lengths[gop] - 1}, "
                f"the pictures of GOP {gop}"
            )
        rows.setdefault((int(gop), int(position)), []).append(row)
    return rows


def _check_out(out: Clip | None, count: int, crop: tuple, encode: bool) -> Clip:
    _, _, width, height = crop
    kind = np.uint8 if encode else np.int16
    wanted = [
        ((count, height, width, 3), np.dtype(np.uint8)),
        ((count, height, width, 2), np.dtype(kind)),
        ((count, height, width, 3), np.dtype(kind)),
    ]
    if out is None:
        return Clip(*(np.empty(shape, dtype) for shape, dtype in wanted))
    if not all(isinstance(array, np.ndarray) for array in out):
        raise ValueError(f"out must be three arrays, not {[type(array).__name__ for array in out]}")
    found = [(array.shape, array.dtype) for array in out]
    if found != wanted or not all(array.flags.carray for array in out):
        raise ValueError(f"out must be writable C-contiguous arrays of {wanted}, not {found}")
    return out


def load(
    path: str | os.PathLike,
    gop_index: int,
    frame_index: int,
    representation: int,
    accumulate: bool | int,
) -> np.ndarray:
    """CoViAR's `load`: one picture of a video.

    representation: 0: the frame, uint8 BGR (h, w, 3); 1: motion vectors in pixels, int32 (h, w, 2),
    x first; 2: the residual, int32 BGR (h, w, 3). accumulate: relative to the I-frame (else to
    the frame before). Raises FileNotFoundError, IndexError and ValueError as `load_clip` does.
    """
    if representation not in (FRAME, MV, RESIDUAL):
        raise ValueError(
            f"representation is {representation!r}, expected 0 (frame), 1 (motion vectors) or "
            "2 (residual)"
        )
    index = read_index(path)
    if representation != FRAME:
        clip = load_clip(path, [(gop_index, frame_index)], accumulate=bool(accumulate), index=index)
        return clip[representation][0].astype(np.int32)
    _rows_by_picture([(gop_index, frame_index)], index)
    found = None
    for _, position, frame in decode(index, {gop_index: frame_index}):
        found = to_bgr(frame) if position == frame_index else None
    if found is not None:
        return found
    raise ValueError(
        f"{index.path}: GOP {gop_index} position {frame_index} is damaged beyond decoding"
    )


def to_bgr(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame as uint8 BGR (h, w, 3)."""
    packed = np.empty((frame.height, frame.width), np.uint32)
    bgr = np.empty((frame.height, frame.width, 3), np.uint8)
    kernels.pack_picture(*planes(frame), packed, 0, 0, False, False, bgr)
    return bgr


def get_num_frames(path: str | os.PathLike) -> int:
    """How many pictures the video holds, the last one included. Errors as `read_index`."""
    return read_index(path).num_frames


def get_num_gops(path: str | os.PathLike) -> int:
    """How many GOPs (I-pictures) the video holds. Errors as `read_index`."""
    return read_index(path).num_gops
