"""Command-line options that several scripts share, in argparse groups, and their checks."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from models import STREAMS, precision
from models.team_net import FUSIONS

HELDOUT = 0.15  # share of the training list, where no --heldout is given
METHODS = ("team_ce", "prog_kd", "prog_kd_anti", "i_frame")


def make_parser(docstring: str) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring as it is and takes no abbreviated flags."""
    return argparse.ArgumentParser(
        description=docstring,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value


def non_negative_int(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def non_negative_float(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number from 0 on")
    return value


def fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value


def open_fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and below 1")
    return value


def probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: probabilities lie in 0 to 1")
    return value


def stream_source(text: str) -> tuple[str, str]:
    """STREAM=SOURCE: a stream, and what its weights start from."""
    name, _, source = text.partition("=")
    if name not in STREAMS or not source:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not STREAM=SOURCE with one of {', '.join(STREAMS)}"
        )
    return name, source


def folder_name(text: str) -> str:
    """A name that run folders get, so that no run is written elsewhere."""
    if not text or "/" in text or text.startswith("."):
        raise argparse.ArgumentTypeError(
            f"{text!r} names a run folder, so it has no / and no dot ahead"
        )
    return text


def add_data_options(parser: argparse.ArgumentParser, data_name: str = "ucf101") -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data-name",
        type=folder_name,
        default=data_name,
        help="ucf101, hmdb51, kinetic400, or any",
    )
    group.add_argument("--data-root", required=True, type=Path, help="folder of the videos")
    group.add_argument("--train-list", required=True, type=Path, help="list file, three columns")
    group.add_argument("--test-list", required=True, type=Path, help="list file, three columns")
    group.add_argument(
        "--split", type=folder_name, default="split1", help="name of the split, for the run folder"
    )
    group.add_argument(
        "--heldout",
        type=fraction,
        help="share of the training list held out by group for choosing models"
        f" (default {HELDOUT}); not with --select-on test",
    )
    group.add_argument(
        "--select-on",
        choices=("heldout", "test", "last"),
        default="heldout",
        help="where the best epoch is chosen; test is the published protocol (it flatters),"
        " and trains on the whole training list; last chooses nothing and keeps the last epoch:"
        " better than a choice on few held-out videos",
    )
    group.add_argument(
        "--independent-crops",
        action="store_true",
        help="crop and flip each modality on its own, as the published code does",
    )
    group.add_argument(
        "--no-flip", action="store_true", help="for classes that differ by left and right"
    )
    group.add_argument("--clips", type=positive_int, default=1, help="test clips per video")
    group.add_argument("--crops", type=int, choices=(1, 3, 5), default=1, help="crops per clip")
    group.add_argument(
        "--on-bad-video",
        choices=("error", "skip"),
        default="error",
        help="skip: leave unreadable videos out, and say so in the protocol (default error)",
    )
    group.add_argument(
        "--index-dir", type=Path, help="of the index of the videos (default: in --data-root)"
    )
    group.add_argument("--workers", type=non_negative_int, default=2, help="loader processes")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    mode = group.add_mutually_exclusive_group()
    mode.add_argument("--is_train", action="store_true", help="train, which is the default")
    mode.add_argument("--evaluate", action="store_true", help="only evaluate on the test list")
    add_location_options(group)
    group.add_argument("--eval-freq", type=positive_int, default=1, help="epochs between tests")
    group.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    group.add_argument("--overwrite", action="store_true", help="start again in a used folder")
    group.add_argument("--tensorboard", action="store_true", help="log to TensorBoard as well")
    add_device_options(group)


def add_logits_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("logits (--logits FILE, or the flags of a run)")
    group.add_argument("--logits", type=Path, help="a file written by save_logits.py")
    group.add_argument("--checkpoint_dir", type=Path, help="root of the run folders (default runs)")
    group.add_argument("--data-name", type=folder_name, help="(default ucf101)")
    group.add_argument("--split", type=folder_name, help="(default split1)")
    group.add_argument("--random_seed", type=non_negative_int, help="(default 1)")
    group.add_argument(
        "--method",
        type=folder_name,
        help=f"{', '.join(METHODS)}, or your own (default team_ce)",
    )


def add_location_options(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--checkpoint_dir",
        type=Path,
        default=Path("runs"),
        help="root of the run folders <data>/<method>/<split>_seed<k> (default runs)",
    )
    group.add_argument(
        "--random_seed",
        type=non_negative_int,
        default=1,
        help="weights, order, dropout; names the run folder (default 1)",
    )


def add_device_options(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--gpus",
        type=non_negative_int,
        nargs="+",
        help="CUDA device ids, one per process (none: the CPU)",
    )
    group.add_argument(
        "--precision",
        choices=precision.CHOICES,
        default="fp32",
        help="of the network's arithmetic; auto: bf16 where the device computes it, else fp32"
        " (default fp32, as published)",
    )


def add_optimizer_options(parser: argparse.ArgumentParser, recipes: dict[str, dict]) -> None:
    """lr, epochs ... whose defaults depend on the data set: `recipes[data_name]`, which overrides
    `recipes["default"]`; `resolve_recipe` fills them in after parsing."""
    base, others = recipes["default"], {k: v for k, v in recipes.items() if k != "default"}

    def default(key: str) -> str:
        exceptions = "".join(f"; {name} {own[key]}" for name, own in others.items() if key in own)
        return f"(default {base[key]}{exceptions})"

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
    group = parser.add_argument_group("network (with --evaluate, the checkpoint's)")
    group.add_argument(
        "--arch",
        help="I-frame stream: a torchvision resnet, mobilenet, efficientnet, convnext or regnet"
        " (default resnet50)",
    )
    group.add_argument("--motion-arch", help="MV and residual streams, likewise (default resnet18)")
    group.add_argument("--num_segments", type=positive_int, help="T (default 8)")
    group.add_argument("--crop-size", type=positive_int, help="pixels (default 224)")
    group.add_argument(
        "--is_shift", action="store_true", default=None, help="temporal shift module (TSM)"
    )
    group.add_argument("--dropout", type=fraction, help="before classifiers (default 0.5)")
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


def add_distillation_options(parser: argparse.ArgumentParser, schedule: str | None = None) -> None:
    """Temperature, and the curriculum where the script lets it be chosen."""
    group = parser.add_argument_group("distillation")
    if schedule:
        group.add_argument(
            "--schedule",
            default=schedule,
            help="teachers in turn with their epochs, the last one without; of mv, residual,"
            " iframe, fused, labels, and of weakest, middle, strongest, which are the streams by"
            f" their top-1 where epochs are chosen (default {schedule})",
        )
    group.add_argument(
        "--T",
        "--temperature",
        dest="temperature",
        type=positive_float,
        default=1.0,
        help="softmax temperature of student and teacher (default 1)",
    )
