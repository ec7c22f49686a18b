"""From a view of a data set to batches on the device."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from dataset_team.dataset import VideoDataset
from dataset_team.transforms import normalise
from training import distributed
from training.stopping import ignore_in_worker


class Batch(NamedTuple):
    """Normalised float inputs (b, t, c, h, w) and labels (b,) on the device; indices on the CPU."""

    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    labels: torch.Tensor
    indices: torch.Tensor


class ViewSampler(Sampler):
    """Yields (video, view) keys of one view, in the order of the list or of `rows`."""

    def __init__(self, size: int, view: int = 0, rows: np.ndarray | None = None):
        self.rows, self.view = range(size) if rows is None else rows, view

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((int(row), self.view) for row in self.rows)


class Share(NamedTuple):
    """What one process computes in one forward pass of a training step.

    rows: of the data set. count: how many clips they are in sums over all processes. weight: factor
    of their mean loss. Gradients are summed over passes and averaged over processes. With these
    weights this gives the gradient of the mean loss of the step's batch.
    """

    rows: np.ndarray
    count: float
    weight: float


class TrainBatches(Sampler):
    """The shares of this process in an epoch's training batches, as lists of (video, view) keys.

    A step's batch of `batch_size` clips is divided into `passes`, and each pass over the
    processes. A last batch with fewer clips than processes is computed by all of them alike.
    """

    def __init__(self, size: int, batch_size: int, passes: int, seed: int):
        self.size, self.batch_size, self.passes, self.seed = size, batch_size, passes, seed
        self.view, self.first_step = 0, 0
        self.steps = math.ceil(size / batch_size)
        self._order_of = functools.lru_cache(maxsize=1)(epoch_order)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first_step, self.steps):
            for share in self.shares(step):
                yield [(int(row), self.view) for row in share.rows]

    def shares(self, step: int) -> list[Share]:
        order = self._order_of(self.size, self.seed, self.view)
        batch = order[step * self.batch_size : (step + 1) * self.batch_size]
        rank, world_size = distributed.rank(), distributed.world_size()
        if len(batch) < world_size:
            return [Share(batch, len(batch) / world_size, 1.0)]
        shares = []
        for part in np.array_split(batch, min(self.passes, len(batch) // world_size)):
            rows = np.array_split(part, world_size)[rank]
            shares.append(Share(rows, len(rows), len(rows) * world_size / len(batch)))
        return shares


def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """The training order of one epoch. It depends only on seed and epoch, so resuming is exact."""
    return np.random.default_rng([seed, epoch]).permutation(size)


def make_loader(
    dataset: VideoDataset,
    sampler: ViewSampler | TrainBatches,
    batch_size: int | None,
    workers: int,
    device: torch.device,
) -> DataLoader:
    """A loader of uint8 samples. Its workers live on between iterations.

    `batch_size` is None where the sampler gives whole batches.
    """
    if batch_size is None:
        batching = {"batch_sampler": sampler}
    else:
        batching = {"sampler": sampler, "batch_size": batch_size}
    return DataLoader(
        dataset,
        **batching,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=ignore_in_worker,
    )


def to_device(sample: NamedTuple, device: torch.device) -> Batch:
    """Move uint8 arrays and normalise them on the device: so a quarter of the bytes is moved."""
    arrays = (sample.iframe, sample.mv, sample.residual)
    arrays = (array.to(device, non_blocking=True) for array in arrays)
    return Batch(normalise(*arrays), sample.label.to(device), sample.index)
