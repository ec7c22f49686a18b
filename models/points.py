"""Decision points of exits over time: pairs (segments read, depth), and the answer at each.

A depth is an exit, a sum of streams such as `iframe+residual`, or `full`. This file needs no
network, so scripts that read saved logits do not import torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models import FULL, STREAMS

EVIDENCE = ("logits", "probability")
# By name, see early_exit.route.
ROUTES = ("time", "depth_then_time", "streams_then_time", "streams_coarse")


def streams_of(depth: str) -> tuple[str, ...]:
    """The streams that are summed at a depth: all for `full`, two for `iframe+residual`, none for
    an exit."""
    return STREAMS if depth == FULL else tuple(x for x in STREAMS if x in depth.split("+"))


def depth_of(streams: Sequence[str]) -> str:
    """The name of the sum of these streams."""
    return "+".join(x for x in STREAMS if x in streams)


def uses_streams(route: Sequence[tuple[int, str]]) -> bool:
    """Whether some point of the route sums only some of the streams."""
    return any(streams_of(depth) not in ((), STREAMS) for _, depth in route)


def exits_of(route: Sequence[tuple[int, str]]) -> list[int]:
    """The numbers of the exits on a route, ascending."""
    return sorted({int(depth[4:]) for _, depth in route if not streams_of(depth)})


def answer(
    segments: torch.Tensor, evidence: str = "logits", whole: torch.Tensor | None = None
) -> torch.Tensor:
    """(n, C): the answer of k segments together, from their logits (n, k, outputs, C) in float16.

    The outputs are summed: one exit, or some streams. evidence: `logits` averages the logits,
    `probability` averages the probabilities and returns the log. whole: (n, outputs, C), the
    network's own mean over all segments. With the evidence `logits` it takes the place of the mean.
    """
    if evidence == "logits":
        mean = segments.float().mean(1) if whole is None else whole
        return sum(mean.unbind(1))
    log_p = torch.log_softmax(sum(segments.float().unbind(2)), -1)
    return torch.logsumexp(log_p, 1) - torch.log(torch.tensor(float(segments.shape[1])))
