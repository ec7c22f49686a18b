"""MFCD-Net: MFNet-3D (Chen et al., Multi-Fiber Networks for Video Recognition, ECCV 2018)."""

from __future__ import annotations

import torch
from torch import nn

from MACs.rival import CROP_SIZE, CountedNetwork, Rival, count_rival

NUM_FRAMES = 12
GROUPS = 16  # the fibers
STEM_WIDTH = 16
FIBER_STAGES = ((96, 3), (192, 4), (384, 6), (768, 3))  # channels, units


def conv(in_channels: int, out_channels: int, kernel, stride=1, groups: int = 1) -> nn.Sequential:
    """Pre-activated convolution that keeps the size at stride 1."""
    padding = tuple(k // 2 for k in kernel)
    return nn.Sequential(
        nn.BatchNorm3d(in_channels),
        nn.ReLU(),
        nn.Conv3d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False),
    )


class MultiFiberUnit(nn.Module):
    """A multiplexer mixes the fibers; then a residual block of grouped convolutions."""

    def __init__(self, in_channels: int, channels: int, stride, is_first: bool):
        super().__init__()
        point = (1, 1, 1)
        self.multiplexer = nn.Sequential(
            conv(in_channels, channels // 4, point), conv(channels // 4, in_channels, point)
        )
        self.first = conv(in_channels, channels, (3, 3, 3), stride, GROUPS)
        self.shortcut = nn.Identity()
        if is_first:
            self.second = conv(channels, channels, point)
            self.shortcut = conv(in_channels, channels, point, stride)
        else:
            self.second = conv(channels, channels, (1, 3, 3), groups=GROUPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.second(self.first(x + self.multiplexer(x)))


def mfnet(num_classes: int) -> nn.Sequential:
    """MFNet-3D for clips (n, 3, frames, h, w)."""
    layers: list[nn.Module] = [
        nn.Conv3d(3, STEM_WIDTH, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False),
        nn.BatchNorm3d(STEM_WIDTH),
        nn.ReLU(),
        nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    ]
    in_channels, stride = STEM_WIDTH, (2, 1, 1)  # the first stage halves time, the others space
    for channels, units in FIBER_STAGES:
        for unit in range(units):
            is_first = unit == 0
            layers.append(
                MultiFiberUnit(in_channels, channels, stride if is_first else 1, is_first)
            )
            in_channels = channels
        stride = (1, 2, 2)
    layers += [nn.BatchNorm3d(in_channels), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(in_channels, num_classes))


def networks(num_classes: int) -> list[CountedNetwork]:
    with torch.device("meta"):
        network = mfnet(num_classes)
    return [CountedNetwork("MFNet-3D", network, (1, 3, NUM_FRAMES, CROP_SIZE, CROP_SIZE))]


def rivals(num_classes: int) -> list[Rival]:
    return [
        count_rival(
            "MFCD-Net",
            networks(num_classes),
            clips=15,
            crops=1,
            published=7.903,
            source="MFNet-3D of Chen et al., ECCV 2018; 12 frames, 15 clips as in the PKD paper",
        )
    ]
