"""Train the TEAM-Net backbone on Kinetics-400, the starting point for UCF-101 and HMDB-51.

    python pretrain.py --data-root data/kinetics --train-list lists/kinetics_train.txt \\
        --test-list lists/kinetics_val.txt --arch resnet50 --num_segments 8 --pretrained imagenet

The loop is that of train_team_net.py, the recipe is the published one for Kinetics. The run folder
is <checkpoint_dir>/<data>/pretrain/<split>_seed<k>/; give its best.pt to train_team_net.py.
"""

from __future__ import annotations

import argparse

from coviar.command import run
from training.options import add_data_options, add_run_options, make_parser
from training.script import run_backbone
from training.train_options import add_backbone_options, add_recipe_options
from training.tuning_options import add_tuning_options


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_data_options(parser, data_name="kinetic400")
    add_backbone_options(parser)
    add_tuning_options(parser)
    add_recipe_options(parser, "pretrain")
    add_run_options(parser)
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    run_backbone(args, parser, method="pretrain")


if __name__ == "__main__":
    run(main, get_args_parser())
