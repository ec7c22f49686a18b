"""Decode every video of a folder or list, and say what is in each and what is wrong with it.

    python -m coviar.check UCF-101-mpeg4
    python -m coviar.check trainlist01.txt --data-root UCF-101-mpeg4

prints a line per video: its state, frames, GOPs, picture size, path and, unless the state is "ok",
the reason. The states:

    ok        can be loaded as it is, no need to re-encode
    convert   whole, but coviar.reencode has to convert it: another codec, B-frames, turned ...
    damaged   can be loaded, but the decoder had to conceal errors
    unusable  cut off, damaged beyond that, or no video at all

`ok` and `convert` are the files that coviar.reencode takes.

Exit code 1 if any video is not "ok".
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from coviar.command import run
from coviar.decode import CorruptVideoWarning, decode
from coviar.files import VIDEO_SUFFIXES
from coviar.folder import describe, list_folder
from coviar.index import read_index
from coviar.reencode import check_source, positive

STATES = ("ok", "convert", "damaged", "unusable")


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, metavar="DIR_OR_LIST", help="a folder, a video, or a list file"
    )
    parser.add_argument(
        "--data-root", type=Path, help="where a list's paths begin (default: the list's folder)"
    )
    parser.add_argument("--workers", type=positive, default=os.cpu_count(), help="videos at a time")
    return parser


class Finding(NamedTuple):
    """What a video is: its state, what it holds (0 where unknown), and why it is not ok."""

    state: str
    frames: int = 0
    gops: int = 0
    width: int = 0
    height: int = 0
    reason: str = ""
    codec: str = "mpeg4"


def check(path: Path) -> Finding:
    """Decode a whole video. Nothing is raised: whatever is wrong is in the Finding."""
    facts = ()
    decoded, corrupt = 0, Counter()
    try:
        index = read_index(path)
        facts = (index.num_frames, index.num_gops, index.width, index.height)
        last_of = {gop: length - 1 for gop, length in enumerate(index.gop_lengths)}
        for gop, _, frame in decode(index, last_of):
            decoded += 1
            corrupt[gop] += frame.is_corrupt
    except (ValueError, OSError) as error:
        if facts:
            return Finding("unusable", *facts, _reason(error, path))
        return _check_source(path, _reason(error, path))
    if decoded < index.num_frames:
        return Finding("unusable", *facts, f"{index.num_frames - decoded} pictures are lost")
    places = [f"GOP {gop} ({count} pictures)" for gop, count in corrupt.items() if count]
    return Finding("damaged" if places else "ok", *facts, ", ".join(places))


def _check_source(path: Path, why_not_loaded: str) -> Finding:
    """What a file is that cannot be loaded as it is."""
    try:
        codec, count, width, height = check_source(path)
    except (ValueError, OSError) as error:
        return Finding("unusable", reason=_reason(error, path))
    return Finding("convert", count, 0, width, height, why_not_loaded, codec)


def _reason(error: Exception, path: Path) -> str:
    return str(error).replace(f"{path}: ", "")


def main(
    args: argparse.Namespace,
    parser: argparse.ArgumentParser,
    read_paths: Callable[[Path, Path], list[Path]],
) -> int:
    """read_paths: the videos of a list file, whose paths begin in a folder."""
    if not args.source.exists():
        parser.error(f"{args.source} does not exist")
    is_list = not args.source.is_dir() and args.source.suffix.lower() not in VIDEO_SUFFIXES
    if args.data_root and not is_list:
        parser.error("--data-root is for a list file")
    others = Counter()
    if args.source.is_dir():
        names, others = list_folder(args.source)
        paths = [args.source / name for name in names]
    elif is_list:
        try:
            paths = read_paths(args.source, args.data_root or args.source.parent)
        except (ValueError, OSError) as error:
            parser.error(str(error))
    else:
        paths = [args.source]
    if not paths:
        parser.error(f"{args.source} holds no video")

    states, frames = Counter(dict.fromkeys(STATES, 0)), 0
    with warnings.catch_warnings(), contextlib.ExitStack() as at_end:
        pool = ThreadPoolExecutor(args.workers)
        at_end.callback(pool.shutdown, cancel_futures=True)  # Ctrl-C does not wait for the rest
        warnings.simplefilter("ignore", CorruptVideoWarning)  # it is in the findings
        findings = tqdm(pool.map(check, paths), total=len(paths), unit="video", disable=None)
        for path, found in zip(paths, findings):
            states[found.state] += 1
            frames += found.frames
            facts = (
                ""
                if not found.frames
                else f"{found.frames:6} frames {found.gops:4} GOPs {found.width}x{found.height}"
            )
            if found.codec != "mpeg4":
                facts = f"{found.frames:6} pictures {found.width}x{found.height} {found.codec}"
            reason = f"  ({found.reason})" if found.reason else ""
            tqdm.write(f"{found.state:8} {facts:31} {path}{reason}")
    if others:
        print(f"skipped: {describe(others)}", file=sys.stderr)
    counts = {"videos": len(paths), **states, "frames": frames, "skipped": sum(others.values())}
    print("result:", json.dumps(counts))
    return 0 if states["ok"] == len(paths) else 1


if __name__ == "__main__":
    from dataset_team.records import read_paths

    run(functools.partial(main, read_paths=read_paths), get_args_parser())
