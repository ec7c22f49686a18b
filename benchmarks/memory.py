"""What it saves a training step on a CPU that freed memory stays with the process.

    python -m benchmarks.memory --arch mobilenet_v2 --motion-arch mobilenet_v2

A process for each case, which take turns with one step each on the same random clips:

    given back     glibc gives freed memory back to the system, as PyTorch has it
    kept           as the scripts do (training.memory)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import torch

from benchmarks.measuring import capability, interleaved_medians
from benchmarks.random_network import add_network_options
from benchmarks.train_step import make_step
from coviar.command import run
from training.memory import keep_freed_memory
from training.options import make_parser, positive_int

GIVEN_BACK, KEPT = "given back", "kept"


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_network_options(parser, "resnet18", crop_size=112, num_segments=3)
    parser.add_argument("--batch-size", type=positive_int, default=16)
    parser.add_argument("--repeats", type=positive_int, default=5, help="timed rounds")
    parser.add_argument("--case", choices=(GIVEN_BACK, KEPT), help=argparse.SUPPRESS)
    return parser


def serve(args: argparse.Namespace) -> None:
    """One step for each line that comes in, and a line when it is done."""
    if args.case == KEPT and not keep_freed_memory():
        raise SystemExit("this C library does not keep freed memory: there is nothing to measure")
    step = make_step(args, "fp32", plain=False)
    for _ in sys.stdin:
        step()
        print("done", flush=True)


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.device != "cpu":
        parser.error(f"--device {args.device}: this is about the CPU")
    if args.case:
        serve(args)
        return
    command = [sys.executable, "-m", "benchmarks.memory", *sys.argv[1:], "--case"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    workers = {case: subprocess.Popen([*command, case], **pipes) for case in (GIVEN_BACK, KEPT)}

    def ask(worker: subprocess.Popen) -> None:
        worker.stdin.write("step\n")
        if worker.stdout.readline() != "done\n":
            raise SystemExit(worker.wait() or 1)

    try:
        asks = {case: lambda worker=worker: ask(worker) for case, worker in workers.items()}
        medians = interleaved_medians(asks, args.repeats)
    finally:
        for worker in workers.values():
            worker.communicate()
    about = {"benchmark": "memory", "threads": torch.get_num_threads(), **capability("cpu")}
    ratios = {
        case: {"ms": round(ms, 1), "ratio": round(medians[GIVEN_BACK] / ms, 2)}
        for case, ms in medians.items()
    }
    names = ("arch", "motion_arch", "num_segments", "crop_size", "batch_size", "repeats")
    print(json.dumps({**about, **{name: getattr(args, name) for name in names}, **ratios}))


if __name__ == "__main__":
    run(main, get_args_parser())
