"""Train the internal classifiers (ICs) with Progressive KD: weakest teacher first.

    python train_prog_kd.py --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt

The teachers are the frozen backbone's own streams: motion vectors, then residuals, then I-frames
(PKD paper, section 3). Another curriculum is, for example, --schedule mv:10,fused --method
mv_then_fused. With --schedule weakest:3,middle:3,strongest, top-1 on held-out videos sets their
order. The run folder is <checkpoint_dir>/<data>/<method>/<split>_seed<k>/.
"""

from coviar.command import run
from training.options import add_data_options, add_run_options, folder_name, make_parser
from training.recipes import ANY, RECIPES
from training.script import run_exits
from training.train_options import (
    add_distillation_options,
    add_exit_options,
    add_recipe_options,
)

SCHEDULE = RECIPES["train_prog_kd"][ANY].schedule


def get_args_parser():
    parser = make_parser(__doc__)
    add_data_options(parser)
    add_exit_options(parser)
    add_distillation_options(parser, SCHEDULE)
    parser.add_argument(
        "--method", type=folder_name, default="prog_kd", help="name of the run folder (prog_kd)"
    )
    add_recipe_options(parser, "train_prog_kd")
    add_run_options(parser)
    return parser


def main(args, parser):
    run_exits(args, parser, method=args.method, schedule=args.schedule)


if __name__ == "__main__":
    run(main, get_args_parser())
