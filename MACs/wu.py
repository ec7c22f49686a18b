"""Wu et al. as compared in the PKD + WISE paper: CoViAR with a ResNet-18 for I-frames too."""

from __future__ import annotations

from MACs.coviar_net import NUM_IFRAMES, motion_networks, resnet_over
from MACs.rival import CountedNetwork, Rival, count_rival


def networks(num_classes: int) -> list[CountedNetwork]:
    iframes = resnet_over("I-frames", "resnet18", NUM_IFRAMES, 3, num_classes)
    return [iframes, *motion_networks(num_classes)]


def rivals(num_classes: int) -> list[Rival]:
    return [
        count_rival(
            "Wu et al.",
            networks(num_classes),
            clips=1,
            crops=10,
            published=42.09,
            source="PKD + WISE paper's comparison: CoViAR's pictures, ten crops",
        )
    ]
