"""The little of the MPEG-4 Part 2 bit stream (ISO/IEC 14496-2) that an index needs.

A stream is a row of start codes, 00 00 01 and a code. The video object layer (VOL, codes 20..2F)
says the picture size and the tools used; each coded picture is a VOP (code B6).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coviar.compiled import jit

VOP = 0xB6
I_PICTURE, P_PICTURE, B_PICTURE, S_PICTURE = range(4)
NOT_CODED = (
    4  # a P-VOP that only says "show the last picture again": decoders output nothing for it
)

_GRAYSCALE = 3
_STATIC_SPRITE = 1
_EXTENDED_ASPECT = 15
_VBV_BITS = 79
MAX_LAYER_BYTES = 256  # with both quantisation matrices it takes about 160


class VideoLayer(NamedTuple):
    """What a VOL header says. `time_bits` is the width of a VOP's vop_time_increment field."""

    width: int
    height: int
    time_bits: int
    sprite: bool
    quarter_sample: bool
    interlaced: bool


class _Bits:
    def __init__(self, data: bytes):
        self.value = int.from_bytes(data, "big")
        self.left = 8 * len(data)

    def read(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise ValueError("the header ends early")
        return self.value >> self.left & ((1 << count) - 1)


def is_layer_code(code):
    """Whether a start code (or each of an array of them) opens a video object layer header."""
    return (code & 0xF0) == 0x20


def is_header_code(code: int) -> bool:
    """Whether a start code may come before the first layer header."""
    return code <= 0x1F or code in (0xB0, 0xB2, 0xB5)


@jit
def find_start_codes(data):
    """Offsets of every 00 00 01 in `data` (uint8 array), as int64."""
    found = np.empty(data.size // 3 + 1, np.int64)  # untouched pages cost nothing
    count = 0
    i = 2
    while i < data.size:
        if data[i] > 1:
            i += 3
        elif data[i] == 1 and data[i - 1] == 0 and data[i - 2] == 0:
            found[count] = i - 2
            count += 1
            i += 3
        else:
            i += 1
    return found[:count].copy()


def parse_layer(data: bytes) -> VideoLayer:
    """Read a VOL header, `data` being what follows its start code; ValueError if it is damaged."""
    bits = _Bits(data[:MAX_LAYER_BYTES])
    bits.read(1 + 8)  # random accessible, object type
    version = 1
    if bits.read(1):
        version = bits.read(4)
        bits.read(3)
    if bits.read(4) == _EXTENDED_ASPECT:
        bits.read(16)
    if bits.read(1):  # control parameters
        bits.read(2 + 1)
        if bits.read(1):
            bits.read(_VBV_BITS)
    shape = bits.read(2)
    if shape != 0:
        raise ValueError("it holds shaped objects, not rectangular pictures")
    bits.read(1)
    resolution = bits.read(16)
    if resolution == 0:
        raise ValueError("its time resolution is 0")
    time_bits = max(1, (resolution - 1).bit_length())
    bits.read(1)
    if bits.read(1):  # fixed frame rate
        bits.read(time_bits)
    bits.read(1)
    width = bits.read(13)
    bits.read(1)
    height = bits.read(13)
    bits.read(1)
    interlaced = bool(bits.read(1))
    bits.read(1)  # no overlapped motion compensation
    sprite = bits.read(1 if version == 1 else 2)
    if sprite == _STATIC_SPRITE:
        bits.read(4 * 14)
    if sprite:
        bits.read(6 + 2 + 1 + (sprite == _STATIC_SPRITE))
    if bits.read(1):  # not 8 bit
        bits.read(4 + 4)
    if bits.read(1):  # MPEG quantisation, its two matrices optional
        for _ in range(2):
            if bits.read(1):
                for _ in range(64):
                    if bits.read(8) == 0:
                        break
    quarter_sample = version != 1 and bool(bits.read(1))
    return VideoLayer(width, height, time_bits, bool(sprite), quarter_sample, interlaced)


def picture_kind(data: bytes, time_bits: int) -> int:
    """I_PICTURE, P_PICTURE, B_PICTURE, S_PICTURE or NOT_CODED; `data` follows the VOP's start code.

    `data` needs no more than the first 16 bytes; a header cut short counts as coded, by its type.
    """
    bits = _Bits(data[:16])
    kind = bits.read(2)
    try:
        while bits.read(1):  # whole seconds since the last picture
            pass
        bits.read(1 + time_bits + 1)
        coded = bits.read(1)
    except ValueError:
        return kind
    return kind if coded else NOT_CODED
