"""When a clip leaves and what it is called then: thresholds, WISE weights, temperature."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from coviar.files import whole_file
from early_exit.confidence import CONFIDENCES, confidence
from early_exit.thresholds import confidences, leave_at
from early_exit.wise import combine

POLICY_NAME = "policy.json"


@dataclass(frozen=True)
class Policy:
    """A clip leaves at the first exit k with confidence(combined logits) > thresholds[k].

    exits: their E numbers, ascending. thresholds: one per exit; at 1 or above nobody leaves there.
    weights: E + 1 rows (the exits, then the full network) of E + 3 weights over the outputs
    (exits, iframe, mv, residual): a row's combined logits are the weighted sum of the outputs.
    A row may only weigh what has run by then: exits up to its own, and in the last row everything.
    provenance: plain values that say how the policy was made.
    Raises ValueError when these do not fit together.
    """

    exits: tuple[int, ...]
    thresholds: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    temperature: float = 1.0
    confidence: str = "max"
    provenance: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        number = len(self.exits)
        if not number or list(self.exits) != sorted(set(self.exits)):
            raise ValueError(f"a policy's exits are ascending numbers, not {self.exits}")
        if len(self.thresholds) != number or any(map(math.isnan, self.thresholds)):
            raise ValueError(f"expected {number} thresholds, one per exit, not {self.thresholds}")
        if [len(row) for row in self.weights] != [number + 3] * (number + 1):
            raise ValueError(f"weights of {number} exits are {number + 1} rows of {number + 3}")
        if not all(math.isfinite(weight) for row in self.weights for weight in row):
            raise ValueError("a policy's weights must be finite")
        if any(any(row[k + 1 :]) for k, row in enumerate(self.weights[:-1])):
            raise ValueError("an exit's weights must be 0 for outputs that come after it")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"a policy's temperature is above 0, not {self.temperature}")
        if self.confidence not in CONFIDENCES:
            raise ValueError(f"unknown confidence {self.confidence!r}; one of {CONFIDENCES}")

    def at(
        self, point: int, seen: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the policy says at a decision point (0 .. E - 1: the exits; E: the full network).

        seen: logits (n, C) of the outputs that have run by then, in the order of `weights`.
        Returns the combined logits (n, C), the confidences (n,), and who leaves, (n,) bool: at the
        full network all.
        """
        combined = sum(weight * logits for weight, logits in zip(self.weights[point], seen))
        sure = confidence(combined, self.confidence, self.temperature)
        if point == len(self.exits):
            return combined, sure, torch.ones_like(sure, dtype=torch.bool)
        return combined, sure, sure > self.thresholds[point]


class Decisions(NamedTuple):
    """For n clips: the decision point 0..E at which each leaves (E: full network), its label."""

    points: np.ndarray
    labels: np.ndarray


def decide(policy: Policy, logits: np.ndarray) -> Decisions:
    """What the policy decides from logits (n, K, C), outputs: the policy's exits, then streams."""
    combined = combine(logits, np.array(policy.weights))
    sure = confidences(combined, policy.confidence, policy.temperature)
    points = leave_at(sure, policy.thresholds)
    return Decisions(points, combined[np.arange(len(points)), points].argmax(axis=1))


def save_policy(path: str | os.PathLike, policy: Policy) -> None:
    """Write the policy's fields as JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(policy), indent=1) + "\n")


def load_policy(path: str | os.PathLike) -> Policy:
    """Read a file of `save_policy`; raises FileNotFoundError, or ValueError naming the fault."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such policy; team_net_wise_all_acc.py writes them")
    try:
        content = json.loads(path.read_text())
        return Policy(
            **{
                **content,
                "exits": tuple(content["exits"]),
                "thresholds": tuple(map(float, content["thresholds"])),
                "weights": tuple(tuple(map(float, row)) for row in content["weights"]),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a policy file ({error})") from error
