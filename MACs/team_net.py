"""TEAM-Net (Wang, She, Smolic, BMVC 2021) and the cost of leaving it at each exit."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping, Sequence

import torch

from MACs.counter import count_macs, counted
from MACs.rival import CROP_SIZE, Rival, count_params
from models.over_time import check_fusion, run_alone
from models.points import exits_of, streams_of, uses_streams
from models.team_net import IN_CHANNELS, NUM_TEAM_BLOCKS, STAGES, TeamNet
from models.team_net_ic import CONCAT, TeamNetIC

EXITS = (1, 2, 3)
PUBLISHED_GMACS_1024 = {"exit1": 2.458, "exit2": 14.495, "exit3": 28.393, "full": 57.69}
# Efficient networks for the streams, and SIZES of their input: T segments and pixels.
EFFICIENT = {"mobilenet_v2": "MobileNetV2", "efficientnet_b0": "EfficientNet-B0"}
SIZES = ((8, 224), (4, 160))
SOURCE = "Wang, She, Smolic, BMVC 2021; exits and protocol of the PKD + WISE paper"


def stage_macs(
    config: Mapping, exits: Sequence[int], crop_size: int, ic_pool: str = CONCAT
) -> dict[str, int]:
    """MACs per video (one clip, one crop) of every step, in the order in which they run.

    `config` is `TeamNet.config`, `ic_pool` that of `TeamNetIC`. The steps are those of an early
    exit: a clip that leaves at exit k has run everything up to the step "exit k" and nothing after
    it. A layer's step includes the TEAM block before it.
    """
    return dict(_stage_macs(json.dumps(dict(config)), tuple(exits), crop_size, ic_pool))


@functools.cache  # a study asks for the same network again and again
def _stage_macs(
    config: str, exits: tuple[int, ...], crop_size: int, ic_pool: str
) -> dict[str, int]:
    costs = _stage_costs(_build(json.loads(config), exits, ic_pool), crop_size)
    return {step: macs for step, (macs, _) in costs.items()}


def _stage_costs(net: TeamNetIC, crop_size: int) -> dict[str, tuple[int, int]]:
    """The steps of `stage_macs`: their MACs, and what `pointwise` of MACs.counter adds to them."""
    size, backbone = (crop_size, crop_size), net.backbone
    segments = backbone.num_segments
    clips = [torch.empty(1, segments, c, *size, device="meta") for c in IN_CHANNELS.values()]
    costs, squeeze = {}, None
    features, *entering = counted(backbone.enter, *clips)
    for stage, name in enumerate(STAGES[:NUM_TEAM_BLOCKS]):
        (features, squeeze), *costs[name] = counted(backbone.advance, stage, features, squeeze)
        number = stage + 1
        if number in net.exits:
            per_clip = backbone.per_clip(squeeze)
            _, *costs[f"exit {number}"] = counted(net.clip_head, number, per_clip)
    _, *costs["layer4 and classifiers"] = counted(backbone.leave, features, squeeze)
    costs["stem"] = [sum(pair) for pair in zip(costs["stem"], entering)]
    return {step: tuple(pair) for step, pair in costs.items()}


def exit_gmacs(
    config: Mapping, exits: Sequence[int], crop_size: int, ic_pool: str = CONCAT
) -> dict[str, float]:
    """1e9 MACs per video of leaving at each exit, {"exit1": ..., "full": ...}.

    A clip that leaves at an exit also pays for the exits before it.
    """
    paid = steps_by_exit(stage_macs(config, exits, crop_size, ic_pool))
    return {name: sum(steps.values()) / 1e9 for name, steps in paid.items()}


def segment_gmacs(
    config: Mapping, route: Sequence[tuple[int, str]], crop_size: int
) -> dict[str, float]:
    """1e9 MACs of one segment to each depth of a route, early_exit.route, and to the end; where the
    route has streams alone, of each of them too.

    Raises ValueError where the route has streams alone and the network has none.
    """
    config = {**config, "num_segments": 1}
    costs = exit_gmacs(config, exits_of(route), crop_size)
    if uses_streams(route):
        check_fusion(config)
        alone = _stream_gmacs(json.dumps(config), crop_size)
        costs.update(alone)
        for _, depth in route:
            costs.setdefault(depth, sum(alone[name] for name in streams_of(depth)))
    return costs


@functools.cache
def _stream_gmacs(config: str, crop_size: int) -> dict[str, float]:
    """1e9 MACs of one segment in each stream alone."""
    found = {}
    backbone = _build(json.loads(config), ()).backbone
    for (name, channels), stream in zip(IN_CHANNELS.items(), backbone.streams):
        picture = torch.empty(1, channels, crop_size, crop_size, device="meta")
        found[name] = count_macs(run_alone, stream, picture) / 1e9
    return found


def steps_by_exit(macs: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """The steps that a clip runs which leaves at each exit, or at none ("full")."""
    paid, run = {}, {}
    for step, value in macs.items():
        run[step] = value
        if step.startswith("exit "):
            paid[step.replace(" ", "")] = dict(run)
    return {**paid, "full": run}


@functools.cache
def rivals(num_classes: int) -> list[Rival]:
    """The published network, leaving at each exit, in full, and in full with temporal shift; then
    networks of EFFICIENT in all three streams."""
    config = {"num_classes": num_classes}
    published = _ways_out(config, CROP_SIZE)
    shifted = _ways_out({**config, "is_shift": True}, CROP_SIZE)["full"]
    found = [
        rival._replace(name=row_name(point), published=PUBLISHED_GMACS_1024[point])
        for point, rival in published.items()
    ]
    note = "shifting moves data and multiplies nothing"
    found.append(shifted._replace(name="TEAM-Net with TSM", note=note))
    for (arch, name), (segments, pixels) in itertools.product(EFFICIENT.items(), SIZES):
        network = {"num_segments": segments, "arch": arch, "motion_arch": arch}
        ways = _ways_out({**config, **network}, pixels)
        streams = f"{name} streams, T = {segments}, {pixels} pixels"
        found += [
            rival._replace(name=f"{row_name(point)}, {streams}", source="torchvision's network")
            for point, rival in ways.items()
        ]
    return found


def _ways_out(config: Mapping, crop_size: int) -> dict[str, Rival]:
    """Leaving at each exit and in full, as rivals without a name."""
    net = _build(config, EXITS)
    costs = _stage_costs(net, crop_size)
    plain, pointwise = (
        steps_by_exit({step: pair[n] for step, pair in costs.items()}) for n in (0, 1)
    )
    return {
        point: Rival(
            name="",
            steps=steps,
            pointwise=sum(pointwise[point].values()),
            params=count_params(net),
            clips=1,
            crops=1,
            published=None,
            source=SOURCE,
        )
        for point, steps in plain.items()
    }


def row_name(point: str) -> str:
    """The table's name of leaving at "exit1" ... or "full"."""
    return (
        "TEAM-Net" if point == "full" else f"TEAM-Net, leaving at {point.replace('exit', 'exit ')}"
    )


def _build(config: Mapping, exits: Sequence[int], ic_pool: str = CONCAT) -> TeamNetIC:
    with torch.device("meta"):
        return TeamNetIC(TeamNet(**config), exits, ic_pool).eval()
