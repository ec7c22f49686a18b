"""When a clip leaves and what it is called then: thresholds, WISE weights, temperature."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from coviar.files import write_json
from early_exit.confidence import (
    CONFIDENCES,
    GATE_FEATURES,
    PLAIN_CONFIDENCES,
    Gate,
    Temperature,
    confidence_at,
    temperature_at,
)
from early_exit.route import EVIDENCE, Route, check_route
from early_exit.thresholds import confidences, leave_at
from early_exit.wise import POOLS, combine, vanilla_weights

POLICY_NAME = "policy.json"


@dataclass(frozen=True)
class Policy:
    """A clip leaves at the first exit k where its confidence is above thresholds[k].

    exits: their E numbers, ascending. thresholds: one per exit; at 1 or above nobody leaves there.
    weights: E + 1 rows (the exits, then the full network) over the outputs: E + 3 for TEAM-Net
    (exits, iframe, mv, residual), E + 1 for any other network (exits, full network).
    A row may only weigh what has run by then: exits up to its own, and in the last row everything.
    pool: combined logits are the weighted sum of the outputs (`logits`), or the log of the weighted
    mean of their softmax (`probability`). output_temperatures: each divides its output before that;
    () for none. temperature: divides the combined logits. gate: see early_exit.confidence.
    route: the points of a policy that reads segment by segment, see early_exit.route; else ().
    With a route the exits are 1 .. E, the outputs are the answers at the E + 1 points, and
    `evidence` says how an answer comes from the segments.
    promise: what is guaranteed, see early_exit.promise; empty for none.
    provenance: plain values that say how the policy was made.
    Raises ValueError when these do not fit together.
    """

    exits: tuple[int, ...]
    thresholds: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    temperature: Temperature = 1.0
    confidence: str = "max"
    provenance: dict = field(default_factory=dict)
    pool: str = "logits"
    output_temperatures: tuple[float, ...] = ()
    gate: Gate = ()
    promise: dict = field(default_factory=dict)
    route: Route = ()
    evidence: str = "logits"

    def __post_init__(self) -> None:
        number = len(self.exits)
        good = all(type(exit_) is int and exit_ > 0 for exit_ in self.exits)
        if not number or not good or list(self.exits) != sorted(set(self.exits)):
            raise ValueError(f"a policy's exits are ascending numbers, not {self.exits}")
        good = all(_is_number(x) and not math.isnan(x) for x in self.thresholds)
        if len(self.thresholds) != number or not good:
            raise ValueError(f"expected {number} thresholds, one per exit, not {self.thresholds}")
        outputs = len(self.weights[-1]) if self.weights else 0
        if outputs not in (number + 1, number + 3) or [len(row) for row in self.weights] != [
            outputs
        ] * (number + 1):
            raise ValueError(
                f"weights of {number} exits are {number + 1} rows of {number + 3}, or of"
                f" {number + 1} for outside logits"
            )
        if not all(_is_number(x) and math.isfinite(x) for row in self.weights for x in row):
            raise ValueError("a policy's weights must be finite numbers")
        if not all(map(any, self.weights)):
            raise ValueError("a decision point has no weight, so all videos would be of class 0")
        if any(any(row[k + 1 :]) for k, row in enumerate(self.weights[:-1])):
            raise ValueError("an exit's weights must be 0 for outputs that come after it")
        self._check_temperatures(number + 1, outputs)
        if self.confidence not in CONFIDENCES:
            raise ValueError(f"unknown confidence {self.confidence!r}; one of {CONFIDENCES}")
        self._check_pool()
        self._check_gate(number)
        if not isinstance(self.provenance, dict):
            raise ValueError(f"a policy's provenance holds fields, not {self.provenance!r}")
        made = self.promise
        if not isinstance(made, dict) or (made and not isinstance(made.get("words"), str)):
            raise ValueError(f"a policy's promise holds fields, `words` among them, not {made!r}")
        if self.evidence not in EVIDENCE:
            raise ValueError(f"unknown evidence {self.evidence!r}; one of {EVIDENCE}")
        if self.route:
            check_route(self.route)
            if not len(self.route) == outputs == number + 1:
                raise ValueError(f"{len(self.route)} points of a route need as many outputs")

    def combine(self, point: int, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """(n, C) combined logits at a decision point, from the outputs (n, C) that have run."""
        # The weights of what has not run are 0.
        weights = self.weights[point][: len(outputs)]
        if self.output_temperatures:
            outputs = [x / scale for x, scale in zip(outputs, self.output_temperatures)]
        if self.pool == "logits":
            return sum(weight * logits for weight, logits in zip(weights, outputs))
        total = sum(weights)
        shares = [
            torch.log_softmax(logits, -1) + math.log(weight / total)
            for weight, logits in zip(weights, outputs)
            if weight
        ]
        return torch.logsumexp(torch.stack(shares), 0)

    def at(
        self, point: int, seen: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the policy says at a decision point (0 .. E - 1: the exits; E: the full network).

        seen: logits (n, C) of the outputs that have run by then, in the order of `weights`.
        Returns the combined logits (n, C), the confidences (n,), and which clips leave, (n,) bool.
        At the full network all leave.
        """
        first = point if self.confidence in PLAIN_CONFIDENCES else 0
        combined = [None] * first + [self.combine(d, seen) for d in range(first, point + 1)]
        points = len(self.exits) + 1
        sure = confidence_at(combined, points, self.confidence, self.temperature, self.gate)
        if point == len(self.exits):
            return combined[-1], sure, torch.ones_like(sure, dtype=torch.bool)
        return combined[-1], sure, sure > self.thresholds[point]

    def temperature_at(self, point: int) -> float:
        """What divides the combined logits of a decision point."""
        return temperature_at(self.temperature, point)

    def _check_temperatures(self, points: int, outputs: int) -> None:
        if isinstance(self.temperature, tuple) and len(self.temperature) != points:
            raise ValueError(f"expected one temperature or {points}, not {self.temperature}")
        if len(self.output_temperatures) not in (0, outputs):
            raise ValueError(f"expected {outputs} output temperatures or none")
        own = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)
        for value in (*own, *self.output_temperatures):
            if not (_is_number(value) and 0 < value < math.inf):
                raise ValueError(f"a policy's temperature is above 0, not {value}")

    def _check_pool(self) -> None:
        if self.pool not in POOLS:
            raise ValueError(f"unknown pool {self.pool!r}; one of {POOLS}")
        if self.pool == "probability":
            for row in self.weights:
                if min(row) < 0 or not sum(row) > 0:
                    raise ValueError("a probability pool needs weights of 0 or more, not all 0")

    def _check_gate(self, exits: int) -> None:
        if (self.confidence == "gate") != bool(self.gate):
            raise ValueError("the confidence `gate` and the gate's weights belong together")
        size = len(GATE_FEATURES) + 1
        for number, entry in enumerate(self.gate, 1):
            good = len(entry) == 3 and len(entry[0]) == len(entry[1]) == size
            values = (*entry[0], *entry[1], entry[2]) if good else ()
            if not good or not all(_is_number(x) and math.isfinite(x) for x in values):
                raise ValueError(f"the gate of exit {number} is not 2 x {size} weights and a share")
        if self.gate and len(self.gate) != exits:
            raise ValueError(f"expected {exits} gates, one per exit, not {len(self.gate)}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def vanilla_policy(
    outputs: Sequence[str], thresholds: Sequence[float], exits: Sequence[int] = (), **others: object
) -> Policy:
    """Each exit decides by its own logits, the full network by its streams.

    outputs: as of `early_exit.wise`. exits: their numbers, by default 1, 2, ... others: of Policy.
    """
    rows = tuple(map(tuple, vanilla_weights(outputs).tolist()))
    exits = exits or range(1, len(thresholds) + 1)
    return Policy(tuple(exits), tuple(thresholds), rows, **others)


class Decided(NamedTuple):
    """For n clips: the decision point 0..E at which each leaves (E: full network), its label."""

    points: np.ndarray
    labels: np.ndarray


def combined_logits(policy: Policy, logits: np.ndarray) -> np.ndarray:
    """(n, D, C) float64 combined logits of the policy's decision points, of logits (n, K, C)."""
    return combine(logits, np.array(policy.weights), policy.pool, policy.output_temperatures)


def policy_confidences(policy: Policy, combined: np.ndarray) -> np.ndarray:
    """(n, D) confidences of combined logits (n, D, C)."""
    return confidences(combined, policy.confidence, policy.temperature, policy.gate)


def decide(policy: Policy, logits: np.ndarray) -> Decided:
    """The policy's decisions for logits (n, K, C)."""
    combined = combined_logits(policy, logits)
    points = leave_at(policy_confidences(policy, combined), policy.thresholds)
    return Decided(points, combined[np.arange(len(points)), points].argmax(axis=1))


def save_policy(path: str | os.PathLike, policy: Policy) -> None:
    """Write the policy's fields as JSON, whole or not at all."""
    write_json(path, dataclasses.asdict(policy))


def load_policy(path: str | os.PathLike) -> Policy:
    """Read a file of `save_policy`; raises FileNotFoundError, or ValueError naming the fault."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such policy; team_net_wise_all_acc.py writes them")
    try:
        content = json.loads(path.read_text())
        return Policy(**{key: _tuples(value) for key, value in content.items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a policy file ({error})") from error


def _tuples(value: object) -> object:
    """The value with tuples for JSON's lists; dicts, which hold plain values, stay as they are."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return value
