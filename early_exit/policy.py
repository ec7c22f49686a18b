"""Policies on disk, and what they decide from saved logits."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coviar.files import whole_file
from early_exit.thresholds import confidences, leave_at
from early_exit.wise import combine
from models.policy import Policy

POLICY_NAME = "policy.json"


class Decisions(NamedTuple):
    """For n clips: the decision point 0..E at which each leaves (E: full network), its label."""

    points: np.ndarray
    labels: np.ndarray


def combined_logits(policy: Policy, logits: np.ndarray) -> np.ndarray:
    """(n, D, C) float64 combined logits of the policy's decision points, of logits (n, K, C)."""
    return combine(logits, np.array(policy.weights), policy.pool, policy.output_temperatures)


def policy_confidences(policy: Policy, combined: np.ndarray) -> np.ndarray:
    """(n, D) confidences of combined logits (n, D, C)."""
    return confidences(combined, policy.confidence, policy.temperature, policy.gate)


def decide(policy: Policy, logits: np.ndarray) -> Decisions:
    """What the policy decides from logits (n, K, C), outputs: the policy's exits, then streams."""
    combined = combined_logits(policy, logits)
    points = leave_at(policy_confidences(policy, combined), policy.thresholds)
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
        return Policy(**{key: _tuples(value) for key, value in content.items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a policy file ({error})") from error


def _tuples(value: object) -> object:
    """The value with tuples for JSON's lists; dicts, which hold plain values, stay as they are."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return value
