"""Routes and policies of the tests of exits over time, and how these call scripts."""

import numpy as np
import pytest

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


def call(script, *words):
    parser = script.get_args_parser()
    return script.main(parser.parse_args([str(word) for word in words]), parser)


def refused(capsys, script, *words):
    with pytest.raises(SystemExit) as stop:
        call(script, *words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def policy_of(route, thresholds, evidence="logits", weights=None):
    number = len(route)
    weights = np.eye(number) if weights is None else weights
    rows = tuple(map(tuple, weights.tolist()))
    exits = tuple(range(1, number))
    return Policy(exits, tuple(thresholds), rows, route=route, evidence=evidence)
