"""Frozen views: what the exits see of each video, computed once and kept on disk.

The backbone is frozen and in eval mode while exits train, so an exit's input is a fixed function
of the clip view: all methods and seeds train from one pass over the data.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from dataset_team.dataset import VideoDataset
from models.team_net import TeamNet
from training.checkpoint import load_checkpoint, save_checkpoint, weights_digest
from training.engine import autocast
from training.loading import ViewSampler, make_loader, to_device
from training.log import write_json


@dataclass
class Features:
    """One view of every video of a data set, rows in the data set's order.

    squeezes: per TEAM block k (n, T * d_k); streams: logits (n, 3, classes), order I, MV, R;
    labels: (n,) int64; names: n strings.
    """

    squeezes: tuple[torch.Tensor, ...]
    streams: torch.Tensor
    labels: torch.Tensor
    names: list[str]


@torch.no_grad()
def compute_view(
    backbone: TeamNet,
    dataset: VideoDataset,
    view: int,
    *,
    device: torch.device,
    precision: str,
    batch_size: int,
    workers: int,
) -> Features:
    """Run the backbone (on `device`, in eval mode meanwhile) over one view of every video."""
    size = len(dataset)
    loader = make_loader(dataset, ViewSampler(size, view), batch_size, workers, device)
    rows: list[tuple[torch.Tensor, ...]] = []
    seen: list[torch.Tensor] = []
    was_training = backbone.training
    backbone.eval()
    for sample in tqdm(loader, desc=f"view {view}", leave=False, disable=None):
        batch = to_device(sample, device)
        with autocast(device, precision):
            output = backbone(*batch.inputs)
        streams = torch.stack([output.iframe, output.mv, output.residual], dim=1)
        rows.append(tuple(x.float().cpu() for x in (*output.squeezes, streams)))
        seen.append(batch.indices)
    backbone.train(was_training)
    if not torch.equal(torch.cat(seen), torch.arange(size)):
        raise RuntimeError("the loader did not give every video once, in order")
    *squeezes, streams = (torch.cat(column) for column in zip(*rows))
    return Features(
        squeezes=tuple(squeezes),
        streams=streams,
        labels=torch.tensor([record.label for record in dataset.records]),
        names=[record.name for record in dataset.records],
    )


class Views:
    """The views of one data set through one frozen backbone: `views[v]` is a Features.

    With `cache_dir` each view is one file, written whole, in a folder named by a digest of all it
    depends on; so a killed run resumes, and a stale view cannot be found. Without, views are
    computed at every call. Both give the same bits.
    """

    def __init__(
        self,
        backbone: TeamNet,
        dataset: VideoDataset,
        *,
        device: torch.device,
        precision: str,
        batch_size: int,
        workers: int,
        cache_dir: Path | None,
    ):
        self.backbone, self.dataset = backbone, dataset
        self.settings = {
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
            "workers": workers,
        }
        self.folder = cache_dir and cache_dir / self._digest()

    def __getitem__(self, view: int) -> Features:
        if self.folder is None:
            return compute_view(self.backbone, self.dataset, view, **self.settings)
        file = self.folder / f"view_{view:04d}.pt"
        if not file.is_file():
            features = compute_view(self.backbone, self.dataset, view, **self.settings)
            save_checkpoint(file, vars(features))
        return Features(**load_checkpoint(file))

    def prepare(self, count: int) -> None:
        """Compute those of the views 0..count-1 that the bank lacks, saying its size first."""
        if self.folder is None:
            return
        missing = [v for v in range(count) if not (self.folder / f"view_{v:04d}.pt").is_file()]
        if not missing:
            return
        size_mb = len(missing) * len(self.dataset) * self._bytes_per_video() / 1e6
        print(f"bank {self.folder}: computing {len(missing)} view(s), {size_mb:.0f} MB", flush=True)
        write_json(self.folder / "about.json", self._identity())
        for view in tqdm(missing, desc="views", disable=None):
            self[view]

    def _bytes_per_video(self) -> int:
        config = self.backbone.config
        squeezes = sum(block.squeeze_size for block in self.backbone.team)
        return 4 * (squeezes * config["num_segments"] + 3 * config["num_classes"])

    def _identity(self) -> dict:
        """All that a view depends on, as plain values."""
        videos = hashlib.sha256()
        for record in self.dataset.records:
            videos.update(f"{record.name} {record.label} {os.stat(record.path).st_size};".encode())
        return {
            "backbone": weights_digest(self.backbone.state_dict()),
            "config": self.backbone.config,
            "videos": f"{len(self.dataset)} {videos.hexdigest()[:16]}",
            "data": self.dataset.describe(),
            "precision": self.settings["precision"],
        }

    def _digest(self) -> str:
        text = json.dumps(self._identity(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
