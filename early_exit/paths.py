"""Paths of thresholds from the full network to cheaper policies, each row one policy (P, E).

The videos that test a path must not make it. The common path is fixed; the others are made from
other videos.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from early_exit.calibrate import all_combinations, levels_of

PATH_STEPS = 60
PATH_LEVELS = 16


def common_path(kind: str, exits: int) -> np.ndarray:
    """(P, E) one threshold for all exits, from 1 down, finer towards 1; for `patience` that within
    each number of exits that agree."""
    fine = 1 - np.exp(-np.geomspace(14, 0.02, PATH_STEPS))
    if kind == "patience":
        few = fine[:: max(1, exits)]
        agreed = np.arange(exits, -1, -1)
        fine = ((agreed[:, None] + few) / (exits + 1)).ravel()
    return np.repeat(fine[:, None], exits, axis=1)


def quantile_path(sure: np.ndarray) -> np.ndarray:
    """(P, E) one threshold for all exits, at even quantiles of the confidences (n, D) of videos
    that will not test the path; for confidences that do not crowd at 1."""
    values = np.quantile(sure[:, :-1], np.linspace(1, 0, PATH_STEPS))
    return np.repeat(np.unique(values)[::-1, None], sure.shape[1] - 1, axis=1)


def pareto_path(sure: np.ndarray, correct: np.ndarray, costs: Sequence[float]) -> np.ndarray:
    """(P, E) a threshold per exit, from confidences (n, D) of videos that will not test the path.

    Of all combinations of PATH_LEVELS quantiles per exit (of fewer for more than 5 exits), those
    that no cheaper one beats. Raises ValueError as `levels_of`.

    Laufer-Goldenberg et al., Efficiently controlling multiple risks with Pareto testing, ICLR 2023.
    """
    exits = sure.shape[1] - 1
    quantiles = 1 - np.linspace(0, 1, levels_of(exits, PATH_LEVELS)) ** 2
    levels = [np.unique(np.append(np.quantile(sure[:, k], quantiles), 1.0)) for k in range(exits)]
    top1, gmacs = all_combinations(sure, correct, costs, levels)
    order = np.lexsort((-top1.ravel(), gmacs.ravel()))  # from the cheapest, best first
    best = np.maximum.accumulate(top1.ravel()[order])
    better = np.concatenate([[True], best[1:] > best[:-1] + 1e-9])
    chosen = order[better][::-1]
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, PATH_STEPS).round().astype(int))]
    places = np.unravel_index(chosen, top1.shape)
    return np.stack([level[place] for level, place in zip(levels, places)], axis=1)


def leave_along(sure: np.ndarray, path: np.ndarray) -> np.ndarray:
    """(P, n) where each policy of the path (P, E) lets each clip leave, confidences (n, D)."""
    points = np.full((len(path), len(sure)), sure.shape[1] - 1, dtype=np.intp)
    for k in range(sure.shape[1] - 2, -1, -1):
        points[sure[:, k] > path[:, k, None]] = k
    return points
