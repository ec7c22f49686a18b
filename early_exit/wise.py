"""WISE: each exit decides with a weighted sum of its own logits and those of the exits before.

Decision points are the exits, then "full" (the whole network). A combination is a (D, K) matrix of
weights: row d says how much each of the K outputs counts at decision point d.

    vanilla    each exit alone; full = iframe + mv + residual
    constant   the sum of all outputs that have run
    wise       those outputs weighted by beta >= 0, learned: min CE(beta) + alpha * sum(beta)
               (PKD+WISE paper, arXiv 2407.02713). Exit 1 has nothing to combine: its beta is 1.

CE is the mean cross entropy of the weighted sum. It is convex in beta, and the L1 norm is linear
for beta >= 0, so the bounded problem is smooth and has one minimum value. `solver="exact"` finds
it. With `pool="probability"` the softmax of the outputs is averaged, not their logits; that is
convex too. `solver="sgd"` is the published recipe: full-batch gradient descent on CE + alpha *
|beta|_1 from one-hot starts, negative weights set to 0 at the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp

from models import FULL, STREAMS

COMBINATIONS = ("vanilla", "constant", "wise")
POOLS = ("logits", "probability")
SOLVERS = ("exact", "sgd")
SGD_STEPS, SGD_LR = 500, 0.1
# Published start of iframe, mv, residual at the full network; an exit's start is itself.
SGD_STREAM_START = (1.0, 1.2, 1.3)
# The largest projected gradient that a solution may have, for logits of the size of UNIT. CE is of
# order 1 and float64 gradients are exact to 1e-12, so L-BFGS reaches this when it is started again.
STATIONARY = 1e-5
STARTS = 5
# Outputs whose logits typically lead by more than this are divided by their lead before solving.
UNIT = 100.0
# A logit that lies further from the label's, in such units, counts as this far: -1e9 only rules a
# class out.
FURTHEST = 1e4
# The weight of outputs that WISE leaves none: they name the class, and none is likely.
FAINT = 1e-3
# Smaller probabilities count as this one.
TINY = 1e-300


class Fit(NamedTuple):
    """weights (D, K); objective (D,) = CE + alpha * L1 at the weights, ce (D,) its first term."""

    weights: np.ndarray
    objective: np.ndarray
    ce: np.ndarray


def output_names(exits: Sequence[int]) -> list[str]:
    """TEAM-Net's outputs: the exits of these numbers, then the streams."""
    return [*(f"exit{number}" for number in exits), *STREAMS]


def num_exits(outputs: Sequence[str]) -> int:
    """E of K outputs: those before TEAM-Net's three streams, or all but the full network."""
    is_team_net = tuple(outputs[-len(STREAMS) :]) == STREAMS
    return len(outputs) - (len(STREAMS) if is_team_net else 1)


def decision_points(outputs: Sequence[str]) -> list[str]:
    """Names of the D decision points of K outputs: the exits, then "full"."""
    return [*outputs[: num_exits(outputs)], FULL]


def available(outputs: Sequence[str]) -> np.ndarray:
    """(D, K) bool: which outputs have run at each decision point."""
    mask = np.tri(num_exits(outputs) + 1, len(outputs), dtype=bool)
    mask[-1] = True
    return mask


def vanilla_weights(outputs: Sequence[str]) -> np.ndarray:
    """(D, K): one-hot rows, then the three streams, or the last output."""
    exits = num_exits(outputs)
    weights = np.eye(exits + 1, len(outputs))
    weights[-1, exits:] = 1
    return weights


def constant_weights(outputs: Sequence[str]) -> np.ndarray:
    """(D, K): 1 for every output that has run."""
    return available(outputs).astype(float)


def combine(
    logits: np.ndarray,
    weights: np.ndarray,
    pool: str = "logits",
    temperatures: Sequence[float] = (),
) -> np.ndarray:
    """(n, D, C) float64 combined logits from (n, K, C) logits and (D, K) weights.

    temperatures: K numbers that divide the outputs' logits first, or none. pool: `logits`, their
    weighted sum; `probability`, the log of the weighted mean of their softmax.
    """
    logits = logits.astype(np.float64)
    if len(temperatures):
        logits = logits / np.asarray(temperatures)[:, None]
    if pool == "logits":
        return np.einsum("dk,nkc->ndc", weights, logits, optimize=True)
    log_p = log_softmax(logits, axis=2)
    shares = weights / weights.sum(axis=1, keepdims=True)
    # Row by row, because one array for all rows would be large and mostly 0.
    rows = [logsumexp(log_p[:, row > 0], axis=1, b=row[row > 0, None]) for row in shares]
    return np.stack(rows, axis=1)


def cross_entropy(combined: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(D,) mean cross entropy of (n, D, C) logits against (n,) labels."""
    rows = np.arange(len(labels))
    margins = combined - combined[rows, :, labels][:, :, None]  # (n, D, C), 0 at the label
    return np.mean(logsumexp(margins, axis=2), axis=0)


def top1_pct(combined: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(D,) share in percent of the n rows whose largest logit is the label's."""
    return 100 * np.sum(combined.argmax(axis=2) == labels[:, None], axis=0) / len(labels)


def fit(
    logits: np.ndarray,
    labels: np.ndarray,
    outputs: Sequence[str],
    alpha: float = 0.01,
    solver: str = "exact",
    pool: str = "logits",
    temperatures: Sequence[float] = (),
) -> Fit:
    """Learn the WISE weights from (n, K, C) logits and (n,) labels.

    pool and temperatures as in `combine`. The weights of a pool of probabilities sum to 1, so their
    L1 norm is constant. It is left out, and only the exact solver can be used. Logits far from the
    label's are cut at FURTHEST. A decision point that is left without weight, which would call all
    videos class 0, has FAINT ones, and a warning says so. Raises ValueError for an unknown solver
    or alpha < 0, and where no minimum was reached.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}; there are {', '.join(SOLVERS)}")
    if pool not in POOLS:
        raise ValueError(f"unknown pool {pool!r}; there are {', '.join(POOLS)}")
    if pool == "probability" and solver != "exact":
        raise ValueError(f"the solver {solver} is for the pool of logits; the other one is exact")
    if not alpha >= 0:
        raise ValueError(f"alpha is {alpha}, expected 0 or more")
    rows = np.arange(len(labels))
    logits = np.asarray(logits, dtype=np.float64)
    if len(temperatures):
        logits = logits / np.asarray(temperatures)[:, None]
    weights = vanilla_weights(outputs)
    starts = vanilla_weights(outputs)
    if num_exits(outputs) == len(outputs) - len(STREAMS):
        starts[-1, -len(STREAMS) :] = SGD_STREAM_START
    mask = available(outputs)
    if pool == "probability":
        right = np.exp(log_softmax(logits, axis=2)[rows, :, labels]).T  # (K, n)
        for point in range(len(weights)):
            ran = mask[point]
            weights[point, ran] = _solve_pool(right[ran])
        ce = -np.mean(np.log(np.maximum(weights @ right, TINY)), axis=1)
        return Fit(weights, ce, ce)
    margins = np.ascontiguousarray(logits.swapaxes(0, 1))
    margins -= margins[:, rows, labels][:, :, None]  # (K, n, C): CE needs no labels after this
    units = _units(margins, labels)
    furthest = FURTHEST * units[:, None, None]
    np.clip(margins, -furthest, furthest, out=margins)
    for point, name in enumerate(decision_points(outputs)[1:], 1):
        ran = mask[point]
        if solver == "exact":
            scaled = margins[ran] / units[ran, None, None]
            beta, violation = _solve_exactly(scaled, starts[point, ran], alpha, units[ran])
            weights[point, ran] = beta / units[ran]
            if violation > STATIONARY:
                largest = np.abs(logits[:, ran]).max(axis=(0, 2))
                raise ValueError(
                    f"WISE finds no minimum at {name} (gradient {violation:.1e}); the largest logit"
                    f" is {largest.max():g}, of {outputs[np.flatnonzero(ran)[largest.argmax()]]}:"
                    " divide its logits by a constant, or fit with --temperature"
                )
        else:
            weights[point, ran] = _solve_by_sgd(margins[ran], starts[point, ran], alpha)
        if not weights[point].any():
            warnings.warn(
                f"WISE (alpha {alpha:g}) leaves no weight at {name}: its outputs tell too little,"
                " or rule true classes out. They are weighed alike, so faintly that nobody leaves",
                stacklevel=2,
            )
            weights[point, ran] = FAINT / units[ran]
    ce = np.array([_loss(row, margins)[0] for row in weights])
    return Fit(weights, ce + alpha * np.abs(weights).sum(axis=1), ce)


def fit_temperature(combined: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the smallest mean cross entropy over all D points of (n, D, C) logits.

    Temperature scaling (Guo et al., ICML 2017), between 1/100 and 100.
    """

    def loss(log_temperature):
        return cross_entropy(combined / np.exp(log_temperature), labels).mean()

    bound = np.log(100)
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K,): `fit_temperature` of each output of (n, K, C) on its own."""
    columns = np.asarray(logits, dtype=np.float64).swapaxes(0, 1)[:, :, None]  # (K, n, 1, C)
    return np.array([fit_temperature(column, labels) for column in columns])


def _loss(beta: np.ndarray, margins: np.ndarray) -> tuple[float, np.ndarray]:
    """CE and its gradient (K,) for margins (K, n, C) = logits minus the label's logit."""
    combined = np.tensordot(beta, margins, 1)  # (n, C)
    log_norm = logsumexp(combined, axis=1)
    probabilities = np.exp(combined - log_norm[:, None])
    return float(log_norm.mean()), np.tensordot(margins, probabilities, 2) / len(log_norm)


def _units(margins: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K,) the median distance between the label's logit and the nearest other one, of outputs
    where it is above UNIT; else 1. Of margins (K, n, C)."""
    distance = np.abs(margins)
    distance[:, np.arange(len(labels)), labels] = np.inf
    typical = np.median(distance.min(axis=2), axis=1)
    return np.where(typical > UNIT, typical, 1.0)


def _solve_exactly(
    margins: np.ndarray, start: np.ndarray, alpha: float, units: np.ndarray
) -> tuple[np.ndarray, float]:
    """The betas (K,) of margins in these units (K,), and their largest projected gradient."""

    def objective(beta):
        ce, gradient = _loss(beta, margins)
        return ce + alpha * (beta / units).sum(), gradient + alpha / units

    return _minimise(objective, start, np.inf)


def _minimise(objective: Callable, start: np.ndarray, high: float) -> tuple[np.ndarray, float]:
    """The x with the least objective, 0 <= x <= high, and its largest projected gradient.

    L-BFGS-B ends where steps hardly lower the objective. That may be far from the minimum where
    outputs are alike, as means of a few more segments are; without its memory it goes on.
    """
    x = start
    for _ in range(STARTS):
        x = minimize(
            objective,
            x,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, high)] * len(x),
            options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
        ).x
        # It is 0 at the minimum, where no step inside the bounds lowers the objective.
        violation = float(np.abs(x - np.clip(x - objective(x)[1], 0, high)).max())
        if violation <= STATIONARY:
            break
    return x, violation


def _solve_pool(right: np.ndarray) -> np.ndarray:
    """Weights of the linear pool with the least cross entropy, of (K, n) probabilities of labels.

    min over w >= 0 of -mean(log(w @ right)) + sum(w): at its minimum the weights sum to 1.
    """

    def objective(weights):
        pooled = np.maximum(weights @ right, TINY)
        return weights.sum() - np.log(pooled).mean(), 1 - (right / pooled).mean(axis=1)

    found, _ = _minimise(objective, np.full(len(right), 1 / len(right)), 1)
    return found / found.sum()


def _solve_by_sgd(margins: np.ndarray, start: np.ndarray, alpha: float) -> np.ndarray:
    beta = start.copy()
    for _ in range(SGD_STEPS):
        beta -= SGD_LR * (_loss(beta, margins)[1] + alpha * np.sign(beta))
    return np.maximum(beta, 0)
