"""How often leaving will be right, by a smooth curve in the place of counts.

Of some 60 held-out videos one is 1.7 points of top-1, so a threshold chosen by counting the right
ones is chosen by one or two clips. Here two logistic regressions over all points of all clips say
how likely a decision is to be right, and the full network in its place, from the confidence and
how far along the point is.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from early_exit.gate import logistic

# Confidences nearer to 0 or 1 than this are taken for it.
EDGE = 1e-4


def expected_right(sure: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """(n, D) floats for `calibrate` in the place of `correct`, of n clips and D decision points.

    sure, correct: (n, D) confidences in [0, 1], and whether deciding there would be right. The last
    column is the full network's top-1, the others that plus what leaving there is expected to
    change.
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
