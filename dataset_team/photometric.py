"""Changes of colour and light for I-frames: RandAugment (Cubuk et al., 2020) without its geometry.

The I-frame may not move against motion vectors and residuals, which are no photographs.
"""

from __future__ import annotations

import random

import torch
from torchvision.transforms.v2 import functional

NUM_CHANGES = 2
# They take a factor, 1 for no change, which `change_light` draws from 1 - m to 1 + m.
BY_FACTOR = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_sharpness,
    functional.adjust_gamma,
)
WHOLE = (functional.autocontrast, functional.equalize)


def change_light(pictures: torch.Tensor, magnitude: float, rng: random.Random) -> torch.Tensor:
    """Two different random changes, the same for all pictures of a clip.

    pictures: uint8 (t, 3, h, w). magnitude: m in (0, 1). rng: a random.Random.
    """
    for operation in rng.sample((*BY_FACTOR, *WHOLE), NUM_CHANGES):
        if operation in BY_FACTOR:
            pictures = operation(pictures, rng.uniform(1 - magnitude, 1 + magnitude))
        else:
            pictures = operation(pictures)
    return pictures
