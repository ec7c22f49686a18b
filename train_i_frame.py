"""Train the internal classifiers (ICs) with the I-frame stream as the only teacher.

    python train_i_frame.py --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt

This is knowledge distillation without a curriculum. The run folder is
<checkpoint_dir>/<data>/i_frame/<split>_seed<k>/.
"""

from __future__ import annotations

import argparse

from coviar.command import run
from training.recipes import ANY, RECIPES
from training.script import run_exits
from training.train_options import exit_parser

SCHEDULE = RECIPES["train_i_frame"][ANY].schedule


def get_args_parser() -> argparse.ArgumentParser:
    return exit_parser(__doc__, "train_i_frame")


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    run_exits(args, parser, method="i_frame", schedule=SCHEDULE)


if __name__ == "__main__":
    run(main, get_args_parser())
