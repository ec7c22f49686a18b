"""How close loading is to its limit, the decoder alone. One JSON line, measured in one run.

    python -m benchmarks.loader VIDEO... [--repeats 20] [--clips 400]

A sample is 8 segments at random positions of a video. For each video, in turns:

    decode_ms     the pictures it needs, decoded by PyAV with motion vector export: the limit
    load_clip_ms  coviar.load_clip: I-frames, motion vectors and residuals as three arrays
    sample_ms     dataset[i]: also quantised, cropped, resized to 224, flipped, as uint8 tensors

(medians over the repeats, mean over the videos; ratios are to decode_ms, for the median video and
the worst.) First on one processor, in processor time, as in a worker that has others beside it;
then, as names that begin with elapsed_, on all of them: decoding still has one thread, load_clip
and the sample have one for each processor. Then DataLoaders of one and two workers load --clips
samples in batches of 8, in turns: clips per second; and one more worker loads them one by one: its
peak memory (its own pages; and with all it shares), how much that grows from the first tenth of the
clips to the last, and the files it has open. Compare numbers of one run only, on an idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator

import av
import torch
from tqdm import tqdm

from benchmarks.measuring import capability
from coviar import load_clip
from coviar.command import run
from coviar.threads import num_processors
from dataset_team.dataset import VideoDataset
from dataset_team.records import Record
from dataset_team.sampling import segment_positions
from training.options import make_parser, non_negative_int, positive_int, refusing

NUM_SEGMENTS = 8
BATCH_SIZE = 8  # as in training: a message per batch, not per clip
ROUNDS = 3


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--repeats", type=positive_int, default=20, help="of each measurement (20)")
    parser.add_argument("--clips", type=positive_int, default=400, help="to load by workers (400)")
    parser.add_argument("--seed", type=non_negative_int, default=0)
    return parser


def packets_needed(index, positions) -> list:
    """The bytes of every packet that has to be decoded for these positions."""
    last_of = {}
    for gop, position in positions:
        last_of[gop] = max(position, last_of.get(gop, 0))
    packets = []
    with open(index.path, "rb") as file:
        for gop in sorted(last_of):
            first = index.gop_starts[gop]
            for number in range(first, first + last_of[gop] + 1):
                file.seek(index.offsets[number])
                packets.append(file.read(index.sizes[number]))
    return packets


def decode_only(packets: list) -> None:
    context = av.CodecContext.create("mpeg4", "r")
    context.options = {"flags2": "+export_mvs"}
    context.thread_count = 1
    for data in packets:
        packet = av.Packet(len(data))
        packet.update(data)
        context.decode(packet)


@contextlib.contextmanager
def on_one_processor() -> Iterator[None]:
    """Where the system has no such switch: on all."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def time_ms(clock: Callable, function: Callable) -> float:
    start = clock()
    function()
    return (clock() - start) * 1000


def measure_latency(dataset, repeats: int, clock: Callable) -> dict:
    """Means over the videos of each step's median time and of the number of pictures; the median
    and the worst video of each step's ratio to decoding."""
    totals = {"decode_ms": 0.0, "load_clip_ms": 0.0, "sample_ms": 0.0, "frames": 0}
    ratios = {"load_clip": [], "sample": []}
    for number, index in enumerate(tqdm(dataset.indexes, desc="latency", disable=None)):
        times = {"decode_ms": [], "load_clip_ms": [], "sample_ms": []}
        for repeat in range(repeats + 1):
            # The positions of the sample itself: a view draws them first.
            rng = random.Random(f"{dataset.data_seed}/{repeat}/{dataset.records[number].name}")
            positions = segment_positions(index.gop_lengths, NUM_SEGMENTS, rng)
            packets = packets_needed(index, positions)
            steps = {
                "decode_ms": lambda p=packets: decode_only(p),
                "load_clip_ms": lambda i=index, p=positions: load_clip(i.path, p, index=i),
                "sample_ms": lambda n=number, r=repeat: dataset[n, r],
            }
            for name, step in steps.items():
                elapsed = time_ms(clock, step)
                if repeat > 0:  # the first compiles and warms up
                    times[name].append(elapsed)
            totals["frames"] += len(packets) / (repeats + 1)
        for name, values in times.items():
            totals[name] += statistics.median(values)
        for name, values in ratios.items():
            pairs = zip(times[f"{name}_ms"], times["decode_ms"])  # of the same pictures
            values.append(statistics.median(step / decode for step, decode in pairs))
    result = {name: total / len(dataset) for name, total in totals.items()}
    for name, values in ratios.items():
        result[f"{name}_ratio_median"] = statistics.median(values)
        result[f"{name}_ratio_worst"] = max(values)
    return result


def make_loader(
    dataset, workers: int, clips: int, batch_size: int | None = None
) -> torch.utils.data.DataLoader:
    keys = [(i % len(dataset.records), i // len(dataset.records)) for i in range(clips)]
    return torch.utils.data.DataLoader(
        dataset, batch_size=batch_size, sampler=keys, num_workers=workers, persistent_workers=True
    )


def clips_per_second(loader, clips: int) -> float:
    start = time.perf_counter()
    for _ in tqdm(loader, desc=f"{loader.num_workers} workers", disable=None):
        pass
    return clips / (time.perf_counter() - start)


class Memory(torch.utils.data.Dataset):
    """Loads the samples of a dataset; gives (private MB, resident MB, open files) of its worker.

    Private is what the worker has for itself: a forked worker shares the pages of the libraries
    (torch alone is some 100s of MB) with its parent and its siblings.
    """

    def __init__(self, dataset):
        self.dataset, self.records = dataset, dataset.records

    def __getitem__(self, key):
        self.dataset[key]
        fields = {}
        with open("/proc/self/smaps_rollup") as file:
            for line in file.readlines()[1:]:
                name, value = line.split(":")
                fields[name] = int(value.split()[0]) / 1024
        private = fields["Private_Clean"] + fields["Private_Dirty"]
        return private, fields["Rss"], len(os.listdir("/proc/self/fd"))


def measure_memory(dataset, clips: int) -> dict:
    """Of one worker: its peak, and growth from the first tenth of the clips to the last."""
    loader = make_loader(Memory(dataset), 1, clips)
    private, resident, files = zip(*tqdm(loader, total=clips, desc="memory", disable=None))
    tenth = max(1, clips // 10)
    return {
        "private_mb": max(private),
        "rss_mb": max(resident),
        "rss_growth_mb": max(resident[-tenth:]) - max(resident[:tenth]),
        "open_files_growth": files[-1] - files[0],
    }


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    torch.set_num_threads(1)  # as in a worker
    records = [
        Record(f"{number}/{os.path.basename(path)}", path, "class", 0, None)
        for number, path in enumerate(args.videos)
    ]
    with refusing(parser):
        dataset = VideoDataset(records, train=True, num_segments=NUM_SEGMENTS, data_seed=args.seed)
    result = {"videos": len(records)}
    with on_one_processor():  # what other programs take does not count
        result.update(measure_latency(dataset, args.repeats, time.process_time))
    torch.set_num_threads(num_processors())
    elapsed = measure_latency(dataset, args.repeats, time.perf_counter)
    torch.set_num_threads(1)
    result.update({f"elapsed_{name}": value for name, value in elapsed.items() if name != "frames"})

    loaders = {n: make_loader(dataset, n, args.clips, BATCH_SIZE) for n in (1, 2)}
    speeds = {workers: [] for workers in loaders}
    for round_number in range(1 + ROUNDS):
        for workers, loader in loaders.items():
            speed = clips_per_second(loader, args.clips)
            if round_number > 0:  # the first starts the workers
                speeds[workers].append(speed)
    for workers, values in speeds.items():
        result[f"clips_per_s_{workers}"] = statistics.median(values)
    result["workers_ratio"] = result["clips_per_s_2"] / result["clips_per_s_1"]
    del loaders  # ends their workers
    result.update(measure_memory(dataset, args.clips))
    rounded = {name: round(value, 3) for name, value in result.items()}
    print(json.dumps({**capability("cpu"), **rounded}), flush=True)


if __name__ == "__main__":
    run(main, get_args_parser())
