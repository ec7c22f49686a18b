"""How much faster a video's motion vectors come than its pictures. One JSON line of one run.

    python -m benchmarks.vectors VIDEO... [--repeats 15]

For each video, in turns:

    rgb            every picture decoded by PyAV and converted to an RGB array, as one writes it:
                   frame.to_ndarray(format="rgb24"); PyAV uses its threads
    rgb_1_thread   the same with one thread for the decoder and for the conversion
    decoder        the decoder alone, one thread, with the options of read_vectors
    vectors        every picture's motion vectors, by coviar.read_vectors, which uses one thread
    dense          the same with dense=True: also the field per pixel

Ratios of processor time, of all threads together: "rgb_to_vectors" is that of rgb to vectors. Of
each step the least of the repeats counts; of the videos the median and the worst. A video of
another codec than H.264 is made into one first, by libx264 in its own size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from fractions import Fraction

import av
from tqdm import tqdm

from benchmarks.measuring import machine
from coviar import read_vectors
from coviar.command import run
from coviar.container import open_video
from coviar.exported import DECODER_OPTIONS
from training.options import make_parser, positive_int, refusing


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--repeats", type=positive_int, default=15, help="of each measurement (15)")
    return parser


def as_h264(path: str, out: str) -> str:
    """The video, or `out` with the same pictures. Raises as `open_video`."""
    with open_video(path) as (source, stream):
        if stream.codec_context.name == "h264":
            return path
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


def decode_to_rgb(path: str, one_thread: bool) -> None:
    options = {"threads": 1} if one_thread and "threads" in av.VideoFrame.reformat.__doc__ else {}
    with av.open(path) as container:
        stream = container.streams.video[0]
        if one_thread:
            stream.thread_count = 1
        for frame in container.decode(stream):
            frame.to_ndarray(format="rgb24", **options)


def decode_only(path: str) -> None:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        stream.codec_context.options = DECODER_OPTIONS
        for _ in container.decode(stream):
            pass


def read_all(path: str, dense: bool) -> None:
    for _ in read_vectors(path, dense=dense):
        pass


def least_times(path: str, repeats: int) -> dict:
    """{step: least processor time in seconds}; the steps take turns."""
    steps = {
        "rgb": lambda: decode_to_rgb(path, False),
        "rgb_1_thread": lambda: decode_to_rgb(path, True),
        "decoder": lambda: decode_only(path),
        "vectors": lambda: read_all(path, False),
        "dense": lambda: read_all(path, True),
    }
    times = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if repeat > 0:  # the first compiles and warms up
                times[name].append(time.process_time() - start)
    return {name: min(values) for name, values in times.items()}


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with tempfile.TemporaryDirectory() as folder, refusing(parser):
        paths = [as_h264(path, f"{folder}/{n}.mp4") for n, path in enumerate(args.videos)]
        found = [least_times(path, args.repeats) for path in tqdm(paths, disable=None)]
    result = {"machine": machine("cpu"), "videos": len(paths)}
    for rgb in ("rgb", "rgb_1_thread"):
        for step in ("decoder", "vectors", "dense"):
            ratios = [times[rgb] / times[step] for times in found]
            result[f"{rgb}_to_{step}_median"] = round(statistics.median(ratios), 2)
            result[f"{rgb}_to_{step}_worst"] = round(min(ratios), 2)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    run(main, get_args_parser())
