"""Exits over time: a route through pairs (segments read, depth), each a decision point.

A point is named by its depth and its number of segments: `exit1@2` is exit 1 on the first two
segments in reading order, `residual@1` is the residual stream on the first segment, and `full@8` is
the network's own answer after eight. Each point of a route has more segments than the one before,
or the same segments and more depth. `along` turns logits per segment into logits per point, which
WISE, thresholds and promises take like those of any early-exit network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from early_exit.logits import LogitsFile
from early_exit.part import LogitsError, Part
from early_exit.wise import FULL, num_exits
from models import STREAMS
from models.points import (
    EVIDENCE,
    ROUTES,
    answer,
    depth_of,
    exits_of,
    streams_of,
    uses_streams,
)

Route = tuple[tuple[int, str], ...]


def name_of(segments: int, depth: str) -> str:
    return f"{depth}@{segments}"


def point_names(route: Route) -> list[str]:
    """Names of the decision points; the last is the full network's."""
    return [*(name_of(*point) for point in route[:-1]), FULL]


def named_route(name: str, num_segments: int, exits: Sequence[str]) -> Route:
    """The points of a route that has a name.

    time: the full network on 1, 2, .. T segments. depth_then_time: first the exits on one segment,
    then `time`. streams_then_time: first, on one segment, the residual stream, then it and the
    I-frame stream; then `time`. streams_coarse: likewise, but the full network answers only after
    1, 3 and T segments, because several segments in one pass take less time than one by one.
    """
    time = tuple((count, FULL) for count in range(1, num_segments + 1))
    if name == "time":
        return time
    if name.startswith("streams"):
        if name == "streams_coarse":
            time = tuple(point for point in time if point[0] in (1, 3, num_segments))
        return ((1, "residual"), (1, depth_of(("iframe", "residual"))), *time)
    return (*((1, exit_) for exit_ in exits), *time)


def parse_route(words: Sequence[str], num_segments: int, exits: Sequence[str]) -> Route:
    """The route of words such as `exit1@2`, or of a name.

    Raises ValueError for a word that is no point with so many segments and these exits.
    """
    if len(words) == 1 and words[0] in ROUTES:
        return named_route(words[0], num_segments, exits)
    depths = (*exits, FULL)
    route = []
    for word in words:
        found = re.fullmatch(r"(.+)@(\d+)", word)
        known = found and (found[1] in depths or _is_sum(found[1]))
        if not (known and 1 <= int(found[2]) <= num_segments):
            raise ValueError(
                f"{word!r} is no point of a route: DEPTH@SEGMENTS, one of {', '.join(depths)}, or"
                f" streams such as iframe+residual, and 1 to {num_segments} segments; or one of the"
                f" words {', '.join(ROUTES)}"
            )
        route.append((int(found[2]), found[1]))
    if route[-1] != (num_segments, FULL):
        route.append((num_segments, FULL))
    check_route(route)
    return tuple(route)


def check_route(route: Sequence[tuple[int, str]]) -> None:
    """Raises ValueError for what is no point, or adds neither segments nor depth."""
    for segments, depth in route:
        if not (type(segments) is int and segments >= 1 and _is_depth(depth)):
            raise ValueError(f"{(segments, depth)} is no point of a route: (segments, depth)")
        if depth != FULL and streams_of(depth) == STREAMS:
            raise ValueError(
                f"{name_of(segments, depth)} is {name_of(segments, FULL)}; a route names it so"
            )
    for before, after in zip(route, route[1:]):
        if after[0] < before[0] or (after[0] == before[0] and not _is_deeper(before[1], after[1])):
            raise ValueError(
                f"the route goes from {name_of(*before)} to {name_of(*after)}; each point has more"
                " segments than the one before, or the same and more depth"
            )
    if uses_streams(route) and exits_of(route):
        raise ValueError(
            "a route has exits or single streams, not both: an exit needs all the streams"
        )


def _is_depth(depth: object) -> bool:
    if not isinstance(depth, str):
        return False
    return bool(depth == FULL or re.fullmatch(r"exit\d+", depth) or _is_sum(depth))


def _is_sum(depth: str) -> bool:
    """Whether it names streams, in their order."""
    return bool(streams_of(depth)) and depth == depth_of(streams_of(depth))


def _is_deeper(before: str, after: str) -> bool:
    streams, more = streams_of(before), streams_of(after)
    if streams or more:
        return set(streams) < set(more)
    return int(after[4:]) > int(before[4:])


def route_gmacs(route: Route, per_segment: Mapping[str, float]) -> tuple[float, ...]:
    """1e9 MACs per video of leaving at each point, cumulative.

    per_segment: the cost of one segment, by depth, and by stream where the streams of a point are
    not among those of a later one. A segment pays for its deepest exit, and once for each stream.
    """
    paid, run = [0.0] * route[-1][0], [frozenset()] * route[-1][0]
    costs = []
    for segments, depth in route:
        streams = frozenset(streams_of(depth))  # none for an exit
        for number in range(segments):
            run[number] |= streams
            beside = streams and run[number] - streams
            cost = per_segment[depth]
            if beside:
                cost = sum(per_segment[name] for name in sorted(run[number]))
            paid[number] = max(paid[number], cost)
        costs.append(sum(paid))
    return tuple(costs)


def along(
    logits: LogitsFile, route: Route, evidence: str, per_segment: Mapping[str, float]
) -> LogitsFile:
    """The logits at the points of a route, from a file with logits per segment.

    At the last point, with the evidence `logits`, they equal the network's own to the bit.
    per_segment: as in `route_gmacs`. Parts without segments are left out.
    Raises LogitsError when the file has none, or a point costs no more than the one before.
    """
    if evidence not in EVIDENCE:
        raise LogitsError(f"unknown evidence {evidence!r}; one of {', '.join(EVIDENCE)}")
    total = logits.num_segments
    if total is None:
        raise LogitsError(
            "the file has no logits per segment: write it with save_logits.py --per-segment"
        )
    if route[-1] != (total, FULL):
        raise LogitsError(f"the route ends at {name_of(*route[-1])}, not at {FULL}@{total}")
    costs = route_gmacs(route, per_segment)
    if any(after <= before for before, after in zip(costs, costs[1:])):
        raise LogitsError(f"the costs of the route's points do not rise: {costs}")
    columns = {depth: _columns(logits.outputs, depth) for _, depth in route}
    parts = {
        name: part._replace(
            logits=_points(part, [(k, columns[depth]) for k, depth in route], total, evidence),
            segments=None,
        )
        for name, part in logits.parts.items()
        if part.segments is not None
    }
    meta = {
        **logits.meta,
        "exits": list(range(1, len(route))),
        "route": [list(point) for point in route],
        "evidence": evidence,
    }
    return replace(logits, meta=meta, outputs=point_names(route), parts=parts, gmacs=costs)


def _columns(outputs: Sequence[str], depth: str) -> list[int]:
    """The outputs that are summed at a depth."""
    first = num_exits(outputs)
    if depth == FULL:
        return list(range(first, len(outputs)))
    names = streams_of(depth) or [depth]
    missing = [name for name in names if name not in outputs]
    if missing:
        raise LogitsError(f"the logits have no {missing[0]}: outputs are {', '.join(outputs)}")
    return [outputs.index(name) for name in names]


def _points(
    part: Part, points: Sequence[tuple[int, list[int]]], total: int, evidence: str
) -> np.ndarray:
    """(V, n, points, C) float32."""
    segments, own = torch.from_numpy(part.segments), torch.from_numpy(part.logits)
    found = [
        answer(
            segments[:, :, :count, outputs].flatten(0, 1),
            evidence,
            own[:, :, outputs].flatten(0, 1) if count == total else None,
        )
        for count, outputs in points
    ]
    return torch.stack(found, 1).unflatten(0, own.shape[:2]).numpy()
