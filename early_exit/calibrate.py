"""Choose thresholds and a temperature on held-out logits, for a cost budget or a loss of accuracy.

`sure` is (n, D): the confidence of n clips at D decision points. `correct` is (n, D): whether a
decision there would be right, or how likely that is (early_exit.expected). `costs` is (D,): what
leaving there costs per video, in gmacs or milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from early_exit.thresholds import distinct_thresholds, sweep

RULES = ("common", "per_exit")
# Thresholds tried at each exit, in all combinations. Finer grids look better on the videos on which
# they are chosen, and do worse on others.
GRID_LEVELS = 20
# Of a table of all combinations, whose dimensions are exits. 16 M floats are 0.1 GB.
MOST_CELLS = 2**24
ROUNDING = 1e-9  # costs are sums of floats, percents are quotients


class Goal(NamedTuple):
    """Spend least with top-1 of at least `min_top1_pct`, or be best within `max_cost`.

    One of the two is None. unit: of the costs.
    """

    min_top1_pct: float | None = None
    max_cost: float | None = None
    unit: str = "gmacs"


class Choice(NamedTuple):
    """thresholds: one per exit. reached: False when no thresholds reach the wanted accuracy; these
    are then the most accurate ones."""

    thresholds: tuple[float, ...]
    reached: bool


def levels_of(exits: int, most: int) -> int:
    """How many thresholds of each exit can be tried in all combinations, at most `most`.

    Raises ValueError where there are too many exits for two each.
    """
    for levels in range(most, 1, -1):
        # A common threshold comes to them, and the table counts what is above all.
        if (levels + 2) ** exits <= MOST_CELLS:
            return levels
    raise ValueError(
        f"{exits} exits are too many for a threshold each: their combinations do not fit into"
        " memory; one common threshold does"
    )


def calibrate(
    sure: np.ndarray, correct: np.ndarray, costs: Sequence[float], goal: Goal, rule: str
) -> Choice:
    """The thresholds that serve the goal best, `common` to all exits or `per_exit`.

    The common ones are exact: every distinct confidence is tried. The others are the best on a grid
    that holds the best common one, so they are never worse on the videos on which they are chosen;
    the grid is coarser for more than 5 exits. Raises ValueError when even the cheapest thresholds
    exceed the budget, and as `levels_of`.
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; there are {', '.join(RULES)}")
    exits = sure.shape[1] - 1
    largest = np.maximum.accumulate(sure[:, :-1], axis=1)
    common = distinct_thresholds(largest)
    curve = sweep(sure, correct, costs, common)
    best, reached = _best(curve.top1_pct, curve.gmacs, goal)
    if rule == "common":
        return Choice((float(common[best]),) * exits, reached)
    count = levels_of(exits, GRID_LEVELS)
    levels = [_grid(sure[:, k], common[best], count) for k in range(exits)]
    top1, cost = all_combinations(sure, correct, costs, levels)
    best, reached = _best(top1.ravel(), cost.ravel(), goal)
    chosen = np.unravel_index(best, top1.shape)
    return Choice(tuple(float(level[j]) for level, j in zip(levels, chosen)), reached)


def check_budget(budget: float, cheapest: float, unit: str) -> None:
    """Raise ValueError where no thresholds are as cheap as the budget."""
    if budget + ROUNDING < cheapest:
        raise ValueError(f"a budget of {budget:g} {unit} is below the cheapest, {cheapest:.4g}")


def _best(top1_pct: np.ndarray, cost: np.ndarray, goal: Goal) -> tuple[int, bool]:
    """Index of the choice that serves the goal best, and whether it reaches it."""
    if goal.max_cost is not None:
        check_budget(goal.max_cost, cost.min(), goal.unit)
        allowed = cost <= goal.max_cost + ROUNDING
        order = np.lexsort((cost, -top1_pct))
    else:
        allowed = top1_pct >= goal.min_top1_pct - ROUNDING
        if not allowed.any():
            return int(np.lexsort((cost, -top1_pct))[0]), False
        order = np.lexsort((-top1_pct, cost))
    return int(order[np.argmax(allowed[order])]), True


def _grid(values: np.ndarray, common: float, count: int) -> np.ndarray:
    """Ascending thresholds for one exit: `count`, evenly over its distinct confidences, and
    `common`."""
    thresholds = distinct_thresholds(values)
    evenly = np.linspace(0, len(thresholds) - 1, count).round().astype(int)
    return np.unique(np.append(thresholds[evenly], common))


def all_combinations(
    sure: np.ndarray, correct: np.ndarray, costs: Sequence[float], levels: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """top1_pct and mean cost, each (L1, .., LE), of every combination of the exits' thresholds.

    A clip's code at an exit is the number of that exit's levels below its confidence: it leaves at
    level j if its code is larger than j. Sums over a histogram of codes then count all
    combinations at once, whatever the number of clips.
    """
    number, exits = len(sure), len(levels)
    codes = [np.searchsorted(level, sure[:, k], side="left") for k, level in enumerate(levels)]
    right, gmacs = np.zeros((2, *map(len, levels)))
    for k, cost in enumerate(costs):
        seen = min(k + 1, exits)  # exits whose thresholds decide who leaves at point k
        for table, weights in ((right, correct[:, k]), (gmacs, np.full(number, cost))):
            shape = [len(level) + 1 for level in levels[:seen]]
            cells = np.ravel_multi_index(codes[:seen], shape)
            sums = np.bincount(cells, weights, minlength=int(np.prod(shape))).reshape(shape)
            for axis in range(seen):
                up_to = np.cumsum(sums, axis=axis)
                stayed = np.delete(up_to, -1, axis)
                total = np.take(up_to, [-1], axis)
                sums = total - stayed if axis == k else stayed
            table += sums.reshape(sums.shape + (1,) * (exits - seen))
    return 100 * right / number, gmacs / number
