"""Decision points of exits over time: pairs (segments read, depth), and what is answered there.

A depth is an exit, a sum of streams such as `iframe+residual`, or `full`. Needs no network, so what
reads saved logits does not import torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models import FULL, STREAMS

EVIDENCE = ("logits", "probability")
# By name, see early_exit.route.
ROUTES = ("time", "depth_then_time", "streams_then_time", "streams_coarse")


def streams_of(depth: str) -> tuple[str, ...]:
    """The streams whose sum a depth is: all of `full`, those named in `iframe+residual`, none of an
    exit."""
    return STREAMS if depth == FULL else tuple(x for x in STREAMS if x in depth.split("+"))


def depth_of(streams: Sequence[str]) -> str:
    """The name of the sum of these streams."""
    return "+".join(x for x in STREAMS if x in streams)


def uses_streams(route: Sequence[tuple[int, str]]) -> bool:
    """Whether some point of the route is a part of the streams."""
    return any(streams_of(depth) not in ((), STREAMS) for _, depth in route)


def exits_of(route: Sequence[tuple[int, str]]) -> list[int]:
    """The numbers of the exits on a route, ascending."""
    return sorted({int(depth[4:]) for _, depth in route if not streams_of(depth)})


def answer(
    segments: torch.Tensor, evidence: str = "logits", whole: torch.Tensor | None = None
) -> torch.Tensor:
    """(n, C): what k segments say together, of their logits (n, k, outputs, C), float16 numbers.

    The outputs are summed: one exit, or the three streams. evidence: the mean of `logits`, or the
    log of the mean `probability`. whole: (n, outputs, C), the network's own mean over all segments,
    which is the answer where it is given and the evidence is the logits.
    """
    if evidence == "logits":
        mean = segments.float().mean(1) if whole is None else whole
        return sum(mean.unbind(1))
    log_p = torch.log_softmax(sum(segments.float().unbind(2)), -1)
    return torch.logsumexp(log_p, 1) - torch.log(torch.tensor(float(segments.shape[1])))
