"""Train the TEAM-Net backbone on UCF-101, HMDB-51 or any list.

    python train_team_net.py --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt \\
        --arch resnet50 --num_segments 8 --pretrained runs/kinetic400/pretrain/split1_seed1/best.pt

Three ResNet streams (I-frames, motion vectors, residuals) joined by TEAM blocks, trained by cross
entropy of their summed logits. Defaults are the published recipe of the data set. The run folder
is <checkpoint_dir>/<data>/team_net/<split>_seed<k>/, or streams/ where they are not joined:

    python train_team_net.py ... --fusion sum --pretrained imagenet --checkpoint_dir R
    python train_team_net.py ... --fusion neutral-team --pretrained R/D/streams/split1_seed1/best.pt

The first trains each stream alone, the second joins them and fine-tunes.
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
    add_data_options(parser)
    add_backbone_options(parser)
    add_tuning_options(parser)
    add_recipe_options(parser, "train_team_net")
    add_run_options(parser)
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    run_backbone(args, parser, method="streams" if args.fusion == "sum" else "team_net")


if __name__ == "__main__":
    run(main, get_args_parser())
