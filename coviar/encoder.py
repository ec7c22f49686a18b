"""The encoder of what the loader reads: raw MPEG-4 Part 2, short GOPs, no B-frames."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

# What the field trains on, after CoViAR.
SIZE = (340, 256)  # width, height
GOP = 12
QUANTISER = 1

_LAMBDA_PER_Q = 118  # FF_QP2LAMBDA, the unit of FFmpeg's global_quality
_MAX_TICKS = 65535  # MPEG-4 counts time in 16 bits


def make_encoder(rate: Fraction | None, size: tuple, gop: int, q: int) -> av.CodecContext:
    """An encoder of what the loader reads; rate in pictures per second, None: 25."""
    rate = Fraction(rate or 25).limit_denominator(1001)
    if not 1 <= rate.numerator <= _MAX_TICKS:
        rate = Fraction(25)
    encoder = av.CodecContext.create("mpeg4", "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuv420p"
    encoder.framerate = rate
    encoder.time_base = 1 / rate
    encoder.gop_size = gop
    encoder.thread_count = 1  # several threads would cut pictures into slices
    encoder.options = {"bf": "0", "flags": "+qscale", "global_quality": str(q * _LAMBDA_PER_Q)}
    return encoder


@contextlib.contextmanager
def naming(source: Path) -> Iterator[None]:
    """Errors that do not begin with the file's name get it."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise ValueError(f"{source}: cannot be converted: {error.strerror}") from error
    except ValueError as error:
        if str(error).startswith(f"{source}: "):
            raise
        raise ValueError(f"{source}: {error}") from error
