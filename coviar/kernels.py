"""The compiled inner loops of the loader. `motion.py` says the same things in readable numpy.

A map holds for each pixel where it comes from in the reference picture, packed as x | y << 16.
A packed picture is (h, w) uint32, b | g << 8 | r << 16. Vectors are FFmpeg's AVMotionVector structs
seen as rows of 20 int16 (40 bytes): column 2 holds the width in its low and the height in its high
byte, columns 3..6 are src_x, src_y, dst_x, dst_y.

The loops are shaped for LLVM's vectoriser, which makes them 3 to 10 times as fast: rows flat with
constant strides, unsigned indices (others may wrap around), and every intermediate result cut to 32
bits (numba widens integers to 64).
"""

from __future__ import annotations

import numpy as np

from coviar.compiled import jit

_f32, _i32, _u8, _u32, _u64 = np.float32, np.int32, np.uint8, np.uint32, np.uint64


@jit
def identity_map(out):
    """Fill a map (h, w) with each pixel's own place."""
    for y in range(out.shape[0]):
        row = out[y]
        for x in range(row.size):
            row[x] = x | y << 16


@jit
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


@jit
def pack_window(luma, blue, red, left, top, out):
    """Convert the window at (left, top) of 4:2:0 planes to the packed picture `out`.

    BT.601 as swscale computes it on x86, in 16-bit fixed point with the nearest chroma sample. The
    float32 products are exact, so that floor() is its shift by 13.
    """
    height, width = out.shape
    first, odd = _u64(left >> 1), _u64(left & 1)
    count = (width + (left & 1) + 1) // 2
    tint_b, tint_g, tint_r = (
        np.empty(2 * count, np.float32),
        np.empty(2 * count, np.float32),
        np.empty(2 * count, np.float32),
    )
    for y in range(height):
        if y == 0 or (top + y) % 2 == 0:
            blue_row, red_row = blue[(top + y) >> 1], red[(top + y) >> 1]
            for x in range(_u64(count)):
                u, v = _f32(blue_row[first + x]) - _f32(128), _f32(red_row[first + x]) - _f32(128)
                b = np.floor(u * _f32(16525 / 8192))
                g = np.floor(u * _f32(-3209 / 8192)) + np.floor(v * _f32(-6660 / 8192))
                r = np.floor(v * _f32(13075 / 8192))
                tint_b[2 * x], tint_b[2 * x + 1] = b, b
                tint_g[2 * x], tint_g[2 * x + 1] = g, g
                tint_r[2 * x], tint_r[2 * x + 1] = r, r
        luma_row, row = luma[top + y], out[y]
        for x in range(_u64(width)):
            light = np.floor((_f32(luma_row[_u64(left) + x]) - _f32(16)) * _f32(9539 / 8192))
            b = min(max(light + tint_b[odd + x], _f32(0)), _f32(255))
            g = min(max(light + tint_g[odd + x], _f32(0)), _f32(255))
            r = min(max(light + tint_r[odd + x], _f32(0)), _f32(255))
            row[x] = (
                _u32(_i32(b)) | _u32(_u32(_i32(g)) << _u32(8)) | _u32(_u32(_i32(r)) << _u32(16))
            )


@jit
def _copy_row(row, left, flip, out):
    """out = row[left : left + out.size], mirrored if `flip`."""
    start, end = _u64(left), _u64(left + out.size - 1)
    if flip:
        for x in range(_u64(out.size)):
            out[x] = row[end - x]
    else:
        for x in range(_u64(out.size)):
            out[x] = row[start + x]


@jit
def unpack_window(packed, left, top, flip, rgb, out):
    """Write the window (left, top) of a packed picture to `out` (h, w, 3) uint8, BGR or RGB."""
    height, width = out.shape[0], out.shape[1]
    flat, row = out.reshape(-1), np.empty(width, np.uint32)
    first, third = (_u32(16), _u32(0)) if rgb else (_u32(0), _u32(16))
    for y in range(height):
        _copy_row(packed[top + y], left, flip, row)
        out_row = flat[y * width * 3 : (y + 1) * width * 3]
        for x in range(width):
            out_row[3 * x] = row[x] >> first
            out_row[3 * x + 1] = row[x] >> _u32(8)
            out_row[3 * x + 2] = row[x] >> third


@jit
def difference(places, reference, window, left, top, flip, encode, mv, residual):
    """Motion vectors and residual of a window of a picture, mirrored if `flip`.

    places: map, reference: packed, both of the whole picture; window: packed, the part of the
    picture itself at (left, top). Written are mv (h, w, 2) and residual (h, w, 3), in the network's
    uint8 if `encode`, else int16.
    """
    height, width = window.shape
    stride = _u32(places.shape[1])
    flat, flat_mv, flat_residual = reference.reshape(-1), mv.reshape(-1), residual.reshape(-1)
    place, pixel = np.empty(width, np.uint32), np.empty(width, np.uint32)
    mv_x, mv_y = np.empty(width, np.int32), np.empty(width, np.int32)
    start, step = (_i32(left + width - 1), _i32(-1)) if flip else (_i32(left), _i32(1))
    for y in range(height):
        _copy_row(places[top + y], left, flip, place)
        _copy_row(window[y], 0, flip, pixel)
        for x in range(width):
            source_x, source_y = _u32(place[x] & _u32(0xFFFF)), _u32(place[x] >> _u32(16))
            here = _i32(start + _i32(step * _i32(x)))
            mv_x[x] = _i32(step * _i32(here - _i32(source_x)))
            mv_y[x] = _i32(top + y) - _i32(source_y)
            place[x] = _u32(source_y * stride) + source_x
        for x in range(width):
            place[x] = flat[place[x]]
        _subtract(pixel, place, encode, flat_residual[y * width * 3 : (y + 1) * width * 3])
        _put_vectors(mv_x, mv_y, encode, flat_mv[y * width * 2 : (y + 1) * width * 2])


@jit
def _subtract(pixels, others, encode, out):
    offset, low, high = (
        (_i32(128), _i32(0), _i32(255)) if encode else (_i32(0), _i32(-255), _i32(255))
    )
    for x in range(pixels.size):
        a, b = pixels[x], others[x]
        first = _i32(a & _u32(255)) - _i32(b & _u32(255))
        second = _i32((a >> _u32(8)) & _u32(255)) - _i32((b >> _u32(8)) & _u32(255))
        third = _i32(a >> _u32(16)) - _i32(b >> _u32(16))
        out[3 * x] = min(max(_i32(_i32(first) + offset), low), high)
        out[3 * x + 1] = min(max(_i32(_i32(second) + offset), low), high)
        out[3 * x + 2] = min(max(_i32(_i32(third) + offset), low), high)


@jit
def _put_vectors(mv_x, mv_y, encode, out):
    if encode:  # 127.5 / 20 is exact in binary; the conversion to int truncates toward zero
        for x in range(mv_x.size):
            scaled_x = min(max(_f32(mv_x[x]) * _f32(6.375), _f32(-128)), _f32(127))
            scaled_y = min(max(_f32(mv_y[x]) * _f32(6.375), _f32(-128)), _f32(127))
            out[2 * x] = _u8(_i32(scaled_x) + _i32(128))
            out[2 * x + 1] = _u8(_i32(scaled_y) + _i32(128))
    else:
        for x in range(mv_x.size):
            out[2 * x], out[2 * x + 1] = mv_x[x], mv_y[x]
