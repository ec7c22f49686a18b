"""The loss of one stream of a backbone as a function of the stream's weights."""

from __future__ import annotations

import copy
import functools
import itertools
import random
from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from dataset_team.records import Record
from models import STREAMS
from models.team_net import TeamNet
from study import curvature
from study.twice_differentiable import make_twice_differentiable
from training.loading import Batch


class StreamLogits(nn.Module):
    """The logits of one stream (b, classes) from the inputs of the network.

    Where streams are only summed, the others are not computed.
    """

    def __init__(self, net: TeamNet, name: str):
        super().__init__()
        self.net, self.name = net, name

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        if self.net.config["fusion"] != "sum":
            return getattr(self.net(*inputs), self.name)
        stream = getattr(self.net, self.name)
        x = stream.input_norm(inputs[STREAMS.index(self.name)].flatten(0, 1))
        return stream.classify(stream.features(x), self.net.num_segments)


class StreamLoss:
    """The mean cross entropy of one stream over batches; `parts` are what study.curvature takes.

    The network stays as it is: that of the loss is a copy.
    """

    def __init__(self, net: TeamNet, name: str, batches: Sequence[Batch]):
        self.module = StreamLogits(make_twice_differentiable(copy.deepcopy(net)), name)
        self.prefix = f"net.{name}."
        self.weights = curvature.weights_of(getattr(net, name))
        self.batches, self.count = batches, sum(len(batch.labels) for batch in batches)
        self.parts = [functools.partial(self.share, batch) for batch in batches]

    def share(self, batch: Batch, weights: curvature.Weights) -> torch.Tensor:
        """What a batch adds to the mean."""
        logits = self.logits(batch, weights)
        return F.cross_entropy(logits, batch.labels, reduction="sum") / self.count

    def logits(self, batch: Batch, weights: curvature.Weights) -> torch.Tensor:
        placed = {self.prefix + name: weight for name, weight in weights.items()}
        return functional_call(self.module, placed, batch.inputs)

    @torch.no_grad()
    def top1_pct(self) -> float:
        right = [self.logits(b, self.weights).argmax(1) == b.labels for b in self.batches]
        return 100 * torch.cat(right).double().mean().item()


def choose_videos(records: Sequence[Record], number: int, seed: int) -> list[int]:
    """The rows of `number` videos (or all, if there are fewer), in the list's order.

    The seed draws them, one of each class in turn, so that classes differ by at most one video
    unless a class has no more. The order of the list does not matter.
    """
    rng = random.Random(seed)
    by_class = defaultdict(list)
    for row in sorted(range(len(records)), key=lambda row: records[row].name):
        by_class[records[row].label].append(row)
    classes = [by_class[label] for label in sorted(by_class)]
    for rows in classes:
        rng.shuffle(rows)
    rng.shuffle(classes)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*classes))
    return sorted([row for row in turns if row is not None][:number])
