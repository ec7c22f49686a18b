"""Command-line options of the training scripts: recipe, network, exits, distillation."""

from __future__ import annotations

import argparse
from pathlib import Path

from models import PUBLISHED_NETWORK, STREAMS
from models.team_net import FUSIONS
from models.team_net_ic import CONCAT, IC_POOLS
from training.options import (
    add_data_options,
    add_run_options,
    fraction,
    make_parser,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
)
from training.recipes import ANY, RECIPES


def add_recipe_options(parser: argparse.ArgumentParser, script: str) -> None:
    """The options that a row of recipes.txt fills; `resolve_recipe` does so after parsing."""
    recipes = RECIPES[script]

    def default(key: str) -> str:
        base = getattr(recipes[ANY], key)
        own = {name: getattr(recipe, key) for name, recipe in recipes.items()}
        others = "".join(f"; {name} {value}" for name, value in own.items() if value != base)
        return f"(default {base}{others})"

    group = parser.add_argument_group("optimisation (defaults: the published recipe)")
    group.add_argument("--lr", type=positive_float, help=default("lr"))
    group.add_argument("--batch-size", type=positive_int, help=default("batch_size"))
    group.add_argument("--epochs", type=positive_int, help=default("epochs"))
    group.add_argument(
        "--lr-steps",
        type=positive_int,
        nargs="+",
        help="epochs after which lr falls to a tenth; not with --lr-schedule cosine"
        f" {default('lr_steps')}",
    )
    group.add_argument("--wd", type=non_negative_float, help=f"weight decay {default('wd')}")
    parser.set_defaults(recipes=recipes)


def add_backbone_options(parser: argparse.ArgumentParser) -> None:
    def default(name: str) -> str:
        return f"(default {PUBLISHED_NETWORK[name]})"

    group = parser.add_argument_group("network (with --evaluate, the checkpoint's)")
    group.add_argument(
        "--arch",
        help="I-frame stream: a torchvision resnet, mobilenet, efficientnet, convnext or regnet"
        f" {default('arch')}",
    )
    group.add_argument(
        "--motion-arch", help=f"MV and residual streams, likewise {default('motion_arch')}"
    )
    group.add_argument("--num_segments", type=positive_int, help=f"T {default('num_segments')}")
    group.add_argument("--crop-size", type=positive_int, help=f"pixels {default('crop_size')}")
    group.add_argument(
        "--is_shift", action="store_true", default=None, help="temporal shift module (TSM)"
    )
    group.add_argument("--dropout", type=fraction, help=f"before classifiers {default('dropout')}")
    group.add_argument(
        "--pretrained",
        help="imagenet, or a checkpoint of these scripts or of the published code"
        " (a classifier for other classes is replaced); default: from scratch",
    )
    group.add_argument(
        "--pretrained-streams",
        type=stream_source,
        nargs="+",
        default=[],
        metavar="STREAM=SOURCE",
        help="iframe, mv or residual: where a single stream starts instead, imagenet or a"
        " checkpoint of these scripts, of which it takes the stream of the same name",
    )
    group.add_argument(
        "--weights-dir",
        type=Path,
        help="of torchvision's ImageNet weights (default: torch's hub cache, with download)",
    )
    add_scratch_options(parser)
    add_process_options(parser)


def stream_source(text: str) -> tuple[str, str]:
    """STREAM=SOURCE: a stream, and what its weights start from."""
    name, _, source = text.partition("=")
    if name not in STREAMS or not source:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not STREAM=SOURCE with one of {', '.join(STREAMS)}"
        )
    return name, source


def add_scratch_options(parser: argparse.ArgumentParser) -> None:
    """What helps training from scratch on small data; the defaults are the published recipe."""
    group = parser.add_argument_group("training from scratch (defaults: the published recipe)")
    group.add_argument(
        "--classifier-lr-scale",
        type=positive_float,
        nargs=2,
        default=[5.0, 10.0],
        metavar=("WEIGHT", "BIAS"),
        help="of the streams' classifiers, times lr (default 5 10; 1 1 from scratch)",
    )
    group.add_argument("--lr-schedule", choices=("step", "cosine"), default="step")
    group.add_argument(
        "--warmup",
        type=non_negative_int,
        default=0,
        help="epochs of linear rise before the cosine",
    )
    group.add_argument(
        "--stream-loss",
        type=non_negative_float,
        default=0.0,
        help="weight of the streams' own cross entropy: better streams are better teachers",
    )
    group.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    group.add_argument(
        "--label-smoothing", type=fraction, default=0.0, help="of the training labels"
    )
    group.add_argument(
        "--mixup",
        type=positive_float,
        metavar="ALPHA",
        help="mix clips and labels by shares from Beta(ALPHA, ALPHA) (try 0.4; default: do not)",
    )
    group.add_argument(
        "--ema",
        type=fraction,
        default=0.0,
        metavar="DECAY",
        help="evaluate and keep the running mean of the weights, which forgets by this per step"
        " (try 0.99; default 0: the weights as they are)",
    )


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """For several processes (torchrun --nproc_per_node=N ...), small GPUs and long epochs."""
    group = parser.add_argument_group(
        "processes",
        "torchrun --nproc_per_node=N SCRIPT ... trains in N processes. --batch-size and --lr are"
        " those of an optimizer step, whatever N and --accumulate: a batch is divided, the rate"
        " stays. Change --lr by the factor that you change --batch-size by (Goyal et al. 2017).",
    )
    group.add_argument(
        "--accumulate",
        type=positive_int,
        default=1,
        metavar="N",
        help="divide a batch into N passes as well, for GPUs that cannot hold it (default 1)",
    )
    group.add_argument(
        "--sync-bn",
        action="store_true",
        help="BatchNorm statistics over the processes' clips of a pass, not over each one's own",
    )
    group.add_argument(
        "--save-steps",
        type=positive_int,
        metavar="N",
        help="write a checkpoint every N steps, not only after each epoch",
    )


def add_frozen_options(
    parser: argparse.ArgumentParser,
    no_views: str = "a fresh view every epoch, and none in the bank",
) -> None:
    """The frozen backbone and how its views are made; no_views: what --views 0 means."""
    group = parser.add_argument_group("frozen backbone")
    group.add_argument(
        "--pretrained",
        help="backbone checkpoint, ours or a published one (default: best.pt of the run of the"
        " same data and split under --checkpoint_dir)",
    )
    for flag, words in (
        ("--arch", "I-frame stream"),
        ("--motion-arch", "MV and residual streams"),
    ):
        group.add_argument(flag, help=f"{words}; read from the backbone, an error if it differs")
    group.add_argument("--num_segments", type=positive_int, help="T; likewise")
    group.add_argument("--is_shift", action="store_true", default=None, help="TSM; likewise")
    group.add_argument("--dropout", type=fraction, help="likewise")
    group.add_argument("--fusion", choices=FUSIONS, help="likewise")
    group.add_argument("--crop-size", type=positive_int, help="likewise, in pixels")
    group.add_argument(
        "--views",
        type=non_negative_int,
        default=10,
        help="augmented views of each training video in the bank; epochs take them in turn."
        f" 0: {no_views} (default 10)",
    )
    group.add_argument(
        "--cache-dir", type=Path, help="of the bank (default <checkpoint_dir>/<data>/views)"
    )
    group.add_argument(
        "--bank-dtype",
        choices=("float16", "float32"),
        default="float16",
        help="of the training views' squeeze vectors: float16 halves the disk and rounds by 0.05%%,"
        " less than the network's own bf16; other views are float32 always (default float16)",
    )
    group.add_argument(
        "--data-seed",
        type=non_negative_int,
        default=0,
        help="of the views; the same for all methods and seeds",
    )
    group.add_argument(
        "--feature-batch", type=positive_int, default=16, help="clips per forward pass"
    )


def add_exit_options(parser: argparse.ArgumentParser) -> None:
    """Exits, views and backbone of the IC scripts."""
    add_frozen_options(parser)
    group = parser.add_argument_group("exits")
    group.add_argument(
        "--exits",
        type=int,
        nargs="+",
        choices=(1, 2, 3, 4),
        default=[1, 2, 3],
        help="TEAM blocks that get an exit (default 1 2 3)",
    )
    group.add_argument(
        "--ic-pool",
        choices=IC_POOLS,
        default=CONCAT,
        help="what an exit reads: the squeeze vectors of all segments side by side (default, as"
        " published), or their mean, trained on random subsets of the segments: it has an answer"
        " after each segment (docs/over_time.md)",
    )


def exit_parser(docstring: str, script: str, has_schedule: bool = False) -> argparse.ArgumentParser:
    """The options of the script of this name, which trains exits.

    has_schedule: whether the teachers are an option.
    """
    parser = make_parser(docstring)
    add_data_options(parser)
    add_exit_options(parser)
    schedule = RECIPES[script][ANY].schedule
    if schedule == "labels":
        parser.set_defaults(temperature=1.0)
    else:
        add_distillation_options(parser, schedule if has_schedule else None)
    add_recipe_options(parser, script)
    add_run_options(parser)
    return parser


def add_distillation_options(parser: argparse.ArgumentParser, schedule: str | None = None) -> None:
    """Temperature; and the teachers, where `schedule` is the default of an option."""
    group = parser.add_argument_group("distillation")
    if schedule:
        group.add_argument(
            "--schedule",
            default=schedule,
            help="teachers in turn with their epochs, the last one without; of mv, residual,"
            " iframe, fused, labels, and of weakest, middle, strongest, which are the streams by"
            f" their top-1 where epochs are chosen (default {schedule})",
        )
    add_unlabelled_option(group)
    group.add_argument(
        "--T",
        "--temperature",
        dest="temperature",
        type=positive_float,
        default=1.0,
        help="softmax temperature of student and teacher (default 1)",
    )


def add_unlabelled_option(group: argparse._ActionsContainer, required: bool = False) -> None:
    group.add_argument(
        "--unlabelled",
        type=Path,
        metavar="LIST",
        required=required,
        help="further videos, under --data-root, that the exits learn from the teachers; a line is"
        " a path, and what else it says is not read. The teacher `labels` says nothing of them",
    )
