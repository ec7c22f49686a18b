"""Early exit over time: the network on some segments of a clip, then on more, then deeper.

Without temporal shift the segments do not see each other until their logits are averaged. So the
network of one segment, run on the segments one after the other, gives the network's own logits: the
mean over the first k segments is a complete answer at k/T of the cost. Where streams are summed
(`--fusion sum`) they do not see each other either, and the sum of some is an answer of theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from dataset_team.sampling import reading_order
from models import FULL, STREAMS
from models.points import answer, exits_of, streams_of, uses_streams
from models.team_net import NUM_TEAM_BLOCKS, BackboneOutput, Stream, TeamNet
from models.team_net_ic import MEAN, Deciding, Decisions, TeamNetIC

if TYPE_CHECKING:
    from early_exit.policy import Policy

# `read(first, last, clips)`: the three normalised modalities, (n, last - first, c, h, w) each, of
# the segments number first .. last - 1 in reading order, for the clips with these row numbers.
Read = Callable[[int, int, torch.Tensor], Sequence[torch.Tensor]]


def one_segment(backbone: TeamNet) -> TeamNet:
    """The same network, weights shared, that takes a segment as a clip of its own.

    Raises ValueError where segments see each other.
    """
    if backbone.config["is_shift"]:
        raise ValueError(
            "this network has temporal shift: each segment's features hold a part of its"
            " neighbours', so no segment has an answer before the next one is read; train it"
            " without --is_shift to leave before the last segment"
        )
    single = copy.copy(backbone)
    single.num_segments = 1
    return single


def whole_clip(
    single: TeamNet, inputs: Sequence[torch.Tensor]
) -> tuple[BackboneOutput, torch.Tensor]:
    """What the network says of clips (b, t, c, h, w), and the logits (b, t, 3, C) of each segment.

    single: of `one_segment`. The first is, to the bit, what the network of whole clips returns.
    """
    clips = inputs[0].shape[:2]
    output = single(*(x.flatten(0, 1)[:, None] for x in inputs))
    streams = [x.unflatten(0, clips) for x in output[1:4]]  # (b, t, C)
    means = [x.mean(1) for x in streams]
    squeezes = tuple(x.unflatten(0, clips).flatten(1) for x in output.squeezes)
    return BackboneOutput(squeezes, *means, sum(means)), torch.stack(streams, 2)


def check_route(net: TeamNetIC, route: Sequence[tuple[int, str]]) -> None:
    """Raises ValueError, with the reason, when this network cannot decide along the route."""
    last = route[-1]
    if last != (net.backbone.num_segments, FULL):
        raise ValueError(
            f"the route ends with {last[1]} of {last[0]} segments, this network with {FULL} of"
            f" {net.backbone.num_segments}"
        )
    check_depths(net, exits_of(route))
    if uses_streams(route):
        check_fusion(net.backbone.config)


def check_fusion(config: Mapping) -> None:
    """Raises ValueError, with the reason, when the streams of a `TeamNet.config` see each other."""
    fusion = config.get("fusion", "team")
    if fusion != "sum":
        raise ValueError(
            f"the streams of this network see each other in its TEAM blocks (--fusion {fusion}), so"
            " none has an answer before all have run; train them with --fusion sum to leave before"
            " the last stream"
        )


def check_depths(net: TeamNetIC, exits: Sequence[int]) -> None:
    """Raises ValueError, with the reason, when these exits, and the network, have no answer of
    single segments."""
    one_segment(net.backbone)
    missing = sorted(set(exits) - set(net.exits))
    if missing:
        raise ValueError(f"the route uses exits {missing}, the network has {net.exits}")
    if exits and net.pool != MEAN:
        raise ValueError(
            "the exits read the squeeze vectors of all segments side by side, so they have no"
            f" answer before the last one is read; train them with --ic-pool {MEAN}"
        )


@dataclass
class _Chunk:
    """Segments of all present clips that were read together."""

    count: int
    features: dict[str, torch.Tensor]  # of the streams not at their end: (b*count, c, h, w)
    stages: int = 0  # that all streams have run together
    squeezes: tuple[torch.Tensor, ...] = ()  # (b*count, d) of each TEAM block that has run
    logits: dict[str, torch.Tensor] = field(default_factory=dict)  # of the others: (b*count, C)

    def keep(self, stays: torch.Tensor) -> None:
        def rows(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(0, (-1, self.count))[stays].flatten(0, 1)

        self.features = {name: rows(x) for name, x in self.features.items()}
        self.squeezes = tuple(map(rows, self.squeezes))
        self.logits = {name: rows(x) for name, x in self.logits.items()}


class _Reading:
    """The segments read so far of the clips that are undecided.

    has_exits: whether the route has points at exits. Without, summed streams run one by one.
    """

    def __init__(self, net: TeamNetIC, read: Read, evidence: str, has_exits: bool):
        self.net, self.read, self.evidence = net, read, evidence
        self.single = one_segment(net.backbone)
        self.one_by_one = net.backbone.config["fusion"] == "sum" and not has_exits
        self.chunks: list[_Chunk] = []

    @property
    def count(self) -> int:
        return sum(chunk.count for chunk in self.chunks)

    def keep(self, stays: torch.Tensor) -> None:
        for chunk in self.chunks:
            chunk.keep(stays)

    def answer(self, segments: int, depth: str, clips: torch.Tensor) -> torch.Tensor:
        """(n, C) logits of the first `segments` segments at a depth; runs what is missing."""
        if segments > self.count:
            inputs = self.read(self.count, segments, clips)
            rows = [x.flatten(0, 1)[:, None] for x in inputs]
            features = dict(zip(STREAMS, self.single.enter(*rows)))
            self.chunks.append(_Chunk(segments - self.count, features))
        found = [self._logits(chunk, depth) for chunk in self.chunks]
        logits = torch.cat(found, 1)  # (n, segments, outputs, C)
        whole = None
        total = self.net.backbone.num_segments
        if segments == total:
            in_time = torch.tensor(reading_order(total)).argsort()
            outputs = logits[:, in_time].unbind(2)
            whole = torch.stack([x.contiguous().mean(1) for x in outputs], 1)
        return answer(logits.half(), self.evidence, whole)

    def _logits(self, chunk: _Chunk, depth: str) -> torch.Tensor:
        """(n, count, outputs, C) of the chunk's segments."""
        names = streams_of(depth)
        if names and self.one_by_one:
            for name in (name for name in names if name not in chunk.logits):
                stream = getattr(self.single, name)
                chunk.logits[name] = run_alone(stream, chunk.features.pop(name))
        else:
            self._run_together(chunk, depth)
        if names:
            found = torch.stack([chunk.logits[name] for name in names], 1)
        else:
            number = int(depth[4:])
            found = self.net.head(number, chunk.squeezes[number - 1])[:, None]
        return found.unflatten(0, (-1, chunk.count))

    def _run_together(self, chunk: _Chunk, depth: str) -> None:
        """All streams, stage by stage, to an exit or to the end."""
        wanted = NUM_TEAM_BLOCKS + 1 if depth == FULL else int(depth[4:])
        for stage in range(chunk.stages, wanted):
            squeeze = chunk.squeezes[-1] if chunk.squeezes else None
            features = tuple(chunk.features.values())
            if stage == NUM_TEAM_BLOCKS:
                chunk.logits = dict(zip(STREAMS, self.single.leave(features, squeeze)))
                chunk.features = {}
            else:
                features, squeeze = self.single.advance(stage, features, squeeze)
                chunk.features = dict(zip(STREAMS, features))
                chunk.squeezes = (*chunk.squeezes, squeeze)
            chunk.stages = stage + 1


def run_alone(stream: Stream, features: torch.Tensor) -> torch.Tensor:
    """(n, C) logits of n segments, of what enters a stream's stem, (n, c, h, w)."""
    for stage in stream.stages:
        features = stage(features)
    return stream.classify(features, 1)


@torch.no_grad()
def early_exit_over_time(net: TeamNetIC, read: Read, clips: int, policy: Policy) -> Decisions:
    """Decide every one of `clips` clips as early as the policy's route lets it.

    Segments are read, and stages run, only for clips that are undecided. Whatever `read` raises
    ends it. Raises ValueError as `check_route`.
    """
    check_route(net, policy.route)
    device = next(net.parameters()).device
    decided = Deciding(policy, clips, net.backbone.config["num_classes"], device)
    reading = _Reading(net, read, policy.evidence, bool(exits_of(policy.route)))
    seen: tuple[torch.Tensor, ...] = ()
    for segments, depth in policy.route[:-1]:
        seen = (*seen, reading.answer(segments, depth, decided.rows))
        stays = decided.at_exit(seen)
        if not stays.any():
            return decided.decisions
        if not stays.all():
            seen = tuple(logits[stays] for logits in seen)
            reading.keep(stays)
    decided.at_end((*seen, reading.answer(*policy.route[-1], decided.rows)))
    return decided.decisions
