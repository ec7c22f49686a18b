"""Train the internal classifiers (ICs) with the I-frame stream as the only teacher.

    python train_i_frame.py --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt

This is knowledge distillation without a curriculum. The run folder is
<checkpoint_dir>/<data>/i_frame/<split>_seed<k>/.
"""

from coviar.command import run
from training.options import add_data_options, add_run_options, make_parser
from training.recipes import ANY, RECIPES
from training.script import run_exits
from training.train_options import (
    add_distillation_options,
    add_exit_options,
    add_recipe_options,
)

SCHEDULE = RECIPES["train_i_frame"][ANY].schedule


def get_args_parser():
    parser = make_parser(__doc__)
    add_data_options(parser)
    add_exit_options(parser)
    add_distillation_options(parser)
    add_recipe_options(parser, "train_i_frame")
    add_run_options(parser)
    return parser


def main(args, parser):
    run_exits(args, parser, method="i_frame", schedule=SCHEDULE)


if __name__ == "__main__":
    run(main, get_args_parser())
