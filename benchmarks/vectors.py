"""How much faster a video's motion vectors come than its pictures. One JSON line of one run.

    python -m benchmarks.vectors VIDEO... [--repeats 15]

For each video, in turns, in one thread and in milliseconds of this thread's processor time:

    rgb_ms      every picture decoded by PyAV and converted to an RGB array
    vectors_ms  every picture's motion vectors, by coviar.read_vectors
    dense_ms    the same with dense=True: also the field per pixel

(the least of the repeats; the ratios are rgb_ms to the others: median and worst video.) A video of
another codec than H.264 is made into one first, by libx264 in its own size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
from tqdm import tqdm

from benchmarks.timing import machine
from coviar import read_vectors
from coviar.command import quiet_pipe
from training.options import positive_int


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--repeats", type=positive_int, default=15, help="of each measurement (15)")
    return parser


def as_h264(path: str, folder: str) -> str:
    with av.open(path) as source:
        stream = source.streams.video[0]
        if stream.codec_context.name == "h264":
            return path
        out = f"{folder}/{Path(path).stem}.mp4"
        with av.open(out, "w") as target:
            encoded = target.add_stream("libx264", rate=25)
            encoded.width, encoded.height = stream.width, stream.height
            encoded.pix_fmt = "yuv420p"
            for number, frame in enumerate(source.decode(stream)):
                frame.pts, frame.time_base = number, Fraction(1, 25)
                frame.pict_type = 0  # the encoder chooses
                target.mux(encoded.encode(frame))
            target.mux(encoded.encode(None))
    return out


def decode_to_rgb(path: str) -> None:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        for frame in container.decode(stream):
            frame.to_ndarray(format="rgb24")


def read_all(path: str, dense: bool) -> None:
    for _ in read_vectors(path, dense=dense):
        pass


def least_ms(path: str, repeats: int) -> dict:
    """The least processor time of each step; the steps take turns."""
    steps = {
        "rgb_ms": lambda: decode_to_rgb(path),
        "vectors_ms": lambda: read_all(path, False),
        "dense_ms": lambda: read_all(path, True),
    }
    times = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start = time.thread_time()
            step()
            if repeat > 0:  # the first compiles and warms up
                times[name].append((time.thread_time() - start) * 1000)
    return {name: min(values) for name, values in times.items()}


def main(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        paths = [as_h264(path, folder) for path in args.videos]
        found = [least_ms(path, args.repeats) for path in tqdm(paths, disable=None)]
    result = {"machine": machine("cpu"), "videos": len(paths)}
    for name in ("vectors", "dense"):
        ratios = [times["rgb_ms"] / times[f"{name}_ms"] for times in found]
        result[f"{name}_ratio_median"] = round(statistics.median(ratios), 3)
        result[f"{name}_ratio_worst"] = round(min(ratios), 3)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    with quiet_pipe():
        sys.exit(main(get_args_parser().parse_args()))
