"""Re-encode videos into the form the loader reads: raw MPEG-4 Part 2, short GOPs, no B-frames.

    python -m coviar.reencode UCF-101 UCF-101-mpeg4 --workers 8

writes UCF-101-mpeg4/ClassName/video.mp4 for every UCF-101/ClassName/video.avi, the same as

    ffmpeg -i IN -vf scale=340:256,setsar=1:1 -q:v 1 -c:v mpeg4 -g 12 -bf 0 -f rawvideo OUT

but with every decoded picture encoded once. FFmpeg 8 scales chroma a little differently from
earlier ones. An output that exists is kept if it was made of the same input, so a run that was
stopped goes on where it was; it is made anew if its input has changed or, without --keep-damaged,
is a part of a damaged one, and never of another input of the same name. OUT/reencode.json lists of
which input each output was made, and the broken ones, which give exit code 1 at the end; the rest
is done.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from coviar.command import INTERRUPTED, run
from coviar.container import open_video
from coviar.convert import FITS, Converter
from coviar.encoder import GOP, QUANTISER, SIZE, make_encoder, naming
from coviar.files import VIDEO_SUFFIXES, sample_digest, whole_file
from coviar.folder import describe
from coviar.outputs import (
    Made,
    check_settings,
    choose,
    describe_input,
    plan,
)
from coviar.source import decode_source


class Encoded(NamedTuple):
    """A re-encoded video: the stream, its number of pictures, what the user should know of it."""

    content: bytes
    count: int
    note: str | None


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="IN", help="a video, or a folder of them")
    parser.add_argument("target", type=Path, metavar="OUT", help="folder for the results")
    parser.add_argument("--workers", type=positive, default=os.cpu_count(), help="videos at a time")
    parser.add_argument("--size", type=_size, default=SIZE, help="WxH (340x256)")
    parser.add_argument("--gop", type=positive, default=GOP, help="pictures per GOP (12)")
    parser.add_argument(
        "--q", type=_quantiser, default=QUANTISER, help="quantiser, 1 best to 31 (1)"
    )
    parser.add_argument(
        "--fit",
        choices=FITS,
        default=FITS[0],
        help="how a picture of another shape comes into the size: stretched (as published), padded"
        " with black, or cropped to its middle",
    )
    parser.add_argument(
        "--keep-damaged",
        action="store_true",
        help="re-encode of cut-off and damaged files what can be decoded",
    )
    parser.add_argument(
        "--prefer",
        type=suffix,
        metavar="SUFFIX",
        help="of files that differ in their suffix only, such as a.avi and a.mov, take this one"
        " (default: none of them, and say so)",
    )
    return parser


def positive(text: str) -> int:
    """For argparse: a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _quantiser(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number in 1..31")
    return int(text)


def _size(text: str) -> tuple:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 340x256")
    size = int(width), int(height)
    if not all(16 <= side <= 4096 for side in size):
        raise argparse.ArgumentTypeError(f"{text!r} has a side outside 16..4096")
    return size


def reencode(
    source: Path,
    target: Path,
    size: tuple,
    gop: int,
    q: int,
    fit: str = "stretch",
    keep_damaged: bool = False,
    on_salvage: Callable[[str], None] | None = None,
) -> Encoded:
    """Re-encode one video; `target` is written whole.

    size: (width, height); q: the quantiser of every picture, 1..31; fit: see Converter. on_salvage:
    called with the reason, before `target` is written, if only a part could be decoded. Raises
    ValueError that names the file if it cannot be decoded, or is cut off or damaged (keep_damaged:
    only if nothing of it can be decoded), OSError if a file cannot be read or written.
    """
    encoded = reencode_in_memory(source, size, gop, q, fit, keep_damaged, on_salvage)
    with whole_file(target) as temporary:
        temporary.write_bytes(encoded.content)
    return encoded


def reencode_in_memory(
    source: Path,
    size: tuple = SIZE,
    gop: int = GOP,
    q: int = QUANTISER,
    fit: str = "stretch",
    keep_damaged: bool = False,
    on_salvage: Callable[[str], None] | None = None,
) -> Encoded:
    """What `reencode` would write; errors alike."""
    rate, pixel_shape = _facts(source)
    encoder = make_encoder(rate, size, gop, q)
    converter = Converter(size, fit, pixel_shape)
    packets, count = [], 0

    def decode():
        problem = yield from decode_source(source, keep_damaged)
        if problem and on_salvage:
            on_salvage(problem)

    def encode(frames):
        nonlocal packets, count
        for frame in frames:
            frame.pict_type = 0  # the encoder chooses, not the input
            frame.pts = count
            frame.time_base = encoder.time_base
            packets += map(bytes, encoder.encode(frame))
            count += 1

    with naming(source):
        for frame in decode():
            encode(converter(frame))
        encode(converter.finish())
    packets += map(bytes, encoder.encode(None))
    return Encoded(b"".join(packets), count, converter.note)


def _facts(source: Path) -> tuple:
    """(pictures per second or None, width / height of a pixel or None)"""
    with open_video(source) as (_, stream):
        return stream.average_rate, stream.sample_aspect_ratio


def check_source(source: Path) -> tuple:
    """Decode all of a file as `reencode` does; (codec, pictures, width, height). Errors alike."""
    with open_video(source) as (_, stream):
        codec, converter = stream.codec_context.name, Converter(SIZE)
    count = width = height = 0
    with naming(source):
        for frame in decode_source(source):
            converter.prepare(frame)
            count, width, height = count + 1, frame.width, frame.height
    return codec, count, width, height


def suffix(text: str) -> str:
    """One of VIDEO_SUFFIXES, with or without its dot."""
    found = f".{text.lower().lstrip('.')}"
    if found not in VIDEO_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text} is no suffix of videos, such as avi or mp4")
    return found


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    settings = {name: getattr(args, name) for name in ("gop", "q", "fit", "prefer")}
    settings = {"size": "x".join(map(str, args.size)), **settings}
    try:
        outputs, others, clashes = plan(args.source, args.target, args.prefer)
        check_settings(args.target, settings)
        made = Made(args.target)
        todo, changed, others_made = choose(outputs, made, args.keep_damaged)
        failed = {**clashes, **others_made}
        videos = len(outputs) + len(clashes)
        report = {"settings": settings, "videos": videos, "failed": failed}
        made.write(report)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{error}; name an OUT that can be written")
    if changed:
        _say(f"changed: {len(changed)} video(s), encoded anew: first {changed[0]}")

    notes, is_stopped = _encode_all(todo, made, report, args)
    try:
        made.write(report)
        is_written = True
    except OSError as error:
        is_written = False
        _say(f"error: the list of these is not written: {error}")
    if is_stopped:
        _say("stopped; the same command goes on from here")
        return INTERRUPTED

    salvaged = {
        str(path): reason
        for output, path in outputs.items()
        if str(path) not in failed and (reason := made.salvaged(output))
    }
    _tell(notes, others, salvaged, failed)
    result = {
        "videos": videos,
        "encoded": len(notes),
        "kept": len(outputs) - len(todo) - len(others_made),
        "salvaged": len(salvaged),
        "failed": len(failed),
        "skipped": sum(others.values()),
        **settings,
    }
    print("result:", json.dumps(result))
    return 1 if failed or not is_written else 0


def _encode_all(
    todo: Mapping[Path, Path], made: Made, report: dict, args: argparse.Namespace
) -> tuple[dict[str, str | None], bool]:
    """Encode the videos, todo: {output: video}; report["failed"] takes those that failed.

    Returns what the user should know of each encoded one, and whether Ctrl-C stopped it.
    """
    options = (args.size, args.gop, args.q, args.fit, args.keep_damaged)

    def make(path: Path, output: Path) -> tuple[str | None, str | None]:
        """What the user should know of a video, and why only a part of it could be decoded."""
        facts = {**describe_input(path), "sample": sample_digest(path)}  # before it grows
        note = reencode(path, output, *options, partial(facts.__setitem__, "salvaged")).note
        made.add(output, facts)
        return note, facts.get("salvaged")

    notes: dict[str, str | None] = {}
    pool = ThreadPoolExecutor(args.workers)  # FFmpeg works outside Python's lock
    try:
        jobs = {pool.submit(make, path, output): path for output, path in todo.items()}
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="video", disable=None):
            path = str(jobs.pop(job))  # a job holds its video, or the error with what it had of it
            try:
                notes[path], is_salvaged = job.result()
                if is_salvaged:  # a run that is killed must not take it for a whole one
                    made.write(report)
            except (ValueError, OSError) as error:
                report["failed"][path] = str(error).replace(f"{path}: ", "")
    except KeyboardInterrupt:
        return notes, True
    finally:
        pool.shutdown(cancel_futures=True)
    return notes, False


def _tell(
    notes: Mapping[str, str | None],
    others: Counter,
    salvaged: Mapping[str, str],
    failed: Mapping[str, str],
) -> None:
    noted = {path: note for path, note in notes.items() if note}
    if noted:
        path, note = min(noted.items())
        more = f" (and {len(noted) - 1} more)" if len(noted) > 1 else ""
        _say(f"note: {path}{more}: {note}")
    if others:
        _say(f"skipped: {describe(others)}")
    if salvaged:
        path, reason = min(salvaged.items())
        _say(f"salvaged: {len(salvaged)} video(s) in part: first {path}: {reason}")
    for path, problem in sorted(failed.items()):
        _say(f"failed: {path}: {problem}")


def _say(words: str) -> None:
    print(words, file=sys.stderr)


if __name__ == "__main__":
    run(main, get_args_parser())
