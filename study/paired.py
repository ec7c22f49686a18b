"""Paired differences of top-1 and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """Of top-1 in points, per decision point (D,): the mean, its interval, and the sample standard
    deviations over runs (or backbones) and over the means of splits; NaN of one."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    std_over_runs: np.ndarray
    std_over_splits: np.ndarray


class Units(NamedTuple):
    """What a bootstrap draws: names (U,); of each unit, sums over its videos: (U, D) of their
    differences by their weights, and (U,) of the weights. A mean is sums / weights."""

    names: np.ndarray
    sums: np.ndarray
    weights: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return self.sums.sum(axis=0) / self.weights.sum()


def paired_difference(
    splits: Sequence[np.ndarray],
    groups: Sequence[Sequence],
    weights: Sequence[np.ndarray] | None = None,
    *,
    confidence_pct: float = 95.0,
    samples: int = 10_000,
) -> Difference:
    """Percentile bootstrap (Efron and Tibshirani 1993, section 13.3), stratified by split.

    splits: per split (seeds, n, D), correct of the first minus correct of the second, in -1..1.
    groups: per split the unit of each of the n videos; the videos of a unit are drawn together.
    weights: per split (n,) of the videos (1).
    """
    rng = np.random.default_rng(0)
    if weights is None:
        weights = [np.ones(difference.shape[1]) for difference in splits]
    units = list(map(by_unit, splits, groups, weights))
    total, drawn = 0, 0
    for of_split in units:
        draws = _draw(rng, len(of_split.names), samples)
        total, drawn = total + draws @ of_split.sums, drawn + draws @ of_split.weights
    mean = sum(u.sums.sum(axis=0) for u in units) / sum(u.weights.sum() for u in units)
    runs = [
        np.average(run, axis=0, weights=w)
        for difference, w in zip(splits, weights)
        for run in difference
    ]
    of_splits = [of_split.mean for of_split in units]
    return _difference(mean, total / drawn[:, None], runs, of_splits, confidence_pct)


def over_backbones(
    splits: Sequence[str],
    units: Sequence[Units],
    *,
    confidence_pct: float = 95.0,
    samples: int = 10_000,
) -> Difference:
    """Hierarchical percentile bootstrap: it draws backbones, and the units of their test videos.

    splits: per backbone the name of its split. Backbones of one split are tested on the same
    videos, so that in a sample they see the same units drawn (else the interval is too narrow, this
    one is rather too wide: results/PROTOCOL.md, changes). That holds without an effect common to a
    split: a simulation with one covered 64 to 89 %; estimated from the 14 cases of question 3 its
    variance is mostly negative, at most 1.2 points squared. Units that one lacks weigh nothing
    there. Each backbone has the same weight in the mean. std_over_runs is over backbones. With one
    backbone the interval is that of its videos.
    """
    rng = np.random.default_rng(0)
    names = {
        split: np.unique(np.concatenate([u.names for s, u in zip(splits, units) if s == split]))
        for split in splits
    }
    draws = {split: _draw(rng, len(known), samples) for split, known in names.items()}
    chosen = rng.integers(len(units), size=(samples, len(units)))
    total = 0
    for number, (split, own) in enumerate(zip(splits, units)):
        drawn = draws[split][:, np.searchsorted(names[split], own.names)]
        with np.errstate(invalid="ignore"):  # of a sample where nothing drawn weighs anything
            means = (drawn @ own.sums) / (drawn @ own.weights)[:, None]
        times = (chosen == number).sum(axis=1)[:, None]
        total = total + np.where(times > 0, times * means, 0)
    means = np.stack([own.mean for own in units])
    of_splits = [means[[s == split for s in splits]].mean(axis=0) for split in names]
    return _difference(means.mean(axis=0), total / len(units), means, of_splits, confidence_pct)


def check_same_videos(backbones: Sequence[tuple[str, str, str]], units: Sequence[Units]) -> None:
    """Raise ValueError where backbones of one split were tested on other videos, or recordings of
    other names: those are drawn apart, and the interval is too narrow.

    backbones: data, split and digest of each.
    """
    known: dict[tuple[str, str], tuple] = {}
    for backbone, own in zip(backbones, units):
        first, of_first = known.setdefault(backbone[:2], (backbone, own))
        videos, of_the_first = (dict(zip(unit.names, unit.weights)) for unit in (own, of_first))
        if videos.keys() != of_the_first.keys() or not np.allclose(
            list(videos.values()), [of_the_first[name] for name in videos]
        ):
            raise ValueError(
                f"{' '.join(backbone)} was not tested on the recordings and numbers of videos that"
                f" {first[2]} was: compare backbones that were tested by the same list"
            )


def by_unit(difference: np.ndarray, units: Sequence, weights: np.ndarray | None = None) -> Units:
    """difference: (seeds, n, D), averaged over seeds; units, weights (1): of each of n videos."""
    names, unit = np.unique(np.asarray(units), return_inverse=True)
    weights = np.ones(len(unit)) if weights is None else np.asarray(weights, float)
    sums = np.zeros((len(names), difference.shape[2]))
    np.add.at(sums, unit, weights[:, None] * difference.mean(axis=0))
    return Units(names, sums, np.bincount(unit, weights))


def _draw(rng: np.random.Generator, units: int, samples: int) -> np.ndarray:
    """(samples, units) how often each unit is drawn, with replacement."""
    return rng.multinomial(units, np.full(units, 1 / units), size=samples)


def _difference(
    mean: np.ndarray,
    drawn: np.ndarray,
    runs: Sequence[np.ndarray],
    splits: Sequence[np.ndarray],
    confidence_pct: float,
) -> Difference:
    """All shares; drawn: (samples, D)."""
    tail = (100 - confidence_pct) / 2
    low, high = np.nanpercentile(100 * drawn, [tail, 100 - tail], axis=0)
    stds = (
        100 * np.std(values, axis=0, ddof=1) if len(values) > 1 else np.full(len(mean), np.nan)
        for values in (runs, splits)
    )
    return Difference(100 * mean, low, high, *stds)
