"""Train the internal classifiers (ICs) with plain cross entropy: the baseline.

    python train_team_ce.py --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt

The frozen backbone is the run of the same data and split, or --pretrained FILE. The run folder is
<checkpoint_dir>/<data>/team_ce/<split>_seed<k>/.
"""

from __future__ import annotations

import argparse

from coviar.command import run
from training.recipes import ANY, RECIPES
from training.script import run_exits
from training.train_options import exit_parser

SCHEDULE = RECIPES["train_team_ce"][ANY].schedule


def get_args_parser() -> argparse.ArgumentParser:
    return exit_parser(__doc__, "train_team_ce")


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    run_exits(args, parser, method="team_ce", schedule=SCHEDULE)


if __name__ == "__main__":
    run(main, get_args_parser())
