"""CoViAR: Wu et al., Compressed Video Action Recognition, CVPR 2018.

Three independent ResNets; a video is scored from a few I-frames and more P-frames.
"""

from __future__ import annotations

import torch
from torch import nn

from MACs.rival import CROP_SIZE, CountedNetwork, Rival, count_rival
from models.networks import build_network

NUM_IFRAMES = 3
NUM_PFRAMES = 11


def resnet_over(
    name: str, arch: str, pictures: int, in_channels: int, num_classes: int
) -> CountedNetwork:
    """A ResNet over `pictures` crops of one modality."""
    with torch.device("meta"):
        resnet = build_network(arch, in_channels)
        resnet.fc = nn.Linear(resnet.fc.in_features, num_classes)
    return CountedNetwork(
        f"{name}: {arch} x {pictures}", resnet, (pictures, in_channels, *[CROP_SIZE] * 2)
    )


def motion_networks(num_classes: int) -> list[CountedNetwork]:
    """The two streams over P-frames, which Wu et al. and DMC-Net share."""
    return [
        resnet_over("motion vectors", "resnet18", NUM_PFRAMES, 2, num_classes),
        resnet_over("residuals", "resnet18", NUM_PFRAMES, 3, num_classes),
    ]


def networks(num_classes: int) -> list[CountedNetwork]:
    iframes = resnet_over("I-frames", "resnet50", NUM_IFRAMES, 3, num_classes)
    return [iframes, *motion_networks(num_classes)]


def rivals(num_classes: int) -> list[Rival]:
    return [
        count_rival(
            "CoViAR",
            networks(num_classes),
            clips=1,
            crops=1,
            published=48.53,
            source="Wu et al., CVPR 2018; 3 I-frames and 11 P-frames as compared in the PKD paper",
        )
    ]
