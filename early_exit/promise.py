"""Thresholds with a guarantee: Learn then Test on calibration videos, recordings as the unit.

A path of policies, fixed beforehand, leads from the full network to cheaper ones. For each policy
in this order the hypothesis "it breaks the promise" is tested at level alpha = 1 - guarantee. The
tests stop at the first hypothesis that is not rejected, and the policy before it is taken. So the
chance to take a policy that breaks the promise is at most alpha (fixed sequence testing in
Angelopoulos et al., Learn then Test, 2021; for early exits Jazbec et al., Fast yet Safe, NeurIPS
2024).

What is promised, if the recordings are drawn independently from those that will come:

    drop          of the top-1 of the full network at most `limit` is lost
    disagreement  at most `limit` of the videos get another label than the full network's
    exit_error    at most `limit` of the videos that leave early are wrong
    budget        the mean cost is at most `limit` (1e9 MACs)
    budget_ms     the mean time is at most `limit` ms, by measured times of each decision point

With `count="recordings"` a share is the mean over recordings of the share among a recording's
clips. With `count="clips"` it is the mean over clips: a recording then weighs as many clips as it
has, and the promise assumes that none has more clips than the largest one seen. exit_error is a
ratio of two such means. Both test sum(a) <= limit * sum(b) by the mean of z = a - limit * b over
recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

BUDGETS = {"budget": "GMACs", "budget_ms": "ms"}
KINDS = ("drop", "disagreement", "exit_error", *BUDGETS)
COUNTS = ("recordings", "clips")
TESTS = ("betting", "hoeffding_bentkus")
# A bet risks at most this share of what one recording can lose.
CAP = 0.9
# Policies tested at once.
CHUNK = 8
# As many recordings as nobody has.
FAR = 2**20
# Bets start as if PRIOR_COUNT recordings had been seen, with a mean of half the limit below it and
# a variance of three times the limit.
PRIOR_COUNT, PRIOR_MEAN, PRIOR_VARIANCE = 10, 0.5, 3


class Wish(NamedTuple):
    """limit: a share in 0 to 1, for BUDGETS in their unit; guarantee: a probability."""

    kind: str
    limit: float
    guarantee: float
    count: str = "recordings"
    test: str = "betting"

    def check(self) -> Wish:
        """Return itself. Raises ValueError when a field makes no sense."""
        for field, values in (("kind", KINDS), ("count", COUNTS), ("test", TESTS)):
            if getattr(self, field) not in values:
                raise ValueError(f"unknown {field} {getattr(self, field)!r}; one of {values}")
        if not 0 < self.guarantee < 1:
            raise ValueError(
                f"a guarantee of {self.guarantee:g} cannot be given: it is a probability above 0 "
                "and below 1, say 0.9"
            )
        largest = np.inf if self.kind in BUDGETS else 1
        if not 0 <= self.limit < largest:
            raise ValueError(
                f"a {self.kind} of {self.limit:g} is not at least 0 and below {largest:g}"
            )
        return self


class Losses(NamedTuple):
    """Of P policies on n clips: a and b (P, n) of `sum(a) <= limit * sum(b)`, a in [low, 1]."""

    a: np.ndarray
    b: np.ndarray
    low: float


def losses(
    kind: str,
    points: np.ndarray,
    predicted: np.ndarray,
    labels: np.ndarray,
    costs: Sequence[float],
    full: np.ndarray,
) -> Losses:
    """What is lost, for the promise of this kind.

    points (P, n): where each policy lets each clip leave. predicted (n, D): the label at each
    point. labels (n,): not used by `disagreement` and budgets. costs (D,). full (n,): the labels
    of the full network without exits. A budget counts shares of the full network's cost.
    """
    if kind in BUDGETS:
        spent = np.asarray(costs)[points] / costs[-1]
        return Losses(spent, np.ones_like(spent), 0)
    taken = predicted[np.arange(len(predicted)), points]  # (P, n)
    one = np.ones(points.shape)
    if kind == "disagreement":
        return Losses((taken != full).astype(float), one, 0)
    right = taken == labels
    if kind == "exit_error":
        left = points < predicted.shape[1] - 1
        return Losses((left & ~right).astype(float), left.astype(float), 0)
    return Losses((full == labels).astype(float) - right, one, -1)


def per_recording(
    values: np.ndarray, recordings: np.ndarray, count: str, largest: int | None = None
) -> np.ndarray:
    """(P, G) of values (P, n): the mean over each recording's clips, or their sum over `largest`,
    the number of clips that no recording exceeds (default: of those here).

    recordings (n,): numbers 0 .. G - 1, each present.
    """
    order = np.argsort(recordings, kind="stable")
    sizes = np.bincount(recordings)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.add.reduceat(values[:, order], starts, axis=1)
    return sums / (sizes if count == "recordings" else (largest or sizes.max()))


def betting_p_values(z: np.ndarray, limit: float) -> np.ndarray:
    """(P,) p-values of "the mean of z is 0 or more", for z (P, G) with z <= 1 - limit.

    A gambler starts with 1 and bets that z is below 0. Each recording multiplies what he has by
    1 - bet * z; he makes the bet before he sees the recording. If the mean is 0 or more he loses on
    average, and the probability that he ever has 1 / p is at most p (Ville). The bet is the mean
    over the mean square of the past ("aGRAPA" in Waudby-Smith and Ramdas, Estimating means of
    bounded random variables by betting, 2023). The value depends on the order of the recordings,
    which must be fixed without looking at z.
    """
    return np.exp(-np.maximum(_growth(z, limit).max(axis=1, initial=0), 0))


def hoeffding_bentkus_p_values(z: np.ndarray, limit: float, low: float) -> np.ndarray:
    """(P,) p-values of "the mean of z is 0 or more", for z (P, G) in [low - limit, 1 - limit].

    The smaller of Hoeffding's and Bentkus' bound (Bates et al., Distribution-free, risk-controlling
    prediction sets, 2021) on z scaled to [0, 1].
    """
    number, width = z.shape[1], 1 - low
    mean = (z.mean(axis=1) - low + limit) / width  # in [0, 1]
    wanted = (limit - low) / width
    under = np.clip(np.minimum(mean, wanted), 1e-12, 1 - 1e-12)
    entropy = under * np.log(under / wanted) + (1 - under) * np.log((1 - under) / (1 - wanted))
    hoeffding = np.exp(-number * entropy)
    bentkus = np.e * binom.cdf(np.ceil(number * mean - 1e-9), number, wanted)
    return np.where(mean < wanted, np.minimum(np.minimum(hoeffding, bentkus), 1), 1.0)


def p_values(a: np.ndarray, b: np.ndarray, wish: Wish, limit: float, low: float) -> np.ndarray:
    """(P,) of a and b (P, G) per recording, in the order of the bets."""
    z = a - limit * b
    if wish.test == "betting":
        return betting_p_values(z, limit)
    return hoeffding_bentkus_p_values(z, limit, low)


def rejected_along(a: np.ndarray, b: np.ndarray, wish: Wish, limit: float, low: float) -> list:
    """p-values along the path, up to the first one above alpha: those hypotheses are rejected.

    a, b: (P, G) per recording, in the order of the bets. A list of at most P floats.
    """
    found: list[float] = []
    for start in range(0, len(a), CHUNK):
        part = slice(start, start + CHUNK)
        for p in p_values(a[part], b[part], wish, limit, low).tolist():
            if p > 1 - wish.guarantee:
                return found
            found.append(p)
    return found


def recordings_needed(
    limit: float, guarantee: float, weights: Sequence[float] = (1.0,), least: float = 0.0
) -> float:
    """With fewer recordings `betting` rejects nothing, even if no more than `least` is lost.

    weights: b of the recordings, in the order of the bets; further ones are as these are, in turn.
    least: the smallest share that can be lost, 0 but for budgets. It is not searched for beyond
    about FAR recordings. Infinite for a limit of `least`, or where no recording has a weight.
    """
    if limit <= least or not np.any(weights):
        return np.inf
    while True:
        enough = _growth_at_least(weights, limit, least) >= -np.log(1 - guarantee)
        if enough.any():
            return int(np.argmax(enough)) + 1
        if len(weights) >= FAR:
            return len(weights)
        weights = np.tile(weights, 2)


def least_limit(weights: Sequence[float], guarantee: float, least: float = 0.0) -> float | None:
    """The smallest share that recordings of these weights, in the order of the bets, can promise if
    no more than `least` is lost, or None."""

    def can_promise(limit: float) -> bool:
        return _growth_at_least(weights, limit, least)[-1] >= -np.log(1 - guarantee)

    low, high = least, 0.999
    if len(weights) < 2 or not can_promise(high):
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        if can_promise(middle):
            high = middle
        else:
            low = middle
    return high


def _growth_at_least(weights: Sequence[float], limit: float, least: float) -> np.ndarray:
    return _growth((least - limit) * np.asarray(weights, dtype=float)[None], limit)[0]


def _growth(z: np.ndarray, limit: float) -> np.ndarray:
    """(P, G) log of what the gambler of `betting_p_values` has after each recording."""
    mean, square = -PRIOR_MEAN * limit, PRIOR_VARIANCE * limit + (PRIOR_MEAN * limit) ** 2
    total = PRIOR_COUNT * mean + _before(z)
    squares = PRIOR_COUNT * square + _before(z * z)
    with np.errstate(divide="ignore", invalid="ignore"):
        bets = np.where(squares > 0, -total / squares, 0)
    bets = np.clip(bets, 0, CAP / (1 - limit))
    return np.cumsum(np.log1p(-bets * z), axis=1)


def _before(z: np.ndarray) -> np.ndarray:
    """Sums over the columns before each."""
    sums = np.cumsum(z, axis=1)
    return np.concatenate([np.zeros((len(z), 1)), sums[:, :-1]], axis=1)
