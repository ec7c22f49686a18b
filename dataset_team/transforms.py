"""Crops of a clip, and their resizing to the network's size.

A crop is chosen before decoding, as a box in pixels of the picture, so that only this window is
computed. Sizes are relative to the short side of the picture.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

# Multi-scale crops as in the paper, which leaves out .66 for motion vectors and residuals. A joint
# crop, one box for all three, takes the I-frame's scales, which contain the others'.
SCALES = (1.0, 0.875, 0.75, 0.66)
MOTION_SCALES = SCALES[:3]
# At test the picture's short side is 256 and a centre 224 is taken: this share of the short side.
TEST_SCALE = 224 / 256

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Box(NamedTuple):
    """A window of a picture, in pixels."""

    left: int
    top: int
    width: int
    height: int


def random_box(
    width: int, height: int, rng: random.Random, scales: Sequence[float] = SCALES
) -> Box:
    """A training crop: random size, then one of 13 places, as TSN's fixed multi-scale crop.

    Width and height are both drawn from `scales` times the short side, at most one step apart, so
    the aspect ratio changes mildly. The places are the corners, the middles of the sides, the
    centre, and the four points halfway between centre and corners.
    """
    sizes = [int(min(width, height) * scale) for scale in scales]
    pairs = [
        (box_width, box_height)
        for i, box_width in enumerate(sizes)
        for j, box_height in enumerate(sizes)
        if abs(i - j) <= 1
    ]
    box_width, box_height = pairs[rng.randrange(len(pairs))]
    # Places in quarters of the free way: a 3x3 grid of 0, 2, 4 and the 2x2 grid of 1, 3 inside it.
    places = [(x, y) for step in ((0, 2, 4), (1, 3)) for x in step for y in step]
    x, y = places[rng.randrange(len(places))]
    left, top = (width - box_width) * x // 4, (height - box_height) * y // 4
    return Box(left, top, box_width, box_height)


def fixed_boxes(width: int, height: int, crops: int) -> list[Box]:
    """The test crops: squares of 224/256 of the short side, the same for any crop size.

    1: the centre. 3: both ends and the middle of the long side. 5: the centre and the corners.
    """
    side = round(min(width, height) * TEST_SCALE)
    right, bottom = width - side, height - side
    centre = (right // 2, bottom // 2)
    if crops == 1:
        places = [centre]
    elif crops == 3 and width >= height:
        places = [(0, centre[1]), centre, (right, centre[1])]
    elif crops == 3:
        places = [(centre[0], 0), centre, (centre[0], bottom)]
    elif crops == 5:
        places = [centre, (0, 0), (right, 0), (0, bottom), (right, bottom)]
    else:
        raise ValueError(f"crops must be 1, 3 or 5, found {crops}")
    return [Box(left, top, side, side) for left, top in places]


def resize(pictures: np.ndarray, size: int) -> torch.Tensor:
    """uint8 (t, h, w, c) -> uint8 (t, c, size, size), bilinear with antialiasing.

    The result is channels_last in memory: PyTorch's uint8 kernel works on the array as it is.
    """
    tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2)  # (t, c, h, w)
    return F.interpolate(tensor, (size, size), mode="bilinear", antialias=True)


def normalise(
    iframe: torch.Tensor, mv: torch.Tensor, residual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """uint8 (..., c, h, w) of a sample or a batch -> float32 on the same device.

    I-frame: (x/255 - mean) / std of ImageNet. Motion vectors: x/255 - 0.5.
    Residual: (x/255 - 0.5) / std.
    """
    std = torch.tensor(IMAGENET_STD, device=iframe.device).view(3, 1, 1)
    return (
        normalise_iframe(iframe),
        mv.float().div_(255).sub_(0.5),
        residual.float().div_(255).sub_(0.5).div_(std),
    )


def normalise_iframe(iframe: torch.Tensor) -> torch.Tensor:
    """uint8 (..., 3, h, w) -> float32, as `normalise`."""
    mean = torch.tensor(IMAGENET_MEAN, device=iframe.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=iframe.device).view(3, 1, 1)
    return iframe.float().div_(255).sub_(mean).div_(std)
