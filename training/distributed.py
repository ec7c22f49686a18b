"""Processes that work as one: torchrun starts them, one per device; plain `python` is one alone.

Every function is right in both cases: alone, sums and gatherings are what comes in and nobody
waits. Rank 0, the main process, is the one that writes files and prints.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

# A process that ended is noticed at once, by its closed connection; this limit is for those that
# hang, and above the time that one process may need for an index of all videos.
TIMEOUT = datetime.timedelta(hours=2)


def launched() -> bool:
    """Whether torchrun (or who sets its environment variables) started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def local_rank() -> int:
    """The number of this process on its host, which is the number of its device there."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def start(device: torch.device) -> None:
    """Meet the other processes of torchrun; alone, do nothing.

    CUDA tensors travel by nccl, those on the CPU by gloo. Only the main process prints from here
    on; errors are printed by all.
    """
    if not launched() or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    if not is_main():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 open until the process ends


def stop() -> None:
    """Part from the other processes, at the end of a script that went well."""
    if not dist.is_initialized():
        return
    barrier()
    if torch.__version__ < "2.8":
        # There the call below holds the interpreter's lock while it waits for gloo's threads, and
        # one that still drops a tensor of any_of needs the lock: let them finish.
        time.sleep(0.5)
    dist.destroy_process_group()


def is_parted(error: RuntimeError) -> bool:
    """Whether this is what waiting for a process that has ended gives."""
    texts = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused")
    return isinstance(error, dist.DistError) or (
        world_size() > 1 and any(text in str(error) for text in texts)
    )


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        any_of(False)  # dist.barrier would pick a device by itself


def any_of(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is true in any process; every process must call it."""
    if world_size() == 1:
        return flags
    counts = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(counts, op=dist.ReduceOp.MAX)
    return tuple(counts.bool().tolist())


def sum_of(*values: float) -> tuple[float, ...]:
    """Each value summed over the processes, in double precision."""
    if world_size() == 1:
        return values
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums)
    return tuple(sums.tolist())


def on_main(function: Callable[..., Any], *arguments: object) -> Any:
    """What `function` returns in the main process, which alone calls it; the others wait for it.

    When it fails, the main process raises its error and the others end without a word.
    """
    if world_size() == 1:
        return function(*arguments)
    box, failed = [None], True
    try:
        if is_main():
            box = [function(*arguments)]
        failed = False
    finally:
        (failed_anywhere,) = any_of(failed)
    if failed_anywhere:
        raise SystemExit(1)
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def main_first(function: Callable[..., Any], *arguments: object) -> Any:
    """Call `function` in the main process, then in the others, which find its cached work done."""
    if not is_main():
        barrier()
    try:
        return function(*arguments)
    finally:
        if is_main():
            barrier()


def own_rows(size: int, batch_size: int) -> np.ndarray:
    """Which of `size` rows this process computes: whole batches in turn, the last one maybe short.

    So each batch holds the same rows whatever the number of processes, and gives the same bits.
    """
    rows = np.arange(size)
    return rows[rows // batch_size % world_size() == rank()]


def gather_rows(
    columns: Sequence[torch.Tensor], places: torch.Tensor, size: int
) -> tuple[torch.Tensor, ...]:
    """Columns of rows (n, ...) on the CPU, row i for places[i], as (size, ...) each in order.

    Every process brings its own rows, no columns where it has none, and gets all. Raises
    RuntimeError when a place is filled twice or stays empty.
    """
    parts = [(tuple(columns), places)]
    if world_size() > 1:
        parts = [None] * world_size()
        dist.all_gather_object(parts, (tuple(columns), places))
    places = torch.cat([theirs for _, theirs in parts])
    filled = torch.bincount(places, minlength=size)
    if len(filled) != size or (filled != 1).any():
        raise RuntimeError(
            f"{len(places)} rows for {size} places: {int((filled == 0).sum())} stay empty,"
            f" {int((filled > 1).sum())} are filled more than once"
        )
    order = places.argsort()
    return tuple(torch.cat(column)[order] for column in zip(*(rows for rows, _ in parts if rows)))


def exchanging(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The model with gradients averaged over the processes, which start from the same weights."""
    if world_size() == 1:
        return model
    device_ids = [device.index] if device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(model, device_ids=device_ids)


def same_weights(model: torch.nn.Module) -> None:
    """Give every process the main one's weights and BatchNorm statistics, to evaluate the same."""
    if world_size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)
