"""Command-line options that several scripts share, in argparse groups, and their checks."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from models import precision
from training import distributed

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
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value


def add_data_options(parser: argparse.ArgumentParser, data_name: str = "ucf101") -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--data-name", default=data_name, help="ucf101, hmdb51, kinetic400, or any")
    group.add_argument("--data-root", required=True, type=Path, help="folder of the videos")
    group.add_argument("--train-list", required=True, type=Path, help="list file, three columns")
    group.add_argument("--test-list", required=True, type=Path, help="list file, three columns")
    group.add_argument("--split", default="split1", help="name of the split, for the run folder")
    group.add_argument(
        "--heldout",
        type=fraction,
        default=0.15,
        help="share of the training list held out by group for choosing models (default 0.15)",
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
    mode.add_argument("--is_train", action="store_true", help="train (the default mode)")
    mode.add_argument("--evaluate", action="store_true", help="only evaluate on the test list")
    add_location_options(group)
    group.add_argument("--eval-freq", type=positive_int, default=1, help="epochs between tests")
    group.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    group.add_argument("--overwrite", action="store_true", help="start again in a used folder")
    group.add_argument("--tensorboard", action="store_true", help="log to TensorBoard as well")
    add_device_options(group)


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
        "--gpus", type=int, nargs="+", help="CUDA device ids, one per process (none: the CPU)"
    )
    group.add_argument(
        "--precision",
        choices=precision.CHOICES,
        default="fp32",
        help="of the network's arithmetic; auto: bf16 where the device computes it, else fp32"
        " (default fp32, as published)",
    )


def resolve_precision(args: argparse.Namespace) -> None:
    """Put what `--precision auto` means on this machine in its place, and say so.

    args.precision_asked keeps the word; a second call does nothing.
    """
    if "precision_asked" in args:
        return
    args.precision_asked = args.precision
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.precision = precision.resolve(args.precision, device)
    if args.precision_asked == "auto":
        print(f"--precision auto: {args.precision} on this {device.upper()}", flush=True)


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
        help=f"epochs after which lr falls to a tenth {default('lr_steps')}",
    )
    group.add_argument("--wd", type=float, help=f"weight decay {default('wd')}")
    parser.set_defaults(recipes=recipes)


def resolve_recipe(args: argparse.Namespace) -> None:
    """Put the recipe of args.data_name where the user gave nothing."""
    recipe = {**args.recipes["default"], **args.recipes.get(args.data_name, {})}
    for key, value in recipe.items():
        if getattr(args, key) is None:
            setattr(args, key, value)
    del args.recipes


def check_files(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End in parser.error, before anything long starts, when named files are not there."""
    if not args.data_root.is_dir():
        parser.error(f"--data-root {args.data_root} is no folder")
    for flag in ("train_list", "test_list"):
        path = getattr(args, flag)
        if not path.is_file():
            parser.error(f"--{flag.replace('_', '-')} {path} is no file")


def choose_device(gpus: list[int] | None, parser: argparse.ArgumentParser) -> torch.device:
    """The device of `--gpus ID ...`, the CPU where the machine has no GPU.

    One process takes the named or first GPU; torchrun's k-th on a host takes the k-th of them.
    """
    number = distributed.local_rank()
    if gpus and not distributed.launched() and len(gpus) > 1:
        parser.error(
            f"--gpus takes one id, since one process drives one device; got {gpus}. For"
            f" more: torchrun --nproc_per_node={len(gpus)} {parser.prog} ..."
        )
    if not torch.cuda.is_available():
        if gpus:
            print(f"--gpus {gpus[0]}: no CUDA device on this machine, running on the CPU")
        return torch.device("cpu")
    ids = gpus or range(torch.cuda.device_count())
    if number >= len(ids):
        parser.error(f"process {number} of this host has no GPU: {len(ids)} are named or there")
    if ids[number] >= torch.cuda.device_count():
        parser.error(
            f"--gpus {ids[number]}: this machine has {torch.cuda.device_count()} CUDA device(s)"
        )
    return torch.device("cuda", ids[number])


def run_path(args: argparse.Namespace, method: str) -> Path:
    """`<checkpoint_dir>/<data>/<method>/<split>_seed<k>`."""
    return args.checkpoint_dir / args.data_name / method / f"{args.split}_seed{args.random_seed}"


def find_backbone(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Path:
    """The backbone the exits stand on: --pretrained, else the run of the same data and split.

    A run of the same seed is preferred; a single run of another seed serves all seeds (the paper
    has one backbone per split). Ends in parser.error when there is none, or no single one.
    """
    if args.pretrained:
        path = Path(args.pretrained)
        if not path.is_file():
            parser.error(f"--pretrained {path} is no file")
        return path
    own = run_path(args, "team_net") / "best.pt"
    if own.is_file():
        return own
    others = sorted(own.parent.parent.glob(f"{args.split}_seed*/best.pt"))
    if len(others) == 1:
        return others[0]
    found = f"more than one: {', '.join(map(str, others))}" if others else "none"
    parser.error(
        f"a trained backbone is needed; looked for {own} and for one of another seed, found"
        f" {found}. Train one with train_team_net.py, or name one with --pretrained FILE"
    )
