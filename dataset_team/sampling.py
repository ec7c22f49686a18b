"""The pictures of a video that make a clip: temporal segment sampling (TSN, Wang et al. 2016)."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


def segment_positions(
    gop_lengths: Sequence[int],
    num_segments: int,
    rng: random.Random | None = None,
    clip: int = 0,
    num_clips: int = 1,
) -> list[tuple[int, int]]:
    """One (gop, position) per segment: the I-frame of that GOP and its P-frame at that position.

    The video's N frames are cut into `num_segments` equal segments. A frame of each segment chooses
    the GOP, then a P-frame is chosen inside that GOP of length L:
      training (with `rng`): a random frame, then a random position in 1..L-1;
      test: clip c of C takes the frame at (c + 1/2)/C of the segment, then position
      (2c+1)(L-1) // 2C, at least 1. One clip: the middle frame, position (L-1)//2.
    A GOP of one picture gives position 0, its I-frame with zero motion vectors and residual.
    A video of fewer frames than segments gives some frames more than once.
    """
    starts = [0, *accumulate(gop_lengths)]
    num_frames = starts[-1]
    positions = []
    for segment in range(num_segments):
        if rng is not None:
            first = segment * num_frames // num_segments
            end = (segment + 1) * num_frames // num_segments
            frame = rng.randrange(first, max(end, first + 1))
        else:
            frame = (2 * (segment * num_clips + clip) + 1) * num_frames
            frame //= 2 * num_clips * num_segments
        gop = bisect_right(starts, frame) - 1
        last = gop_lengths[gop] - 1
        if last == 0:
            position = 0
        elif rng is not None:
            position = rng.randrange(1, last + 1)
        else:
            position = max(1, (2 * clip + 1) * last // (2 * num_clips))
        positions.append((gop, position))
    return positions


def reading_order(num_segments: int) -> list[int]:
    """The segments 0 .. T-1 in an order whose first k spread over the clip.

    First the middle one, then the first, the last, and the middle of the longest gap (of equal gaps
    the earliest): 3 0 7 5 1 2 4 6 for T = 8.
    """
    order = list(dict.fromkeys([(num_segments - 1) // 2, 0, num_segments - 1]))
    while len(order) < num_segments:
        read = sorted(order)
        gaps = [after - before for before, after in zip(read, read[1:])]
        longest = max(gaps)
        order.append(read[gaps.index(longest)] + longest // 2)
    return order
