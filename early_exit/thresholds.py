"""Early exiting by thresholds: which clips leave where, how accurate that is, what it costs.

A clip leaves at the first exit whose confidence exceeds the threshold. The last decision point, the
full network, takes all that are left. Confidences lie in [0, 1], so no clip exceeds a threshold of
1 or more. Costs count every clip, right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from early_exit.confidence import Gate, Temperature, confidence_at

# Even steps, then finer ones towards 1, where most confidences of a good network lie.
DEFAULT_THRESHOLDS = tuple(
    [round(0.01 * step, 2) for step in range(99)]
    + [0.99, 0.992, 0.994, 0.996, 0.998, 0.999, 0.9995, 0.9999, 1.0]
)
# Confidences closer than this count as equal, since the network computes in float32.
RESOLUTION = 1e-6


class Sweep(NamedTuple):
    """Early exiting at T thresholds with D decision points.

    thresholds (T,), top1_pct (T,), gmacs (T,) mean over all clips; share_pct (T, D) of the clips
    that leave there; point_top1_pct (T, D) of those, NaN where nobody leaves.
    """

    thresholds: np.ndarray
    top1_pct: np.ndarray
    gmacs: np.ndarray
    share_pct: np.ndarray
    point_top1_pct: np.ndarray


def confidences(
    combined: np.ndarray, kind: str = "max", temperature: Temperature = 1.0, gate: Gate = ()
) -> np.ndarray:
    """(n, D) float64 confidences of combined logits (n, D, C), see `confidence_at`."""
    seen = list(torch.from_numpy(combined).unbind(1))
    points = [
        confidence_at(seen[: d + 1], len(seen), kind, temperature, gate) for d in range(len(seen))
    ]
    return torch.stack(points, 1).numpy()


def leave_at(sure: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """(n,) decision point 0..D-1 at which each clip leaves, for confidences (n, D).

    thresholds: one for each of the first D - 1 points.
    """
    over = sure[:, :-1] > np.asarray(thresholds)
    return np.where(over.any(axis=1), over.argmax(axis=1), sure.shape[1] - 1)


def sweep(
    sure: np.ndarray, correct: np.ndarray, costs: Sequence[float], thresholds: Sequence[float]
) -> Sweep:
    """Early exiting at each of T thresholds, the same for all exits (the paper's rule).

    sure, correct: (n, D) confidence and whether the decision would be right. costs: (D,) cumulative
    gmacs of leaving there. Takes O(n log n + T log n): a clip has left by point d at every
    threshold below its largest confidence so far, so one sort of these answers all thresholds.
    """
    thresholds = np.asarray(thresholds, dtype=np.float64)
    number, points = sure.shape
    largest = np.maximum.accumulate(sure, axis=1)
    largest[:, -1] = np.inf
    gone = np.zeros(len(thresholds))
    share, right = np.empty((2, len(thresholds), points))
    for d in range(points):
        by_now = _above(largest[:, d], np.ones(number), thresholds)
        share[:, d] = by_now - gone
        # Of those who have left by now, count the ones right here, without those gone before.
        right[:, d] = _above(largest[:, d], correct[:, d], thresholds)
        if d:
            right[:, d] -= _above(largest[:, d - 1], correct[:, d], thresholds)
        gone = by_now
    with np.errstate(invalid="ignore", divide="ignore"):
        point_top1 = np.where(share > 0, 100 * right / share, np.nan)
    return Sweep(
        thresholds,
        100 * right.sum(axis=1) / number,
        share @ np.asarray(costs, dtype=np.float64) / number,
        100 * share / number,
        point_top1,
    )


def distinct_thresholds(values: np.ndarray) -> np.ndarray:
    """0, 1 and a threshold halfway between any two neighbours among `values`: no other matters.

    Halfway, so that round-off in the network does not decide which clips leave.
    """
    values = np.unique(values)
    apart = np.diff(values) > RESOLUTION
    return np.concatenate([[0.0], (values[:-1] + values[1:])[apart] / 2, [1.0]])


def _above(values: np.ndarray, weights: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(T,) sum of the weights whose value is larger than the threshold."""
    order = np.argsort(values)
    total = np.concatenate([[0.0], np.cumsum(weights[order], dtype=np.float64)])
    return total[-1] - total[np.searchsorted(values[order], thresholds, side="right")]
