"""TEAM-Net (Wang, She, Smolic, BMVC 2021) and the cost of leaving it at each exit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from MACs.counter import count_macs, counted
from models.team_net import TeamNet
from models.team_net_ic import TeamNetIC

STAGES = ("stem", "layer1", "layer2", "layer3")


def stage_macs(config: Mapping, exits: Sequence[int], crop_size: int) -> dict[str, int]:
    """MACs per video (one clip, one crop) of every step, in the order in which they run.

    `config` is `TeamNet.config`. The steps are those of an early exit: a clip that leaves at
    exit k has run everything up to the step "exit k" and nothing after it. A layer's step
    includes the TEAM block before it.
    """
    with torch.device("meta"):
        net = TeamNetIC(TeamNet(**config), exits)
        clips = [torch.empty(1, config["num_segments"], c, crop_size, crop_size) for c in (3, 2, 3)]
    backbone, macs = net.backbone, {}
    features, squeeze = backbone.enter(*clips), None
    for stage, name in enumerate(STAGES):
        (features, squeeze), macs[name] = counted(backbone.advance, stage, features, squeeze)
        number = stage + 1
        if number in net.exits:
            head = net.heads[str(number)]
            macs[f"exit {number}"] = count_macs(head, backbone.per_clip(squeeze))
    macs["layer4 and classifiers"] = count_macs(backbone.leave, features, squeeze)
    return macs


def exit_gmacs(config: Mapping, exits: Sequence[int], crop_size: int) -> dict[str, float]:
    """1e9 MACs per video of leaving at each exit, {"exit1": ..., "full": ...}.

    Cumulative: what leaves at an exit has paid for the exits before it.
    """
    gmacs, total = {}, 0.0
    for step, macs in stage_macs(config, exits, crop_size).items():
        total += macs / 1e9
        if step.startswith("exit "):
            gmacs[step.replace(" ", "")] = total
    return {**gmacs, "full": total}
