"""The compiled inner loops of the loader. `motion.py` says the same things in readable numpy.

A map holds for each pixel where it comes from in the reference picture, packed as x | y << 16.
A packed picture is (h, w) uint32, b | g << 8 | r << 16.
Vectors are FFmpeg's AVMotionVector structs seen as rows of 20 int16 (40 bytes): column 2 holds the
width in its low and the height in its high byte, columns 3..6 are src_x, src_y, dst_x, dst_y.

The loops are shaped for LLVM's vectoriser, which makes them 3 to 10 times as fast: arrays flat with
constant strides, indices that cannot be negative, 32-bit numbers (numba widens integers to 64).
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True)
_f32, _i16, _i32, _u8, _u32, _u64 = (
    *(np.float32, np.int16, np.int32),
    *(np.uint8, np.uint32, np.uint64),
)


@_jit
def identity_map(out):
    """Fill a map (h, w) with each pixel's own place."""
    for y in range(out.shape[0]):
        row = out[y]
        for x in range(row.size):
            row[x] = x | y << 16


@_jit
def move_blocks(vectors, previous, out):
    """out = previous, with each moved block of `vectors` (n, 20) copied from its source.

    The part of a block whose destination or source is outside the picture stays as it was.
    """
    height, width = previous.shape
    source, target = previous.reshape(-1), out.reshape(-1)
    for i in range(source.size):
        target[i] = source[i]
    for i in range(vectors.shape[0]):
        half_w, half_h = (vectors[i, 2] & 0xFF) >> 1, (vectors[i, 2] >> 8 & 0xFF) >> 1
        src_x, src_y, dst_x, dst_y = vectors[i, 3], vectors[i, 4], vectors[i, 5], vectors[i, 6]
        if src_x == dst_x and src_y == dst_y:
            continue
        left = -min(half_w, dst_x, src_x)
        count = min(half_w, width - dst_x, width - src_x) - left
        top = -min(half_h, dst_y, src_y)
        bottom = min(half_h, height - dst_y, height - src_y)
        for y in range(top, bottom):
            to = _u64((dst_y + y) * width + dst_x + left)
            start = _u64((src_y + y) * width + src_x + left)
            if count == 16:  # a constant count needs no loop
                for x in range(_u64(16)):
                    target[to + x] = source[start + x]
            else:
                for x in range(_u64(max(count, 0))):
                    target[to + x] = source[start + x]


@_jit
def _colour_row(luma, blue, red, y, left, flip, tints, colours):
    """colours (3, w) uint8: b, g, r of the pixels from (left, y) on; tints (3, w + 2) is scratch.

    BT.601 as swscale computes it on x86, in 16-bit fixed point with the nearest chroma sample. The
    float32 products are exact, so floor() is its shift by 13.
    """
    width = colours.shape[1]
    blue_row, red_row = blue[y >> 1, left >> 1 :], red[y >> 1, left >> 1 :]
    tint_b, tint_g, tint_r = tints[0], tints[1], tints[2]
    for x in range((width + (left & 1) + 1) // 2):
        u, v = _f32(blue_row[x]) - _f32(128), _f32(red_row[x]) - _f32(128)
        b = np.floor(u * _f32(16525 / 8192))
        g = np.floor(u * _f32(-3209 / 8192)) + np.floor(v * _f32(-6660 / 8192))
        r = np.floor(v * _f32(13075 / 8192))
        tint_b[2 * x], tint_b[2 * x + 1] = b, b
        tint_g[2 * x], tint_g[2 * x + 1] = g, g
        tint_r[2 * x], tint_r[2 * x + 1] = r, r
    luma_row = luma[y, left:]
    for channel in range(3):
        tint, colour = tints[channel, left & 1 :], colours[channel]
        for x in range(width):
            light = np.floor((_f32(luma_row[x]) - _f32(16)) * _f32(9539 / 8192))
            colour[x] = _u8(_i32(min(max(light + tint[x], _f32(0)), _f32(255))))
        if flip:
            _mirror(colour)


@_jit
def _mirror(row):
    for x in range(row.size // 2):
        row[x], row[row.size - 1 - x] = row[row.size - 1 - x], row[x]


@_jit
def pack_picture(luma, blue, red, out):
    """Convert 4:2:0 planes to a packed picture (h, w) uint32."""
    height, width = out.shape
    tints, colours = np.empty((3, width + 2), np.float32), np.empty((3, width), np.uint8)
    for y in range(height):
        _colour_row(luma, blue, red, y, 0, False, tints, colours)
        row, b, g, r = out[y], colours[0], colours[1], colours[2]
        for x in range(width):
            row[x] = _u32(b[x]) | _u32(_u32(g[x]) << _u32(8)) | _u32(_u32(r[x]) << _u32(16))


@_jit
def convert_window(luma, blue, red, left, top, flip, rgb, out):
    """Convert the window at (left, top) to `out` (h, w, 3) uint8, BGR or RGB; `flip` mirrors it."""
    height, width = out.shape[0], out.shape[1]
    tints, colours = np.empty((3, width + 2), np.float32), np.empty((3, width), np.uint8)
    flat = out.reshape(-1)
    for y in range(height):
        _colour_row(luma, blue, red, top + y, left, flip, tints, colours)
        row = flat[y * width * 3 : (y + 1) * width * 3]
        first, second, third = colours[2 if rgb else 0], colours[1], colours[0 if rgb else 2]
        for x in range(width):
            row[3 * x] = first[x]
            row[3 * x + 1] = second[x]
            row[3 * x + 2] = third[x]


@_jit
def difference(places, reference, luma, blue, red, left, top, flip, encode, mv, residual):
    """Motion vectors and residual of the window (left, top) of size mv.shape, mirrored if `flip`.

    places: map; reference: packed picture; luma, blue, red: the planes of the picture itself.
    Written are mv (h, w, 2) and residual (h, w, 3), in the network's uint8 if `encode`, else int16.
    """
    height, width = mv.shape[0], mv.shape[1]
    stride = _u32(places.shape[1])
    packed, flat_mv, flat_residual = reference.reshape(-1), mv.reshape(-1), residual.reshape(-1)
    tints, colours = np.empty((3, width + 2), np.float32), np.empty((3, width), np.uint8)
    place, source = np.empty(width, np.uint32), np.empty(width, np.uint32)
    offset, low, high = (128, 0, 255) if encode else (0, -255, 255)
    for y in range(height):
        _colour_row(luma, blue, red, top + y, left, flip, tints, colours)
        window = places[top + y, left:]
        for x in range(width):
            place[x] = window[x]
        if flip:
            _mirror(place)
        for x in range(width):
            row, column = _u32(place[x] >> _u32(16)), _u32(place[x] & _u32(0xFFFF))
            source[x] = _u32(row * stride) + column
        for x in range(width):
            source[x] = packed[source[x]]
        out = flat_residual[y * width * 3 : (y + 1) * width * 3]
        b, g, r = colours[0], colours[1], colours[2]
        for x in range(width):
            value = source[x]
            other_b, other_g = value & _u32(255), (value >> _u32(8)) & _u32(255)
            other_r = (value >> _u32(16)) & _u32(255)
            out[3 * x] = min(max(_i16(_i16(b[x]) - _i16(other_b) + offset), low), high)
            out[3 * x + 1] = min(max(_i16(_i16(g[x]) - _i16(other_g) + offset), low), high)
            out[3 * x + 2] = min(max(_i16(_i16(r[x]) - _i16(other_r) + offset), low), high)
        _vector_row(
            place, left, top + y, flip, encode, flat_mv[y * width * 2 : (y + 1) * width * 2]
        )


@_jit
def _vector_row(place, left, y, flip, encode, out):
    start = _i32(left + place.size - 1 if flip else left)
    step = _i32(-1 if flip else 1)
    for x in range(place.size):
        here = _i32(start + _i32(step * _i32(x)))
        mv_x = _i32(step * _i32(here - _i32(place[x] & _u32(0xFFFF))))
        mv_y = _i32(_i32(y) - _i32(place[x] >> _u32(16)))
        if encode:  # 127.5 / 20 is exact in binary; the conversion to int truncates toward zero
            scaled_x = min(max(_f32(mv_x) * _f32(6.375), _f32(-128)), _f32(127))
            scaled_y = min(max(_f32(mv_y) * _f32(6.375), _f32(-128)), _f32(127))
            out[2 * x] = _u8(_i32(scaled_x) + _i32(128))
            out[2 * x + 1] = _u8(_i32(scaled_y) + _i32(128))
        else:
            out[2 * x] = mv_x
            out[2 * x + 1] = mv_y
