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
