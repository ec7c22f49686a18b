"""Train the internal classifiers (ICs) with plain cross entropy: the baseline.

    python train_team_ce.py --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt

The frozen backbone is the run of the same data and split, or --pretrained FILE. The run folder is
<checkpoint_dir>/<data>/team_ce/<split>_seed<k>/.
"""

from coviar.command import run
from training.options import add_data_options, add_run_options, make_parser
from training.recipes import ANY, RECIPES
from training.script import run_exits
from training.train_options import add_exit_options, add_recipe_options

SCHEDULE = RECIPES["train_team_ce"][ANY].schedule


def get_args_parser():
    parser = make_parser(__doc__)
    add_data_options(parser)
    add_exit_options(parser)
    parser.set_defaults(temperature=1.0)
    add_recipe_options(parser, "train_team_ce")
    add_run_options(parser)
    return parser


def main(args, parser):
    run_exits(args, parser, method="team_ce", schedule=SCHEDULE)


if __name__ == "__main__":
    run(main, get_args_parser())
