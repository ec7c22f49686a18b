"""Command-line options of data, runs and devices, and the values that options take."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

from coviar.files import NO_ROOM
from models import precision
from models.points import EVIDENCE, ROUTES
from training.recipes import METHODS, RESERVED

IMAGENET = "imagenet"  # of --pretrained
HELDOUT = 0.15  # share of the training list, where no --heldout is given


def make_parser(docstring: str) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring as it is and takes no abbreviated flags."""
    return argparse.ArgumentParser(
        description=docstring,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


@contextlib.contextmanager
def refusing(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Bad options and files, and folders that cannot be used, end a script with one line and exit
    code 2. A full disk does not: what a script does about it is its own matter."""
    try:
        yield
    except ValueError as error:
        parser.error(_own_words(error))
    except OSError as error:
        if error.filename is not None and error.errno not in NO_ROOM:
            parser.error(f"cannot read or write {error.filename}: {error.strerror}")
        words = _own_words(error)  # that of a loader's process has no errno
        if words != str(error) and not words.startswith(tuple(f"[Errno {n}]" for n in NO_ROOM)):
            parser.error(f"cannot read or write a video: {words}")
        if not isinstance(error, FileNotFoundError):
            raise
        parser.error(str(error))


def _own_words(error: Exception) -> str:
    """The message alone of an error that PyTorch brings, with its traceback, from a process of a
    loader."""
    text, kind = str(error), type(error)
    if "\nOriginal Traceback " not in text:
        return text
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return text.rpartition(f"\n{name}: ")[2].strip()


@contextlib.contextmanager
def asking_for_room(parser: argparse.ArgumentParser, remedy: str) -> Iterator[None]:
    """A full disk, and a loader process that is killed, as where memory is full, end a script with
    one line, which says what to do then, and exit code 1."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        parser.exit(1, f"{parser.prog}: error: {error.strerror}; make room, then {remedy}\n")
    except RuntimeError as error:
        if not re.match(r"DataLoader worker .*(killed by signal|exited unexpectedly)", str(error)):
            raise
        reason = str(error).splitlines()[0]
        parser.exit(
            1,
            f"{parser.prog}: error: a process of --workers is gone, as where memory is full"
            f" ({reason}); give fewer --workers, then {remedy}\n",
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


def percentage(text: str) -> float:
    value = float(text)
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 100")
    return value


def folder_name(text: str) -> str:
    """The name of a run folder. It may not lead elsewhere."""
    if not text or "/" in text or text.startswith("."):
        raise argparse.ArgumentTypeError(
            f"{text!r} names a run folder, so it has no / and no dot ahead"
        )
    return text


def method_name(text: str) -> str:
    """The name of a run folder for exits with teachers of their own: no other script's."""
    taken = {*RESERVED, *METHODS} - {"prog_kd"}
    if text in taken:
        raise argparse.ArgumentTypeError(f"{text!r} is what another script makes; take a new name")
    return folder_name(text)


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
        f" (default {HELDOUT}); not with --select-on test; 0 with --select-on last trains on the"
        " whole list, after all has been chosen",
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
    group.add_argument("--clips", type=positive_int, default=1, help="per held-out and test video")
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
    group.add_argument(
        "--on-the-fly",
        action="store_true",
        help="the videos are the original files, of any codec: decode and re-encode the windows of"
        " each clip as it is loaded, instead of the whole folder beforehand (docs/long_videos.md)",
    )
    group.add_argument("--workers", type=non_negative_int, default=2, help="loader processes")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    mode = group.add_mutually_exclusive_group()
    mode.add_argument("--is_train", action="store_true", help="train, which is the default")
    mode.add_argument("--evaluate", action="store_true", help="only evaluate on the test list")
    add_location_options(group)
    group.add_argument("--eval-freq", type=positive_int, default=1, help="epochs between tests")
    used = group.add_mutually_exclusive_group()
    used.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    used.add_argument("--overwrite", action="store_true", help="start again in a used folder")
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


def route_word(text: str) -> str:
    """A word that may be a point of a route, or the name of one. The network decides later."""
    if text not in ROUTES and not re.fullmatch(r".+@[1-9]\d*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no point as DEPTH@SEGMENTS, such as full@2, nor a route's name:"
            f" {', '.join(ROUTES)}"
        )
    return text


def add_route_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("exits over time (docs/over_time.md)")
    group.add_argument(
        "--route",
        type=route_word,
        nargs="+",
        metavar="POINT",
        help="decide after some segments: points as DEPTH@SEGMENTS, say exit1@1 full@1 full@2, in"
        " the order in which they are tried (the full network on all segments is always last); or"
        " time: full@1 full@2 ..., or depth_then_time: before these, the exits on one segment, or"
        " streams_then_time: before these, on one segment, residual@1 iframe+residual@1, or"
        " streams_coarse: the latter with only full@1 full@3 and the last."
        " Needs logits of save_logits.py --per-segment, or an .npz with segments",
    )
    group.add_argument(
        "--evidence",
        choices=EVIDENCE,
        default=EVIDENCE[0],
        help="what is averaged over the segments read (default logits, as the network does)",
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
