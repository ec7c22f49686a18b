"""The compiled kernels against the readable numpy of motion.py, on random input."""

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coviar import kernels, motion

WIDTH, HEIGHT = 40, 23  # not multiples of 16, one of them odd: blocks hang over the edges

side = st.sampled_from([8, 16])
coordinate = st.integers(-30, 70)
block = st.tuples(side, side, coordinate, coordinate, coordinate, coordinate)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def windows(draw):
    left, top = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    width, height = draw(st.integers(1, WIDTH - left)), draw(st.integers(1, HEIGHT - top))
    return left, top, width, height


def as_vectors(blocks):
    """Blocks as the int16 rows of FFmpeg's AVMotionVector."""
    vectors = np.zeros((len(blocks), 20), np.int16)
    for row, (width, height, *places) in zip(vectors, blocks):
        row[2] = width | height << 8
        row[3:7] = places
    return vectors


def packed(values):
    """(h, w, 2) places to a map, or (h, w, 3) BGR to a packed picture."""
    bits = 16 if values.shape[2] == 2 else 8
    return sum(values[..., i].astype(np.uint32) << (bits * i) for i in range(values.shape[2]))


def random_planes(rng):
    sizes = [(HEIGHT, WIDTH)] + [((HEIGHT + 1) // 2, (WIDTH + 1) // 2)] * 2
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(block, max_size=12), min_size=1, max_size=4))
@example([[(8, 8, 0, 0, 0, 1), (8, 8, 0, 0, 0, 0)]])  # one that did not move, over one that did
def test_accumulation(fields):
    expected = motion.identity(HEIGHT, WIDTH)
    places = np.empty((HEIGHT, WIDTH), np.uint32)
    kernels.identity_map(places)
    np.testing.assert_array_equal(places, packed(expected))
    for blocks in fields:
        moved = np.zeros_like(places)
        kernels.move_blocks(as_vectors(blocks), places, moved)
        expected = motion.move_blocks(blocks, expected)
        np.testing.assert_array_equal(moved, packed(expected))
        places = moved


@settings(max_examples=60, deadline=None)
@given(seeds, windows(), st.booleans(), st.booleans())
def test_difference(seed, window, flip, encode):
    rng = np.random.default_rng(seed)
    left, top, width, height = window
    places = rng.integers(0, (WIDTH, HEIGHT), (HEIGHT, WIDTH, 2))
    reference = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    planes = random_planes(rng)
    mv, residual = motion.difference(places, reference, motion.yuv_to_bgr(*planes))
    if flip:
        mv = mv * [-1, 1]
    if encode:
        mv, residual = motion.encode_mv(mv), motion.encode_residual(residual)
    area = slice(top, top + height), slice(left, left + width)
    step = -1 if flip else 1

    kind = np.uint8 if encode else np.int16
    found_mv, found_residual = (
        np.empty((height, width, 2), kind),
        np.empty((height, width, 3), kind),
    )
    kernels.difference(
        *(packed(places), packed(reference), *planes),
        *(left, top, flip, encode),
        *(found_mv, found_residual),
    )
    np.testing.assert_array_equal(found_mv, mv[area][:, ::step])
    np.testing.assert_array_equal(found_residual, residual[area][:, ::step])


@settings(max_examples=60, deadline=None)
@given(seeds, windows(), st.booleans(), st.booleans())
def test_colours(seed, window, flip, rgb):
    planes = random_planes(np.random.default_rng(seed))
    left, top, width, height = window
    expected = motion.yuv_to_bgr(*planes)
    whole = np.empty((HEIGHT, WIDTH), np.uint32)
    area = slice(top, top + height), slice(left, left + width)
    found = np.empty((height, width, 3), np.uint8)
    kernels.pack_picture(*planes, whole, left, top, flip, rgb, found)
    np.testing.assert_array_equal(whole, packed(expected))
    step = -1 if flip else 1
    np.testing.assert_array_equal(found, expected[area][:, ::step, :: -1 if rgb else 1])


def test_colours_are_swscales():
    """All combinations that decide a colour: every luma with a grid of chroma values."""
    frame = av.VideoFrame(512, 512, "yuv420p")
    y, x = np.mgrid[:512, :512]
    chroma = np.mgrid[:256, :256].astype(np.uint8)
    for plane, values in zip(frame.planes, ((x // 2 + 7 * y) % 256, *chroma)):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        rows[:, : plane.width] = values
    planes = [np.frombuffer(p, np.uint8).reshape(-1, p.line_size) for p in frame.planes]
    expected = frame.to_ndarray(format="bgr24")
    found, nothing = np.empty((512, 512), np.uint32), np.empty((0, 512, 3), np.uint8)
    kernels.pack_picture(*planes, found, 0, 0, False, False, nothing)
    np.testing.assert_array_equal(found, packed(expected))


BY_HAND = {0: 128, 1: 134, -1: 122, 3: 147, -3: 109, 19: 249, 20: 255, -20: 1, -21: 0}


@pytest.mark.parametrize("pixels, value", [*BY_HAND.items(), (300, 255), (-300, 0)])
def test_encoded_motion_vectors_by_hand(pixels, value):
    assert motion.encode_mv(np.array([pixels])) == value
    wide = np.zeros((1, 400, 2), np.int64)
    wide[0, :, 0] = np.arange(400)
    places = wide.copy()
    x = 350 if pixels > 0 else 20
    places[0, x, 0] = x - pixels
    mv, residual = np.empty((1, 400, 2), np.uint8), np.empty((1, 400, 3), np.uint8)
    black = np.zeros((1, 400), np.uint32)
    grey = np.full((1, 200), 128, np.uint8)
    planes = np.full((1, 400), 16, np.uint8), grey, grey
    kernels.difference(packed(places), black, *planes, 0, 0, False, True, mv, residual)
    assert mv[0, x].tolist() == [value, 128]
    assert (residual == 128).all()
