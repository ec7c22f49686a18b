"""The compiled inner loops of the loader. `motion.py` says the same things in readable numpy.

A map holds for each pixel where it comes from in the reference picture, packed as x | y << 16.
Vectors are FFmpeg's AVMotionVector structs seen as rows of 20 int16 (40 bytes): column 2 holds the
width in its low and the height in its high byte, columns 3..6 are src_x, src_y, dst_x, dst_y.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True, boundscheck=False)


@_jit
def identity_map(out):
    """Fill a map (h, w) uint32 with each pixel's own place."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = x | y << 16


@_jit
def move_blocks(vectors, previous, out):
    """out = previous, with each moved block of `vectors` (n, 20) copied from its source.

    The part of a block whose destination or source is outside the picture stays as it was.
    """
    height, width = previous.shape
    out[:] = previous
    for i in range(vectors.shape[0]):
        size = vectors[i, 2]
        half_w, half_h = (size & 0xFF) >> 1, (size >> 8 & 0xFF) >> 1
        src_x, src_y, dst_x, dst_y = vectors[i, 3], vectors[i, 4], vectors[i, 5], vectors[i, 6]
        if src_x == dst_x and src_y == dst_y:
            continue
        left = -min(half_w, dst_x, src_x)
        right = min(half_w, width - dst_x, width - src_x)
        top = -min(half_h, dst_y, src_y)
        bottom = min(half_h, height - dst_y, height - src_y)
        for dy in range(top, bottom):
            for dx in range(left, right):
                out[dst_y + dy, dst_x + dx] = previous[src_y + dy, src_x + dx]


@_jit
def yuv_to_bgr(luma, blue, red, left, top, flip, swap, out):
    """Convert the window of `out` (h, w, 3) uint8 at (left, top) from 4:2:0 planes; `swap`: to RGB.

    BT.601 in 16-bit fixed point with the nearest chroma sample: byte for byte what swscale does on
    x86, on any machine.
    """
    first, last = (2, 0) if swap else (0, 2)
    for row in range(out.shape[0]):
        y = row + top
        for column in range(out.shape[1]):
            x = left + (out.shape[1] - 1 - column if flip else column)
            light = ((np.int32(luma[y, x]) * 8 - 128) * 9539) >> 16
            u = np.int32(blue[y >> 1, x >> 1]) * 8 - 1024
            v = np.int32(red[y >> 1, x >> 1]) * 8 - 1024
            b = light + ((u * 16525) >> 16)
            g = light + ((u * -3209) >> 16) + ((v * -6660) >> 16)
            r = light + ((v * 13075) >> 16)
            out[row, column, first] = min(max(b, 0), 255)
            out[row, column, 1] = min(max(g, 0), 255)
            out[row, column, last] = min(max(r, 0), 255)


@_jit
def difference(places, reference, current, left, top, flip, mv, residual):
    """Motion vectors and residual of the window (left, top) of size mv.shape, mirrored if `flip`.

    places: map (H, W); reference: BGR (H, W, 3) uint8; current: BGR (h, w, 3) uint8, the window
    only, mirrored already; mv (h, w, 2) and residual (h, w, 3) int16 are written.
    """
    for row in range(mv.shape[0]):
        for column in range(mv.shape[1]):
            here = left + (mv.shape[1] - 1 - column if flip else column)
            place = places[row + top, here]
            x = np.int32(place & 0xFFFF)
            y = np.int32(place >> 16)
            mv[row, column, 0] = x - here if flip else here - x
            mv[row, column, 1] = row + top - y
            for c in range(3):
                residual[row, column, c] = np.int16(current[row, column, c]) - reference[y, x, c]


@_jit
def encoded_difference(places, reference, current, left, top, flip, mv, residual):
    """`difference` in the network's uint8 encoding, written in the same pass (see clip.py)."""
    for row in range(mv.shape[0]):
        for column in range(mv.shape[1]):
            here = left + (mv.shape[1] - 1 - column if flip else column)
            place = places[row + top, here]
            x = np.int32(place & 0xFFFF)
            y = np.int32(place >> 16)
            mv[row, column, 0] = _encode_mv(x - here if flip else here - x)
            mv[row, column, 1] = _encode_mv(row + top - y)
            for c in range(3):
                value = np.int32(current[row, column, c]) - reference[y, x, c] + 128
                residual[row, column, c] = min(max(value, 0), 255)


@numba.njit(inline="always")
def _encode_mv(value):
    scaled = int(value * 6.375) + 128  # 127.5 / 20, exact in binary; int() truncates toward zero
    return min(max(scaled, 0), 255)
