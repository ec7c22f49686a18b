"""Options of fine-tuning pretrained streams; the defaults are the published recipe."""

from __future__ import annotations

import argparse

from models.team_net import FUSIONS
from training.options import fraction, positive_float, positive_int
from training.tuning import FREEZABLE


def add_tuning_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fine-tuning (defaults: the published recipe)")
    group.add_argument(
        "--fusion",
        choices=FUSIONS,
        help="team: TEAM blocks as published; neutral-team: TEAM blocks that change nothing at"
        " first, to join streams that were trained alone (with --pretrained FILE); sum: none, each"
        " stream is trained alone, by its own loss, and their logits are added (default team)",
    )
    group.add_argument(
        "--train-segments",
        type=positive_int,
        metavar="N",
        help="segments of a training clip, where fewer than the --num_segments of the test are"
        " enough (default --num_segments)",
    )
    group.add_argument(
        "--freeze",
        nargs="+",
        default=[],
        choices=FREEZABLE,
        metavar="PART",
        help="weights and BatchNorm statistics that stay as they are: a stage of all streams (stem,"
        " layer1 ... layer4), all stages of a stream (iframe, mv, residual), a stage of one stream"
        " (iframe.layer1), or the TEAM blocks (team); classifiers always learn",
    )
    group.add_argument(
        "--partial-bn",
        action="store_true",
        help="only the first BatchNorm of each stream and the one of its input learn, as in TSN",
    )
    group.add_argument(
        "--depth-lr-scale",
        type=positive_float,
        default=1.0,
        metavar="F",
        help="of layer4, times lr; layer3 learns at F^2, ... the stem at F^5 (try 0.7; default 1)",
    )
    group.add_argument("--nesterov", action="store_true", help="momentum of --optimizer sgd")
    group.add_argument(
        "--photometric",
        type=fraction,
        default=0.0,
        metavar="M",
        help="change colours and light of training I-frames by two random operations, factors"
        " within 1 - M to 1 + M (try 0.4; default 0: do not)",
    )
