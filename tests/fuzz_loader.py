"""Load mutated videos in child processes: no crash, no hang, no runaway memory, no wrong array.

    python -m tests.fuzz_loader --cases 10000 --seed 0

Each case is a small video (raw stream, AVI or MP4), mutated, and then indexed and loaded. It must
give arrays of the right shape and dtype or raise one of the documented exceptions, within 10
seconds and 1 GB. A child that dies or hangs is a failure; number and seed reproduce a case:

    python -m tests.fuzz_loader --cases 1 --seed 0 --first CASE
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

import coviar
from tests.coviar_videos import pictures, write_video

TIMEOUT_S = 10
MEMORY_MB = 1024
DOCUMENTED = (ValueError, IndexError, FileNotFoundError)


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="CASE", help="start with this case")
    return parser


def make_seeds(folder: Path) -> list:
    """The bytes of a few healthy videos of different kinds."""
    kinds = [
        {},
        {"gop": 3, "flags": "+mv4", "mbd": "rd"},
        {"container": "avi"},
        {"container": "mp4", "gop": 5},
        {"size": (33, 47), "gop": 1},
    ]
    videos = []
    for number, options in enumerate(kinds):
        size = options.pop("size", (96, 64))
        path = write_video(folder / "seed", pictures(14, size=size, seed=number), **options)
        videos.append(path.read_bytes())
    return videos


def flip_bits(data: bytes, rng: random.Random, _) -> bytes:
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20, 200])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def edit_header(data: bytes, rng: random.Random, _) -> bytes:
    data = bytearray(data)
    for _ in range(rng.choice([1, 2, 8])):
        data[rng.randrange(min(len(data), 80))] = rng.choice([0, 0xFF, rng.randrange(256)])
    return bytes(data)


def edit_picture_headers(data: bytes, rng: random.Random, _) -> bytes:
    parts = data.split(b"\0\0\1\xb6")
    for number in range(1, len(parts)):
        if rng.random() < 0.3 and len(parts[number]) > 3:
            part = bytearray(parts[number])
            part[rng.randrange(3)] ^= 1 << rng.randrange(8)
            parts[number] = bytes(part)
    return b"\0\0\1\xb6".join(parts)


def truncate(data: bytes, rng: random.Random, _) -> bytes:
    return data[: rng.randrange(len(data))]


def splice(data: bytes, rng: random.Random, others: list) -> bytes:
    other = rng.choice(others)
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def shuffle_pictures(data: bytes, rng: random.Random, _) -> bytes:
    first, *parts = data.split(b"\0\0\1\xb6")
    rng.shuffle(parts)
    return b"\0\0\1\xb6".join([first, *parts])


def overwrite(data: bytes, rng: random.Random, _) -> bytes:
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice([4, 100, 3000]))
    return data[:start] + rng.randbytes(end - start) + data[end:]


def remove(data: bytes, rng: random.Random, _) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice([1, 50, 2000]) :]


def random_bytes(_, rng: random.Random, __) -> bytes:
    start = rng.choice([b"", b"\0\0\1\xb0", b"\0\0\1\x20", b"RIFF", b"\0\0\0\x20ftypisom"])
    return start + rng.randbytes(rng.choice([0, 1, 10, 1000, 30000]))


MUTATIONS = (
    *(flip_bits, edit_header, edit_picture_headers, truncate, splice),
    *(shuffle_pictures, overwrite, remove, random_bytes),
)


def mutate(case: int, seed: int, videos: list) -> tuple:
    """(name of the mutation, mutated bytes) of a case: a function of its number and the seed."""
    rng = random.Random(f"{seed}/{case}")
    mutation = rng.choice(MUTATIONS)
    data = mutation(rng.choice(videos), rng, videos)
    if rng.random() < 0.2 and data:
        data = flip_bits(data, rng, videos)
    return mutation.__name__, data


def load_everything(path: Path) -> str:
    """How the file fares: "arrays", "arrays, warned", or the name of a documented exception."""
    outcome = "arrays"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            index = coviar.read_index(path)
            places = [(gop, n - 1) for gop, n in enumerate(index.gop_lengths)][:4]
            for accumulate, encode in ((True, False), (False, True)):
                clip = coviar.load_clip(
                    path, places, accumulate=accumulate, encode=encode, index=index
                )
                check_arrays(clip, len(places), index, encode)
            frame = coviar.load(path, *places[0], 0, True)
            assert frame.shape == (index.height, index.width, 3) and frame.dtype == np.uint8
        except DOCUMENTED as error:
            assert str(error), "an error without words"
            outcome = type(error).__name__
    if outcome == "arrays" and caught:
        outcome = "arrays, warned"
    return outcome


def check_arrays(clip, count: int, index, encode: bool) -> None:
    for array, channels in zip(clip, (3, 2, 3)):
        assert array.shape == (count, index.height, index.width, channels)
    kinds = [array.dtype for array in clip]
    assert kinds == ([np.uint8] * 3 if encode else [np.uint8, np.int16, np.int16])
    assert (abs(clip.mv[..., 0].astype(int)) < max(index.width, 256)).all()


def child(connection, seed: int, videos: list, folder: str) -> None:
    path = Path(folder) / f"{os.getpid()}.mp4"
    while True:
        case = connection.recv()
        if case is None:
            return
        name, data = mutate(case, seed, videos)
        path.write_bytes(data)
        try:
            outcome = load_everything(path)
        except BaseException as error:
            outcome = f"FAILED: {type(error).__name__}: {error}"
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.send((name, outcome, peak_mb))


class Child:
    """A process that runs cases; it is replaced when one kills it."""

    def __init__(self, *arguments):
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=child, args=(other, *arguments), daemon=True)
        self.process.start()
        other.close()

    def run(self, case: int, timeout: float) -> tuple:
        """(mutation, outcome, peak MB) or None if the child died or did not answer in time."""
        self.connection.send(case)
        try:
            if self.connection.poll(timeout):
                return self.connection.recv()
        except (EOFError, ConnectionResetError):
            pass
        return None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def main(args: argparse.Namespace) -> int:
    outcomes, failures, peak_mb = Counter(), {}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        videos = make_seeds(Path(folder))
        arguments = (args.seed, videos, folder)
        runner, timeout = Child(*arguments), 120  # the first case starts Python and the kernels
        for case in tqdm(range(args.first, args.first + args.cases), disable=None):
            result = runner.run(case, timeout)
            timeout = TIMEOUT_S
            if result is None:
                runner.process.join(1)
                died = runner.process.exitcode is not None
                failures[case] = f"exit code {runner.process.exitcode}" if died else "hang"
                runner.stop()
                runner, timeout = Child(*arguments), 120
                continue
            name, outcome, peak_mb = result[0], result[1], max(peak_mb, result[2])
            outcomes[outcome.partition(":")[0]] += 1
            if outcome.startswith("FAILED"):
                failures[case] = f"{name}: {outcome}"
        runner.stop()
    if peak_mb > MEMORY_MB:
        failures["memory"] = f"a child reached {peak_mb:.0f} MB, the limit is {MEMORY_MB}"
    for case, problem in failures.items():
        print(f"case {case}: {problem}", file=sys.stderr)
    report = {"cases": args.cases, "seed": args.seed, "failures": len(failures), **outcomes}
    print("result:", json.dumps({**report, "peak_mb": round(peak_mb)}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(get_args_parser().parse_args()))
