"""Features of a frozen backbone: the inputs of the exits and their teachers, of one view."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from dataset_team.dataset import VideoDataset
from models.over_time import one_segment, whole_clip
from models.team_net import TeamNet
from training.loading import ViewSampler, make_loader, to_device


@dataclass
class Features:
    """One view of every video of a data set, rows in the data set's order.

    squeezes: per TEAM block k (n, T * d_k), float16 or float32; streams: float32 logits
    (n, 3, classes), order I, MV, R; labels: (n,) int64; names: n strings. segments: float16 logits
    of each segment (n, T, 3, classes), whose mean is `streams`; None without `per_segment`.
    """

    squeezes: tuple[torch.Tensor, ...]
    streams: torch.Tensor
    labels: torch.Tensor
    names: list[str]
    segments: torch.Tensor | None = None

    def exit_inputs(
        self, device: torch.device, rows: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """The squeeze vectors of these rows (default all), float32 on the device."""
        chosen = self.squeezes if rows is None else [squeeze[rows] for squeeze in self.squeezes]
        return [squeeze.to(device).float() for squeeze in chosen]

    def joined(self, other: Features) -> Features:
        """These videos, then the others; without `segments`."""
        return Features(
            squeezes=tuple(map(torch.cat, zip(self.squeezes, other.squeezes))),
            streams=torch.cat([self.streams, other.streams]),
            labels=torch.cat([self.labels, other.labels]),
            names=self.names + other.names,
        )

    def rounded(self, dtype: torch.dtype) -> Features:
        """With squeeze vectors of another type. Raises ValueError where they do not fit into it."""
        squeezes = tuple(squeeze.to(dtype) for squeeze in self.squeezes)
        for before, after in zip(self.squeezes, squeezes):
            overflow = torch.isinf(after) & ~torch.isinf(before)
            if overflow.any():
                name = self.names[overflow.any(1).nonzero()[0].item()]
                raise ValueError(
                    f"a squeeze vector of {name} reaches {before.abs().max():.0f}, which {dtype}"
                    " cannot hold: use --bank-dtype float32"
                )
        return replace(self, squeezes=squeezes)


@torch.no_grad()
def compute_view(
    network: TeamNet,
    dataset: VideoDataset,
    view: int,
    *,
    device: torch.device,
    batch_size: int,
    workers: int,
    rows: np.ndarray | None = None,
    per_segment: bool = False,
) -> Features:
    """Features of one view of every video, or only of the videos `rows`.

    network: of `prepare_for_inference`, on `device`. Raises ValueError where a segment alone has no
    answer, see models.over_time.
    """
    single = one_segment(network) if per_segment else None
    sampler = ViewSampler(len(dataset), view, rows)
    loader = make_loader(dataset, sampler, batch_size, workers, device)
    computed: list[tuple[torch.Tensor, ...]] = []
    seen: list[torch.Tensor] = []
    alone: list[torch.Tensor] = []
    for sample in tqdm(loader, desc=f"view {view}", leave=False, disable=None):
        batch = to_device(sample, device)
        if per_segment:
            output, segments = whole_clip(single, batch.inputs)
        else:
            output, segments = network(*batch.inputs), None
        streams = torch.stack([output.iframe, output.mv, output.residual], dim=1)
        computed.append(tuple(x.float().cpu() for x in (*output.squeezes, streams)))
        if per_segment:
            alone.append(segments.half().cpu())
        seen.append(batch.indices)
    if torch.cat(seen).tolist() != list(sampler.rows):
        raise RuntimeError("the loader did not give every video once, in order")
    records = [dataset.records[row] for row in sampler.rows]
    *squeezes, streams = (torch.cat(column) for column in zip(*computed))
    return Features(
        squeezes=tuple(squeezes),
        streams=streams,
        labels=torch.tensor([record.label for record in records]),
        names=[record.name for record in records],
        segments=torch.cat(alone) if per_segment else None,
    )
