"""Train the internal classifiers (ICs) with the reverse order: strongest teacher first.

    python train_prog_kd_anti.py --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt

The anti-curriculum of the PKD paper: I-frames, then residuals, then motion vectors. The run folder
is <checkpoint_dir>/<data>/prog_kd_anti/<split>_seed<k>/.
"""

from __future__ import annotations

import argparse

from coviar.command import run
from training.script import run_exits
from training.train_options import exit_parser


def get_args_parser() -> argparse.ArgumentParser:
    return exit_parser(__doc__, "train_prog_kd_anti", has_schedule=True)


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    run_exits(args, parser, method="prog_kd_anti", schedule=args.schedule)


if __name__ == "__main__":
    run(main, get_args_parser())
