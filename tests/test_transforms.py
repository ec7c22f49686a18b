"""Crop boxes, resizing and normalisation."""

import random
from collections import Counter

import numpy as np
import pytest
import torch

from dataset_team.transforms import (
    MOTION_SCALES,
    SCALES,
    fixed_boxes,
    normalise,
    random_box,
    resize,
)


@pytest.mark.parametrize("width, height", [(340, 256), (256, 340), (160, 128), (97, 97)])
@pytest.mark.parametrize("scales", [SCALES, MOTION_SCALES])
def test_random_boxes_are_tsn_crops(width, height, scales):
    """Every pair of neighbouring scales and every one of the 13 places turns up, nothing else."""
    rng = random.Random(0)
    boxes = Counter(random_box(width, height, rng, scales) for _ in range(20000))
    sizes = [int(min(width, height) * scale) for scale in scales]
    allowed = {
        (w, h) for i, w in enumerate(sizes) for j, h in enumerate(sizes) if i - j in (-1, 0, 1)
    }
    assert {(box.width, box.height) for box in boxes} == allowed
    small = [box for box in boxes if (box.width, box.height) == (sizes[-1], sizes[-1])]
    x, y = width - sizes[-1], height - sizes[-1]
    corners_and_sides = {(i * x // 4, j * y // 4) for i in (0, 2, 4) for j in (0, 2, 4)}
    inner = {(i * x // 4, j * y // 4) for i in (1, 3) for j in (1, 3)}
    assert {(box.left, box.top) for box in small} == corners_and_sides | inner
    for box in boxes:
        assert 0 <= box.left <= width - box.width and 0 <= box.top <= height - box.height


def test_fixed_boxes():
    assert fixed_boxes(340, 256, 1) == [(58, 16, 224, 224)]
    assert fixed_boxes(340, 256, 3) == [(0, 16, 224, 224), (58, 16, 224, 224), (116, 16, 224, 224)]
    assert fixed_boxes(256, 340, 3) == [(16, 0, 224, 224), (16, 58, 224, 224), (16, 116, 224, 224)]
    five = fixed_boxes(340, 256, 5)
    assert five[0] == (58, 16, 224, 224)
    assert {box[:2] for box in five[1:]} == {(0, 0), (116, 0), (0, 32), (116, 32)}
    with pytest.raises(ValueError, match="1, 3 or 5"):
        fixed_boxes(340, 256, 4)


def test_the_centre_is_the_field_of_view_of_the_paper():
    """Resize the short side to 256 and take 224: the same share, whatever the picture's size."""
    for width, height in [(320, 240), (640, 480), (160, 128)]:
        (box,) = fixed_boxes(width, height, 1)
        assert box.width == box.height == round(height * 224 / 256)
        assert abs((box.left + box.width / 2) - width / 2) <= 0.5
        assert abs((box.top + box.height / 2) - height / 2) <= 0.5


def triangle_weights(old, new):
    """Bilinear interpolation with antialiasing: a triangle over max(1, old/new) source pixels."""
    scale = old / new
    reach = max(1.0, scale)
    weights = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * scale
        for j in range(old):
            weights[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / reach)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shape", [(2, 40, 31, 3), (2, 9, 14, 2), (1, 24, 24, 3)])
def test_resize(shape):
    pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    size = 24
    rows, columns = (triangle_weights(old, size) for old in shape[1:3])
    expected = np.einsum("yi,xj,tijc->tcyx", rows, columns, pictures)
    found = resize(pictures, size)
    assert found.dtype == torch.uint8 and found.shape == (shape[0], shape[3], size, size)
    # PyTorch rounds to uint8 after each of the two passes: half a level each, a little more in its
    # fixed-point weights.
    assert np.abs(found.numpy() - expected).max() <= 1.5


def test_resize_to_the_same_size_changes_nothing():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 2), dtype=np.uint8)
    assert np.array_equal(resize(pictures, 24).permute(0, 2, 3, 1), pictures)


@pytest.mark.parametrize("leading", [(5,), (2, 5)])
def test_normalise(leading):
    rng = np.random.default_rng(0)
    iframe, mv, residual = (
        rng.integers(0, 256, (*leading, channels, 6, 7), dtype=np.uint8) for channels in (3, 2, 3)
    )
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (
        (iframe / 255 - mean[:, None, None]) / std[:, None, None],
        mv / 255 - 0.5,
        (residual / 255 - 0.5) / std[:, None, None],
    )
    before = [array.copy() for array in (iframe, mv, residual)]
    found = normalise(*map(torch.from_numpy, (iframe, mv, residual)))
    for tensor, wanted in zip(found, expected):
        assert tensor.dtype == torch.float32
        # Values up to 2.7 in float32: a few units in the last place.
        np.testing.assert_allclose(tensor.numpy(), wanted, rtol=0, atol=1e-6)
    for array, kept in zip((iframe, mv, residual), before):
        assert np.array_equal(array, kept)
