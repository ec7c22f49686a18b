"""Several processes started by torchrun, one per device, or one started by plain `python`.

Every function works in both cases. A single process gets its own values back and never waits. Only
the main process, rank 0, writes files and prints.
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

# For processes that hang. It is longer than one process needs to index all videos. The end of a
# process is noticed at once, because its connection closes.
TIMEOUT = datetime.timedelta(hours=2)


def launched() -> bool:
    """Whether the environment variables of torchrun are set."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def local_rank() -> int:
    """The number of this process on its host, which is the number of its device there."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def start(device: torch.device) -> None:
    """Join the process group of torchrun; do nothing in a single process.

    CUDA tensors use nccl, CPU tensors gloo. After this only the main process prints to stdout; all
    processes print errors.
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
    """Leave the process group, at the end of a script without errors."""
    if not dist.is_initialized():
        return
    barrier()
    if torch.__version__ < "2.8":
        # The call below then holds the interpreter's lock while it waits for gloo's threads. A
        # thread that still frees a tensor of any_of needs this lock, so let them finish first.
        time.sleep(0.5)
    dist.destroy_process_group()


def is_parted(error: RuntimeError) -> bool:
    """Whether the error means that another process has ended."""
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
    """Call `function` in the main process only; every process waits and gets what it returns.

    When it fails, the main process raises the error and the others exit with code 1, silently.
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
    """Call `function` in the main process first, then in the others, which use its cache."""
    if not is_main():
        barrier()
    try:
        return function(*arguments)
    finally:
        if is_main():
            barrier()


def own_rows(size: int, batch_size: int) -> np.ndarray:
    """The rows, out of `size`, that this process computes. Processes take whole batches in turn.

    A batch holds the same rows for any number of processes, so it gives the same bits.
    """
    rows = np.arange(size)
    return rows[rows // batch_size % world_size() == rank()]


def gather_rows(
    columns: Sequence[torch.Tensor], places: torch.Tensor, size: int
) -> tuple[torch.Tensor, ...]:
    """Put the rows of all processes together: columns (n, ...) become (size, ...), on the CPU.

    Row i goes to places[i]. A process without rows passes no columns. Every process gets all rows.
    Raises RuntimeError when a place is filled twice or stays empty.
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
    """The model in DistributedDataParallel: same weights at the start, gradients averaged."""
    if world_size() == 1:
        return model
    device_ids = [device.index] if device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(model, device_ids=device_ids)


def same_weights(model: torch.nn.Module) -> None:
    """Give every process the main one's weights and BatchNorm statistics, to evaluate the same."""
    if world_size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)
