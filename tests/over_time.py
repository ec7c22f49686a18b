"""Routes and policies of the tests of exits over time."""

import numpy as np

from early_exit.policy import Policy

T = 4
EXITS = ("exit1", "exit3")
ROUTES = [
    ["full@1", "full@2", "full@3"],
    ["exit1@1", "exit3@1", "full@1", "full@3"],
    ["exit1@1", "exit1@3", "full@3", "exit1@4"],
    ["exit1@4", "exit3@4"],
    ["full@1", "exit1@2", "exit3@2"],
]
STREAM_ROUTES = [
    ["streams_then_time"],
    ["streams_coarse"],
    ["mv@1", "iframe+mv@1", "residual@2", "full@3"],
    ["residual@4", "iframe+residual@4"],
]


def policy_of(route, thresholds, evidence="logits", weights=None):
    number = len(route)
    weights = np.eye(number) if weights is None else weights
    rows = tuple(map(tuple, weights.tolist()))
    exits = tuple(range(1, number))
    return Policy(exits, tuple(thresholds), rows, route=route, evidence=evidence)
