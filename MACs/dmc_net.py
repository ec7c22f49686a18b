"""DMC-Net (Shou et al., CVPR 2019): a generator turns motion vectors into a picture like flow."""

from __future__ import annotations

import torch
from torch import nn

from MACs.coviar_net import NUM_IFRAMES, NUM_PFRAMES, motion_networks, resnet_over
from MACs.rival import CROP_SIZE, CountedNetwork, Rival, count_rival

WIDTHS = (5, 32, 128, 128, 96, 64, 32, 2)  # motion vector (2) and residual (3) in, flow (2) out
DILATIONS = (1, 2, 4, 8, 16, 1, 1)


def generator() -> nn.Sequential:
    """Dilated 3x3 convolutions at full resolution, (n, 5, h, w) to (n, 2, h, w)."""
    layers: list[nn.Module] = []
    for in_channels, out_channels, dilation in zip(WIDTHS, WIDTHS[1:], DILATIONS):
        layers += [
            nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.1),
        ]
    return nn.Sequential(*layers[:-2])  # the flow itself is not normalised


def networks(num_classes: int) -> list[CountedNetwork]:
    with torch.device("meta"):
        refine = generator()
    return [
        resnet_over("I-frames", "resnet152", NUM_IFRAMES, 3, num_classes),
        *motion_networks(num_classes),
        CountedNetwork(
            f"generator x {NUM_PFRAMES}", refine, (NUM_PFRAMES, 5, CROP_SIZE, CROP_SIZE)
        ),
        resnet_over("generated flow", "resnet18", NUM_PFRAMES, 2, num_classes),
    ]


def rivals(num_classes: int) -> list[Rival]:
    return [
        count_rival(
            "DMC-Net",
            networks(num_classes),
            clips=1,
            crops=10,
            published=278.97,
            source="Shou et al., CVPR 2019; pictures and ten crops as compared in the PKD paper",
        )
    ]
