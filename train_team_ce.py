"""Train the internal classifiers (ICs) with plain cross entropy: the baseline.

    python train_team_ce.py --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt

The frozen backbone is the run of the same data and split, or --pretrained FILE. The run folder is
<checkpoint_dir>/<data>/team_ce/<split>_seed<k>/.
"""

from coviar.command import run
from training.options import (
    add_data_options,
    add_exit_options,
    add_optimizer_options,
    add_run_options,
    make_parser,
)
from training.script import run_exits

RECIPES = {
    "default": {"lr": 0.02, "batch_size": 128, "epochs": 30, "lr_steps": [5, 10, 15], "wd": 1e-4}
}
SCHEDULE = "labels"  # no teacher: the loss of every epoch is cross entropy against the labels


def get_args_parser():
    parser = make_parser(__doc__)
    add_data_options(parser)
    add_exit_options(parser)
    parser.set_defaults(temperature=1.0)
    add_optimizer_options(parser, RECIPES)
    add_run_options(parser)
    return parser


def main(args, parser):
    run_exits(args, parser, method="team_ce", schedule=SCHEDULE)


if __name__ == "__main__":
    run(main, get_args_parser())
