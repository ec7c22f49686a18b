"""Which logits file a script works on: `--logits FILE`, or the flags that name its run folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from early_exit.logits import LogitsError, LogitsFile
from training.options import METHODS, run_path

LOGITS_NAME = "logits.pt"
WISE_NAME = "wise.json"
RUN_DEFAULTS = {
    "checkpoint_dir": Path("runs"),
    "data_name": "ucf101",
    "split": "split1",
    "random_seed": 1,
    "method": "team_ce",
}


def add_logits_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("logits (--logits FILE, or the flags of a run)")
    group.add_argument("--logits", type=Path, help="a file written by save_logits.py")
    group.add_argument("--checkpoint_dir", type=Path, help="root of the run folders (default runs)")
    group.add_argument("--data-name", help="(default ucf101)")
    group.add_argument("--split", help="(default split1)")
    group.add_argument("--random_seed", type=int, help="(default 1)")
    group.add_argument("--method", help=f"{', '.join(METHODS)}, or your own (default team_ce)")


def load_logits(
    args: argparse.Namespace, parser: argparse.ArgumentParser
) -> tuple[Path, LogitsFile]:
    """The file the options name, and its content; ends in parser.error when there is none."""
    given = [flag for flag in RUN_DEFAULTS if getattr(args, flag) is not None]
    if args.logits and given:
        parser.error(f"--logits names the file, so leave out {', '.join('--' + f for f in given)}")
    if args.logits:
        path = args.logits
    else:
        for flag, value in RUN_DEFAULTS.items():
            if getattr(args, flag) is None:
                setattr(args, flag, value)
        path = run_path(args, args.method) / LOGITS_NAME
    try:
        return path, LogitsFile.load(path)
    except (FileNotFoundError, LogitsError) as error:
        parser.error(str(error))
