"""The compiled inner loops of the loader. `motion.py` says the same things in readable numpy.

A map holds for each pixel where it comes from in the reference picture, packed as x | y << 16.
A packed picture is (h, w) uint32, b | g << 8 | r << 16. Vectors are FFmpeg's AVMotionVector structs
seen as rows of 20 int16 (40 bytes): column 2 holds the width in its low and the height in its high
byte, columns 3..6 are src_x, src_y, dst_x, dst_y.

The loops are shaped for LLVM's vectoriser, which makes them 3 to 10 times as fast: rows flat with
constant strides, unsigned indices (others may wrap around), and every intermediate result cut to 16
or 32 bits (numba widens integers to 64).
"""

from __future__ import annotations

import numpy as np

from coviar.compiled import jit

_i16, _i32, _u8, _u32, _u64 = np.int16, np.int32, np.uint8, np.uint32, np.uint64


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
def move_pictures(vectors, ends, before, first, second):
    """Follow the motion of pictures, one after another, from the map `before`.

    vectors: (n, 20), of all pictures; those of picture i end before row ends[i]. Its map is written
    to `first` for an even i, to `second` for an odd one; `before` may be `second`.
    """
    start = 0
    for i in range(ends.size):
        if i == 0:
            move_blocks(vectors[: ends[0]], before, first)
        elif i % 2 == 0:
            move_blocks(vectors[start : ends[i]], second, first)
        else:
            move_blocks(vectors[start : ends[i]], first, second)
        start = ends[i]


@jit
def pack_picture(luma, blue, red, packed, left, top, flip, rgb, out):
    """Convert 4:2:0 planes to the packed picture `packed`, and its window at (left, top) to `out`.

    out: (h, w, 3) uint8, BGR or RGB, mirrored if `flip`; of height 0: only `packed` is written.
    """
    height, width = packed.shape
    rows, columns = out.shape[0], out.shape[1]
    tint_b, tint_g, tint_r = _rows((width + 1) & ~1, _i16(0))
    b, g, r = _rows(width, _u8(0))
    flat, area = out.reshape(-1), slice(left, left + columns)
    for y in range(height):
        if y % 2 == 0:
            _tint_row(blue[y >> 1], red[y >> 1], 0, tint_b, tint_g, tint_r)
        _colour_row(luma[y], 0, tint_b, tint_g, tint_r, b, g, r)
        row = packed[y]
        for x in range(_u64(width)):
            row[x] = _u32(b[x]) | _u32(_u32(g[x]) << _u32(8)) | _u32(_u32(r[x]) << _u32(16))
        if top <= y < top + rows:
            start = (y - top) * columns * 3
            out_row = flat[start : start + columns * 3]
            if rgb:
                _interleave(r[area], g[area], b[area], flip, out_row)
            else:
                _interleave(b[area], g[area], r[area], flip, out_row)


@jit
def _rows(width, zero):
    return np.full(width, zero), np.full(width, zero), np.full(width, zero)


@jit
def _tint_row(blue, red, left, tint_b, tint_g, tint_r):
    """What the chroma adds to B, G and R of the pixels from x = left on, or left - 1 if it is odd.

    BT.601 as swscale computes it on x86, in 16-bit fixed point with the nearest chroma sample.
    """
    first = _u64(left >> 1)
    for x in range(_u64(tint_b.size >> 1)):
        u = _i16(_i16(_i16(blue[first + x]) << _i16(3)) - _i16(1024))
        v = _i16(_i16(_i16(red[first + x]) << _i16(3)) - _i16(1024))
        b, r = _scale(u, _i16(16525)), _scale(v, _i16(13075))
        g = _i16(_scale(u, _i16(-3209)) + _scale(v, _i16(-6660)))
        tint_b[2 * x], tint_b[2 * x + 1] = b, b
        tint_g[2 * x], tint_g[2 * x + 1] = g, g
        tint_r[2 * x], tint_r[2 * x + 1] = r, r


@jit
def _colour_row(luma, left, tint_b, tint_g, tint_r, b, g, r):
    """B, G and R of the pixels from x = left on."""
    start, odd = _u64(left), _u64(left & 1)
    for x in range(_u64(b.size)):
        light = _scale(_i16(_i16(_i16(luma[start + x]) << _i16(3)) - _i16(128)), _i16(9539))
        b[x] = min(max(_i16(light + tint_b[odd + x]), _i16(0)), _i16(255))
        g[x] = min(max(_i16(light + tint_g[odd + x]), _i16(0)), _i16(255))
        r[x] = min(max(_i16(light + tint_r[odd + x]), _i16(0)), _i16(255))


@jit
def _scale(value, factor):
    """The upper half of a product of two int16."""
    return _i16(_i32(_i32(value) * _i32(factor)) >> _i32(16))


@jit
def _mirror(row, out):
    last = _u64(out.size - 1)
    for x in range(_u64(out.size)):
        out[x] = row[last - x]


@jit
def difference(places, reference, luma, blue, red, left, top, flip, encode, mv, residual):
    """Motion vectors and residual of a window of a picture, mirrored if `flip`.

    places: map, reference: packed, luma, blue, red: the picture's planes, all of the whole picture.
    Written are mv (h, w, 2) and residual (h, w, 3) of the window at (left, top), in the network's
    uint8 if `encode`, else int16.
    """
    height, width = mv.shape[0], mv.shape[1]
    flat, flat_mv, flat_residual = reference.reshape(-1), mv.reshape(-1), residual.reshape(-1)
    tint_b, tint_g, tint_r = _rows((width + (left & 1) + 1) & ~1, _i16(0))
    b, g, r = _rows(width, _u8(0))
    change_b, change_g, change_r = _rows(width, _i16(0))
    changes, sign = np.empty(3 * width, np.int16), np.ones(2 * width, np.int16)
    here, mirrored, row = _rows(width, _u32(0))
    first, step = _u32(left), _u32(1)
    if flip:
        first, step = _u32(left + width - 1), _u32(-1)
        sign[::2] = -1
    for x in range(_u64(width)):
        here[x] = _u32(first + _u32(step * _u32(x))) | _u32(_u32(top) << _u32(16))
    for y in range(height):
        if y == 0 or (top + y) % 2 == 0:
            _tint_row(blue[(top + y) >> 1], red[(top + y) >> 1], left, tint_b, tint_g, tint_r)
        _colour_row(luma[top + y], left, tint_b, tint_g, tint_r, b, g, r)
        place = places[top + y, left : left + width]
        if flip:
            _mirror(place, mirrored)
            place = mirrored
        mv_row = flat_mv[y * width * 2 : (y + 1) * width * 2]
        _put_vectors(here.view(_i16), place.view(_i16), sign, encode, mv_row)
        for x in range(_u64(width)):
            here[x] = _u32(here[x] + _u32(0x10000))
        _find(flat, places.shape[1], place, row)
        _subtract(b, g, r, flip, row, change_b, change_g, change_r)
        residual_row = flat_residual[y * width * 3 : (y + 1) * width * 3]
        if encode:
            _interleave(change_b, change_g, change_r, False, changes)
            _encode_row(changes, residual_row)
        else:
            _interleave(change_b, change_g, change_r, False, residual_row)


@jit
def _interleave(a, b, c, flip, out):
    """The pixels of a row, mirrored if `flip`, from its three colours."""
    last = _u64(a.size - 1)
    if flip:
        for x in range(_u64(a.size)):
            out[3 * x], out[3 * x + 1], out[3 * x + 2] = a[last - x], b[last - x], c[last - x]
    else:
        for x in range(_u64(a.size)):
            out[3 * x], out[3 * x + 1], out[3 * x + 2] = a[x], b[x], c[x]


@jit
def _find(flat, width, place, out):
    """The pixels of a packed picture at the places of a map's row."""
    for x in range(_u64(out.size)):
        out[x] = _u32(_u32(place[x] >> _u32(16)) * _u32(width)) + _u32(place[x] & _u32(0xFFFF))
    for x in range(_u64(out.size)):
        out[x] = flat[out[x]]


@jit
def _subtract(b, g, r, flip, row, out_b, out_g, out_r):
    """The colours of a row, mirrored if `flip`, less those of a packed row."""
    byte, last = _u32(0xFF), _u64(row.size - 1)
    if flip:
        for x in range(_u64(row.size)):
            out_b[x] = _i16(b[last - x]) - _i16(row[x] & byte)
            out_g[x] = _i16(g[last - x]) - _i16(_u32(row[x] >> _u32(8)) & byte)
            out_r[x] = _i16(r[last - x]) - _i16(_u32(row[x] >> _u32(16)) & byte)
    else:
        for x in range(_u64(row.size)):
            out_b[x] = _i16(b[x]) - _i16(row[x] & byte)
            out_g[x] = _i16(g[x]) - _i16(_u32(row[x] >> _u32(8)) & byte)
            out_r[x] = _i16(r[x]) - _i16(_u32(row[x] >> _u32(16)) & byte)


@jit
def _encode_row(changes, out):
    for i in range(_u64(out.size)):
        out[i] = min(max(_i16(changes[i] + _i16(128)), _i16(0)), _i16(255))


@jit
def _put_vectors(to, source, sign, encode, out):
    """Differences of two rows x, y, x, y, ..., times `sign`."""
    if encode:
        for i in range(_u64(to.size)):
            mv = _i16(_i16(to[i] - source[i]) * sign[i])
            # 127.5 / 20 is 51 / 8, and the quotient is truncated toward zero.
            scaled = _i16(min(max(mv, _i16(-21)), _i16(21)) * _i16(51))
            below = _i16(_i16(scaled >> _i16(15)) & _i16(7))
            eighths = _i16(_i16(scaled + below) >> _i16(3))
            out[i] = _i16(min(max(eighths, _i16(-128)), _i16(127)) + _i16(128))
    else:
        for i in range(_u64(to.size)):
            out[i] = _i16(_i16(to[i] - source[i]) * sign[i])
