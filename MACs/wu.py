"""Wu et al. as compared in the PKD + WISE paper: CoViAR with a ResNet-18 for I-frames too."""

from __future__ import annotations

from MACs.coviar_net import NUM_IFRAMES, motion_parts, resnet_part
from MACs.method import Method, Part, describe


def parts(num_classes: int) -> list[Part]:
    iframes = resnet_part("I-frames", "resnet18", NUM_IFRAMES, 3, num_classes)
    return [iframes, *motion_parts(num_classes)]


def methods(num_classes: int) -> list[Method]:
    return [
        describe(
            "Wu et al.",
            parts(num_classes),
            clips=1,
            crops=10,
            published=42.09,
            source="PKD + WISE paper's comparison: CoViAR's pictures, ten crops",
        )
    ]
