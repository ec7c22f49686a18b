"""Paired differences of top-1 and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """Of top-1 in points, per decision point (D,): the mean, its interval, the spread over runs."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    std_over_runs: np.ndarray


def paired_difference(
    splits: Sequence[np.ndarray],
    groups: Sequence[Sequence],
    *,
    confidence_pct: float = 95.0,
    samples: int = 10_000,
) -> Difference:
    """Percentile bootstrap (Efron and Tibshirani 1993, section 13.3), stratified by split.

    splits: per split (seeds, n, D), correct of the first minus correct of the second, in -1..1.
    groups: per split the unit of each of the n videos; the videos of a unit are drawn together.
    """
    rng = np.random.default_rng(0)
    total, counted = 0, 0
    for difference, units in zip(splits, groups):
        sums, counts = _draw(rng, *by_unit(difference, units), samples)
        total, counted = total + sums, counted + counts
    tail = (100 - confidence_pct) / 2
    low, high = np.percentile(100 * total / counted[:, None], [tail, 100 - tail], axis=0)
    videos = sum(difference.shape[1] for difference in splits)
    mean = sum(difference.mean(axis=0).sum(axis=0) for difference in splits) / videos
    per_run = np.concatenate([difference.mean(axis=1) for difference in splits])  # (runs, D)
    spread = per_run.std(axis=0, ddof=1) if len(per_run) > 1 else np.full(per_run.shape[1], np.nan)
    return Difference(100 * mean, low, high, 100 * spread)


def over_backbones(
    sums: Sequence[np.ndarray],
    counts: Sequence[np.ndarray],
    *,
    confidence_pct: float = 95.0,
    samples: int = 10_000,
) -> Difference:
    """Hierarchical percentile bootstrap: it draws backbones, and in each the units of its videos.

    sums: per backbone (U, D), of each unit the sum, over its videos, of correct of the first minus
    correct of the second; counts: (U,) its videos. Each backbone has the same weight in the mean.
    std_over_runs is over backbones. With one backbone the interval is that of its videos.
    """
    rng = np.random.default_rng(0)
    number = len(sums)
    means = np.stack([own.sum(axis=0) / n.sum() for own, n in zip(sums, counts)])  # (B, D)
    total = np.zeros((samples, means.shape[1]))
    for _ in range(number):
        chosen = rng.integers(number, size=samples)
        for b, of_units in enumerate(zip(sums, counts)):
            rows = np.flatnonzero(chosen == b)
            drawn, videos = _draw(rng, *of_units, len(rows))
            total[rows] += drawn / videos[:, None]
    tail = (100 - confidence_pct) / 2
    low, high = np.percentile(100 * total / number, [tail, 100 - tail], axis=0)
    spread = means.std(axis=0, ddof=1) if number > 1 else np.full(means.shape[1], np.nan)
    return Difference(100 * means.mean(axis=0), low, high, 100 * spread)


def by_unit(difference: np.ndarray, units: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Per unit, in the order of their names: the sum, over its videos, of means over seeds (U, D),
    and the number of videos (U,). difference: (seeds, n, D); units: of each of the n videos."""
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    counts = np.bincount(unit)
    sums = np.zeros((len(counts), difference.shape[2]))
    np.add.at(sums, unit, difference.mean(axis=0))
    return sums, counts


def _draw(
    rng: np.random.Generator, sums: np.ndarray, counts: np.ndarray, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """(samples, D) sums and (samples,) numbers of videos, of U units drawn with replacement."""
    number = len(counts)
    draws = rng.multinomial(number, np.full(number, 1 / number), size=samples)
    return draws @ sums, draws @ counts
