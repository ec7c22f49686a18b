"""A prediction from windows of a long H.264 file, against re-encoding the whole file.

    python -m benchmarks.windows

makes a film of --minutes by FFmpeg (640x360, a key picture every 2 s), and takes T = 8 windows of
it: the pictures are counted, eight GOPs decoded, re-encoded and loaded. The same is done with a
film of 10 seconds, each in a process of its own, for the peak of its memory. One JSON line.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from coviar import load_clip, read_index
from coviar.command import run
from coviar.reencode import positive, reencode_in_memory
from coviar.source_index import read_source_index
from dataset_team.sampling import segment_positions

SECONDS_OF_SHORT = 10
SEGMENTS = 8


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=positive, default=10, help="of the long film (10)")
    parser.add_argument("--windows-of", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    return parser


def make_film(path, seconds):
    source = f"testsrc2=size=640x360:rate=30:duration={seconds}"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p"]
    command += ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "60", str(path)]
    subprocess.run(command, check=True)


def load_windows(path):
    index = read_source_index(path)
    positions = segment_positions(index.gop_lengths, SEGMENTS)
    return load_clip(path, positions, encode=True, index=index)


def time_windows(path):
    """Milliseconds of the second of two loads, and the peak of this process in MiB."""
    load_windows(path)  # compiles and warms up
    started = time.perf_counter()
    load_windows(path)
    spent = 1000 * (time.perf_counter() - started)
    return spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_its_own_process(path):
    command = [sys.executable, "-m", "benchmarks.windows", "--windows-of", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(args, parser):
    if args.windows_of:
        print(json.dumps(time_windows(args.windows_of)))
        return 0
    if not shutil.which("ffmpeg"):
        parser.error("needs the ffmpeg command: apt-get install ffmpeg")
    from benchmarks.measuring import machine  # needs torch, which the measured processes do without

    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder, "short.mp4"), Path(folder, "long.mp4")
        make_film(short, SECONDS_OF_SHORT)
        make_film(long, 60 * args.minutes)
        short_ms, short_mib = in_its_own_process(short)
        windows_ms, windows_mib = in_its_own_process(long)
        windows = load_windows(long)
        started = time.perf_counter()
        encoded = reencode_in_memory(long)
        index = read_index(long, encoded.content)
        whole = load_clip(
            long, segment_positions(index.gop_lengths, SEGMENTS), encode=True, index=index
        )
        whole_ms = 1000 * (time.perf_counter() - started)
        equal = all(np.array_equal(*pair) for pair in zip(windows, whole))
    result = {
        "minutes": args.minutes,
        "whole_ms": round(whole_ms, 1),
        "windows_ms": round(windows_ms, 1),
        "times_faster": round(whole_ms / windows_ms, 1),
        "windows_mib": round(windows_mib, 1),
        "windows_of_10_s_ms": round(short_ms, 1),
        "windows_of_10_s_mib": round(short_mib, 1),
        "equal": equal,
        "processor": machine("cpu"),
    }
    print(json.dumps(result), flush=True)
    return 0 if equal else 1


if __name__ == "__main__":
    run(main, get_args_parser())
