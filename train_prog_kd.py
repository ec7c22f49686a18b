"""Train the internal classifiers (ICs) with Progressive KD: weakest teacher first.

    python train_prog_kd.py --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt

The teachers are the frozen backbone's own streams: motion vectors, then residuals, then I-frames
(PKD paper, section 3). Another curriculum is, for example, --schedule mv:10,fused --method
mv_then_fused. With --schedule weakest:3,middle:3,strongest, top-1 on held-out videos sets their
order. The run folder is <checkpoint_dir>/<data>/<method>/<split>_seed<k>/.
"""

from __future__ import annotations

import argparse

from coviar.command import run
from training.options import method_name
from training.script import run_exits
from training.train_options import exit_parser


def get_args_parser() -> argparse.ArgumentParser:
    parser = exit_parser(__doc__, "train_prog_kd", has_schedule=True)
    parser.add_argument(
        "--method", type=method_name, default="prog_kd", help="name of the run folder (prog_kd)"
    )
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    run_exits(args, parser, method=args.method, schedule=args.schedule)


if __name__ == "__main__":
    run(main, get_args_parser())
