"""Re-encode videos into the form the loader reads: raw MPEG-4 Part 2, short GOPs, no B-frames.

    python -m coviar.reencode UCF-101 UCF-101-mpeg4 --workers 8

writes UCF-101-mpeg4/ClassName/video.mp4 for every UCF-101/ClassName/video.avi, the same as

    ffmpeg -i IN -vf scale=340:256,setsar=1:1 -q:v 1 -c:v mpeg4 -g 12 -bf 0 -f rawvideo OUT

but with every decoded picture encoded once. Outputs that exist are kept, so a run that was stopped
goes on where it was. A broken input is listed in OUT/reencode.json and gives exit code 1 at the
end; the rest is done.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from coviar.files import VIDEO_SUFFIXES, whole_file
from coviar.index import CONTAINER_OPTIONS

REPORT = "reencode.json"
# What the field trains on, after CoViAR.
SIZE = (340, 256)  # width, height
GOP = 12
QUANTISER = 1

_LAMBDA_PER_Q = 118  # FF_QP2LAMBDA, the unit of FFmpeg's global_quality
_MAX_TICKS = 65535  # MPEG-4 counts time in 16 bits


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


def reencode(source: Path, target: Path, size: tuple, gop: int, q: int) -> int:
    """Re-encode one video and return its number of pictures; `target` is written whole.

    size: (width, height); q: the quantiser of every picture, 1..31. Raises ValueError if any
    picture of the input is damaged or missing, OSError if a file cannot be read or written.
    """
    content, count = reencode_in_memory(source, size, gop, q)
    with whole_file(target) as temporary:
        temporary.write_bytes(content)
    return count


def reencode_in_memory(
    source: Path, size: tuple = SIZE, gop: int = GOP, q: int = QUANTISER
) -> tuple:
    """What `reencode` would write, as (bytes, number of pictures); errors alike."""
    try:
        with av.open(os.fspath(source), container_options=CONTAINER_OPTIONS) as container:
            if not container.streams.video:
                raise ValueError("there is no video in this file")
            count, packets = _encode(container, size, gop, q)
    except av.error.FFmpegError as error:
        raise ValueError(f"cannot be decoded: {error.strerror}") from error
    if count == 0:
        raise ValueError("there is no picture in this file")
    return b"".join(packets), count


def _encode(container, size: tuple, gop: int, q: int) -> tuple:
    stream = container.streams.video[0]
    stream.thread_count = 1  # the workers keep all cores busy
    encoder = make_encoder(stream.average_rate, size, gop, q)
    packets = []
    count = received = 0
    for packet in container.demux(stream):
        received += packet.size > 0
        if packet.is_corrupt:
            raise ValueError(f"the file is cut off or damaged after {count} pictures")
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ValueError(f"picture {count} is damaged")
            frame = _upright(frame).reformat(*size, format="yuv420p", interpolation="BICUBIC")
            frame.pict_type = 0  # the encoder chooses, not the input
            frame.pts = count
            frame.time_base = encoder.time_base
            packets += map(bytes, encoder.encode(frame))
            count += 1
    if received < stream.frames:
        raise ValueError(f"the file is cut off: {received} of {stream.frames} pictures are there")
    return count, packets + [bytes(packet) for packet in encoder.encode(None)]


def _upright(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame turned as its container asks, which FFmpeg does too: phones film sideways."""
    quarters = round(getattr(frame, "rotation", 0) / 90) % 4  # old PyAVs do not tell
    if quarters == 0:
        return frame
    turned = np.rot90(frame.to_ndarray(format="rgb24"), quarters)  # counterclockwise
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(turned), format="rgb24")


def make_encoder(rate: Fraction | None, size: tuple, gop: int, q: int) -> av.CodecContext:
    """An encoder of what the loader reads; rate in pictures per second, None: 25."""
    rate = Fraction(rate or 25).limit_denominator(1001)
    if not 1 <= rate.numerator <= _MAX_TICKS:
        rate = Fraction(25)
    encoder = av.CodecContext.create("mpeg4", "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuv420p"
    encoder.framerate = rate
    encoder.time_base = 1 / rate
    encoder.gop_size = gop
    encoder.thread_count = 1  # several threads would cut pictures into slices
    encoder.options = {"bf": "0", "flags": "+qscale", "global_quality": str(q * _LAMBDA_PER_Q)}
    return encoder


def find_videos(source: Path) -> list:
    """Paths, relative to the folder `source`, of its videos (known by their suffix), sorted."""
    found = []
    for folder, _, names in os.walk(source, followlinks=True):
        for name in names:
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                found.append((Path(folder) / name).relative_to(source))
    return sorted(found)


def plan(source: Path, target: Path) -> dict:
    """{output path: input path}; ValueError if there is nothing to do or two share an output."""
    if source.is_dir():
        here, there = source.resolve(), target.resolve()
        if here == there or here in there.parents:
            raise ValueError(f"OUT ({target}) must not be inside IN ({source})")
        videos = {name: source / name for name in find_videos(source)}
    elif source.is_file():
        videos = {Path(source.name): source}
    else:
        raise ValueError(f"IN ({source}) does not exist")
    if not videos:
        raise ValueError(f"IN ({source}) holds no video; looked for {' '.join(VIDEO_SUFFIXES)}")
    outputs = {}
    for name, path in videos.items():
        output = target / name.with_suffix(".mp4")
        if output in outputs:
            raise ValueError(f"{outputs[output]} and {path} would both become {output}")
        outputs[output] = path
    return outputs


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    try:
        outputs = plan(args.source, args.target)
        settings = {"size": "x".join(map(str, args.size)), "gop": args.gop, "q": args.q}
        _check_settings(args.target / REPORT, settings)
    except ValueError as error:
        parser.error(str(error))
    todo = {output: path for output, path in outputs.items() if not output.exists()}
    report = {"settings": settings, "videos": len(outputs), "failed": {}}
    _write_report(args.target, report)

    pool = ThreadPoolExecutor(args.workers)  # FFmpeg works outside Python's lock
    try:
        jobs = {
            pool.submit(reencode, path, output, args.size, args.gop, args.q): path
            for output, path in todo.items()
        }
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="video", disable=None):
            try:
                job.result()
            except (ValueError, OSError) as error:
                report["failed"][str(jobs[job])] = str(error)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        pool.shutdown(cancel_futures=True)
    _write_report(args.target, report)

    for path, problem in sorted(report["failed"].items()):
        print(f"failed: {path}: {problem}", file=sys.stderr)
    result = {
        "videos": len(outputs),
        "encoded": len(todo) - len(report["failed"]),
        "kept": len(outputs) - len(todo),
        "failed": len(report["failed"]),
        **settings,
    }
    print("result:", json.dumps(result))
    return 1 if report["failed"] else 0


def _check_settings(report: Path, settings: dict) -> None:
    if not report.exists():
        return
    before = json.loads(report.read_text())["settings"]
    if before != settings:
        raise ValueError(
            f"{report.parent} was made with {before}, not {settings}: use the same settings or "
            "another OUT"
        )


def _write_report(target: Path, report: dict) -> None:
    with whole_file(target / REPORT) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    parser = get_args_parser()
    sys.exit(main(parser.parse_args(), parser))
