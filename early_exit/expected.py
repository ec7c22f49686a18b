"""The expected top-1 of leaving early, from a smooth curve instead of counts.

One of 60 held-out videos is 1.7 points of top-1, so one or two clips decide which threshold a count
prefers. Here two logistic regressions over all points of all clips give the chance that a decision
is right, and the chance that the full network is right there. They read the confidence, and how far
along the point is.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from early_exit.gate import logistic

# Confidences this near to 0 or 1 are moved to this distance.
EDGE = 1e-4


def expected_right(sure: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """(n, D) floats that `calibrate` takes as `correct`, for n clips and D decision points.

    sure, correct: (n, D) confidences in [0, 1], and whether a decision there would be right. The
    last column is the full network's top-1. The others add the change that is expected from leaving
    there.
    """
    number, points = sure.shape
    place = np.broadcast_to(np.arange(points) / (points - 1), sure.shape)
    features = np.stack([logit(np.clip(sure, EDGE, 1 - EDGE)), place], -1).reshape(-1, 2)
    at_end = np.broadcast_to(correct[:, -1:], correct.shape)
    here, full = (
        expit(features @ np.array(fitted[:-1]) + fitted[-1]).reshape(number, points)
        for fitted in (logistic(features, right.ravel()) for right in (correct, at_end))
    )
    change = here - full
    change[:, -1] = 0
    return correct[:, -1].mean() + change
