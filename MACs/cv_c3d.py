"""CV-C3D: one C3D (Tran et al., ICCV 2015) for each of I-frames, motion vectors, residuals."""

from __future__ import annotations

import torch
from torch import nn

from MACs.rival import CountedNetwork, Rival, count_rival

NUM_FRAMES = 16
SIDE = 112
# Channels of the convolutions between one pooling and the next.
WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def c3d(in_channels: int, num_classes: int) -> nn.Sequential:
    """C3D for clips (n, in_channels, 16, 112, 112)."""
    layers: list[nn.Module] = []
    for stage, widths in enumerate(WIDTHS):
        for width in widths:
            layers += [nn.Conv3d(in_channels, width, 3, padding=1), nn.ReLU()]
            in_channels = width
        kernel = (1, 2, 2) if stage == 0 else 2  # time is kept at first
        padding = (0, 1, 1) if stage == len(WIDTHS) - 1 else 0
        layers.append(nn.MaxPool3d(kernel, stride=kernel, padding=padding))
    layers += [nn.Flatten(), nn.Linear(512 * 4 * 4, 4096), nn.ReLU()]
    layers += [nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, num_classes)]
    return nn.Sequential(*layers)


def networks(num_classes: int) -> list[CountedNetwork]:
    found = []
    for name, channels in (("I-frames", 3), ("motion vectors", 2), ("residuals", 3)):
        with torch.device("meta"):
            network = c3d(channels, num_classes)
        shape = (1, channels, NUM_FRAMES, SIDE, SIDE)
        found.append(CountedNetwork(f"{name}: C3D", network, shape))
    return found


def rivals(num_classes: int) -> list[Rival]:
    return [
        count_rival(
            "CV-C3D",
            networks(num_classes),
            clips=1,
            crops=1,
            published=25.39,
            source="C3D of Tran et al., ICCV 2015, per modality; 16 frames of 112 x 112",
            note="the published 25.39 comes from a script that swaps colour and time; counted here "
            "with 3 (2) colours and 16 frames",
        )
    ]
