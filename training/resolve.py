"""From parsed options to values: recipe, precision, device, paths."""

from __future__ import annotations

import argparse
import glob
from pathlib import Path

import torch

from models import precision
from training import distributed
from training.memory import keep_freed_memory
from training.options import HELDOUT, IMAGENET
from training.recipes import ANY
from training.tensor_file import BEST

# For scripts that read what a run has saved, where no flag names the run.
RUN_DEFAULTS = {
    "checkpoint_dir": Path("runs"),
    "data_name": "ucf101",
    "split": "split1",
    "random_seed": 1,
    "method": "team_ce",
}


def logits_path(args: argparse.Namespace, name: str) -> Path:
    """The file of `--logits`, or `name` in the folder of the run that the other flags name.

    Raises ValueError when both are given.
    """
    given = [flag for flag in RUN_DEFAULTS if getattr(args, flag) is not None]
    if args.logits and given:
        raise ValueError(
            f"--logits names the file, so leave out {', '.join('--' + flag for flag in given)}"
        )
    if args.logits:
        return args.logits
    for flag, value in RUN_DEFAULTS.items():
        if getattr(args, flag) is None:
            setattr(args, flag, value)
    return run_path(args, args.method) / name


def resolve_precision(args: argparse.Namespace) -> None:
    """Replace `--precision auto` by what it means on this machine, and print it.

    args.precision_asked keeps the word; a second call does nothing.
    """
    if "precision_asked" in args:
        return
    args.precision_asked = args.precision
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.precision = precision.resolve(args.precision, device)
    if args.precision_asked == "auto":
        print(f"--precision auto: {args.precision} on this {device.upper()}", flush=True)


def check_backbone_options(args: argparse.Namespace) -> None:
    """Raise ValueError for options that exclude each other; after `distributed.start`.

    Prints a note on options that hardly anyone means.
    """
    if args.warmup and args.lr_schedule == "step":
        raise ValueError("--warmup goes with --lr-schedule cosine")
    if args.warmup >= args.epochs:
        raise ValueError(f"--warmup {args.warmup} does not fit into --epochs {args.epochs}")
    if args.nesterov and args.optimizer != "sgd":
        raise ValueError(f"--nesterov goes with --optimizer sgd, not {args.optimizer}")
    if args.fusion == "sum":
        if args.stream_loss:
            raise ValueError("--stream-loss: with --fusion sum streams have no other loss")
        if "team" in args.freeze:
            raise ValueError("--freeze team: there are no TEAM blocks with --fusion sum")
    if args.train_segments and args.is_shift:
        raise ValueError("--train-segments: --is_shift trains on the --num_segments of the test")
    if args.num_segments and (args.train_segments or 0) > args.num_segments:
        print("note: --train-segments trains on more segments than the --num_segments of the test")
    if args.freeze and not (args.pretrained or args.pretrained_streams):
        print(f"note: --freeze {' '.join(args.freeze)} keeps random weights, without --pretrained")
    parts = args.accumulate * distributed.world_size()
    if args.batch_size < parts:
        raise ValueError(
            f"--batch-size {args.batch_size} cannot be divided into --accumulate {args.accumulate}"
            f" passes times {distributed.world_size()} process(es)"
        )


def resolve_heldout(args: argparse.Namespace) -> None:
    """Set the default share where the user gave none. ValueError for a share without effect."""
    if args.heldout is not None and args.select_on == "test":
        raise ValueError(
            f"--heldout {args.heldout:g} holds out videos to choose models on; leave it out, since"
            " --select-on test chooses on the test videos"
        )
    args.heldout = HELDOUT if args.heldout is None else args.heldout


def resolve_recipe(args: argparse.Namespace) -> None:
    """Set the recipe of args.data_name where the user gave nothing.

    Raises ValueError for --lr-steps beside a cosine.
    """
    if args.lr_steps and getattr(args, "lr_schedule", "step") == "cosine":
        raise ValueError("--lr-steps goes with --lr-schedule step; a cosine has no steps")
    recipe = args.recipes.get(args.data_name, args.recipes[ANY])
    for key in ("lr", "batch_size", "epochs", "lr_steps", "wd"):
        if getattr(args, key) is None:
            setattr(args, key, getattr(recipe, key))
    del args.recipes


def stream_sources(args: argparse.Namespace) -> dict[str, str]:
    """The sources of --pretrained-streams, by stream.

    Raises FileNotFoundError, and ValueError for a stream that is named twice and for a
    --weights-dir without effect.
    """
    sources = dict(args.pretrained_streams)
    if len(sources) < len(args.pretrained_streams):
        raise ValueError("--pretrained-streams names a stream twice")
    for name, source in sources.items():
        if source != IMAGENET and not Path(source).is_file():
            raise FileNotFoundError(f"--pretrained-streams {name}={source}: there is no such file")
    if args.weights_dir and IMAGENET not in (args.pretrained, *sources.values()):
        raise ValueError(
            f"--weights-dir {args.weights_dir} holds ImageNet weights, and nothing starts from"
            f" them: add --pretrained {IMAGENET}, or leave it out"
        )
    return sources


def choose_device(gpus: list[int] | None) -> torch.device:
    """The device of `--gpus ID ...`; the CPU where the machine has no GPU.

    A single process takes the named or first GPU. The k-th process of torchrun on a host takes the
    k-th GPU.
    Raises ValueError when there is no such device.
    """
    number = distributed.local_rank()
    if gpus and not distributed.launched() and len(gpus) > 1:
        raise ValueError(
            f"--gpus takes one id, since one process drives one device; got {gpus}. For"
            f" more: torchrun --nproc_per_node={len(gpus)} SCRIPT ..."
        )
    if not torch.cuda.is_available():
        if gpus:
            print(f"--gpus {gpus[0]}: no CUDA device on this machine, running on the CPU")
        keep_freed_memory()
        return torch.device("cpu")
    ids = gpus or range(torch.cuda.device_count())
    if number >= len(ids):
        raise ValueError(f"process {number} of this host has no GPU: {len(ids)} are named or there")
    if ids[number] >= torch.cuda.device_count():
        raise ValueError(
            f"--gpus {ids[number]}: this machine has {torch.cuda.device_count()} CUDA device(s)"
        )
    return torch.device("cuda", ids[number])


def run_path(args: argparse.Namespace, method: str) -> Path:
    """`<checkpoint_dir>/<data>/<method>/<split>_seed<k>`."""
    return args.checkpoint_dir / args.data_name / method / f"{args.split}_seed{args.random_seed}"


def find_backbone(args: argparse.Namespace) -> Path:
    """The backbone the exits stand on: --pretrained, else the run of the same data and split.

    A run of the same seed is taken where one has begun; a single run of another seed serves all
    seeds (the paper has one backbone per split). Raises FileNotFoundError when there is none, or no
    single one, and ValueError when its run is not finished.
    """
    if args.pretrained:
        path = Path(args.pretrained)
        if not path.is_file():
            raise FileNotFoundError(f"--pretrained {path} is no file")
        return path
    run = run_path(args, "team_net")
    others = sorted(run.parent.glob(f"{glob.escape(args.split)}_seed*/{BEST}"))
    if not (run / BEST).is_file() and not (run / "args.json").is_file():
        if len(others) != 1:
            found = f"more than one: {', '.join(map(str, others))}" if others else "none"
            raise FileNotFoundError(
                f"a trained backbone is needed; looked for {run / BEST} and for one of another"
                f" seed, found {found}. Train one with train_team_net.py, or name one with"
                " --pretrained FILE"
            )
        run = others[0].parent
    path = run / BEST
    if (run / "args.json").is_file() and not (path.is_file() and (run / "result.json").is_file()):
        known = f"its best so far with --pretrained {path}"
        raise ValueError(
            f"the run {run} of the backbone is not finished: go on with it (--resume), or name"
            f" {known if path.is_file() else 'another backbone with --pretrained FILE'}"
        )
    return path
