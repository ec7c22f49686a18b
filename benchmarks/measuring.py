"""Time several ways to do the same thing under the same load of the machine."""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from models.precision import PRECISIONS, has_bf16

# cpu: processor time, which another program on the machine does not change.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def interleaved_medians(cases: Mapping[str, Callable], repeats: int) -> dict[str, float]:
    """Median milliseconds of each case; the cases take turns, so that all see the same load.

    Each runs twice before anything is timed (compilation, caches, memory).
    """
    for run in cases.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def device_name(text: str) -> str:
    """For argparse: cpu, or cuda where the machine has it."""
    if text not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither cpu nor cuda")
    if text == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("this machine has no CUDA device")
    return text


def measured_precisions(device: str) -> list[str]:
    """Without bf16 where it would be emulated; the line then says `bf16_arithmetic: false`."""
    return [name for name in PRECISIONS if name != "bf16" or has_bf16(device)]


def machine(device: str) -> str:
    """The name of the processor or GPU."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
    except OSError:  # no Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def capability(device: str) -> dict:
    """The fields of a benchmark's line that describe the machine."""
    return {
        "machine": machine(device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "bf16_arithmetic": has_bf16(device),
    }
