"""Segment sampling against a slow reading of its definition."""

import random
from fractions import Fraction

import pytest

from dataset_team.sampling import segment_positions


def frames_of(gop_lengths):
    """(gop, frame inside it) of every frame of the video, in order."""
    return [(gop, i) for gop, length in enumerate(gop_lengths) for i in range(length)]


def middle_positions(gop_lengths, num_segments, clip=0, num_clips=1):
    frames = frames_of(gop_lengths)
    positions = []
    for segment in range(num_segments):
        share = Fraction(2 * clip + 1, 2 * num_clips)
        gop = frames[int((segment + share) * len(frames) / num_segments)][0]
        last = gop_lengths[gop] - 1
        positions.append((gop, min(last, max(1, int(share * last)))))
    return positions


GOPS = [
    pytest.param((12,) * 9, id="whole GOPs"),
    pytest.param((12,) * 7 + (3,), id="short last GOP"),
    pytest.param((12, 12, 1), id="one-picture last GOP"),
    pytest.param((1,) * 20, id="one-picture GOPs"),
    pytest.param((5,), id="fewer frames than segments"),
    pytest.param((1,), id="one frame"),
    pytest.param((2, 7, 250, 1, 3), id="uneven GOPs"),
]


@pytest.mark.parametrize("gop_lengths", GOPS)
@pytest.mark.parametrize("num_segments", [1, 3, 8])
@pytest.mark.parametrize("num_clips", [1, 3])
def test_test_positions_are_the_middles(gop_lengths, num_segments, num_clips):
    for clip in range(num_clips):
        found = segment_positions(gop_lengths, num_segments, clip=clip, num_clips=num_clips)
        assert found == middle_positions(gop_lengths, num_segments, clip, num_clips)


def test_published_test_position():
    """GOPs of 12: position 5, as the published code."""
    assert segment_positions((12,) * 8, 8) == [(gop, 5) for gop in range(8)]


@pytest.mark.parametrize("gop_lengths", GOPS)
def test_training_draws_everything_it_may_and_nothing_else(gop_lengths):
    num_segments, frames = 3, frames_of(gop_lengths)
    drawn = [set() for _ in range(num_segments)]
    for seed in range(4000):
        positions = segment_positions(gop_lengths, num_segments, random.Random(seed))
        for segment, position in enumerate(positions):
            drawn[segment].add(position)
    for segment in range(num_segments):
        first = segment * len(frames) // num_segments
        end = max(first + 1, (segment + 1) * len(frames) // num_segments)
        allowed = {
            (gop, position)
            for gop, _ in frames[first:end]
            for position in (range(1, gop_lengths[gop]) if gop_lengths[gop] > 1 else [0])
        }
        assert drawn[segment] <= allowed
        if len(allowed) < 150:  # 4000 draws miss one of 150 equally likely ones once in 10^9
            assert drawn[segment] == allowed


def test_segments_draw_each_frame_equally():
    """12 frames of segment 0 lie in GOP 0, 4 in GOP 1: three of four draws are GOP 0."""
    gops = [segment_positions((12, 12, 24), 3, random.Random(seed))[0][0] for seed in range(4000)]
    assert set(gops) == {0, 1}
    assert abs(gops.count(0) / 4000 - 0.75) < 0.03  # over four standard deviations


def test_same_generator_same_positions():
    lengths = (12,) * 10
    a, b = (segment_positions(lengths, 8, random.Random("1/2/v")) for _ in range(2))
    assert a == b != segment_positions(lengths, 8, random.Random("1/3/v"))
