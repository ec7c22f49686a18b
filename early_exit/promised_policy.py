"""A policy with a promise, from one part of a logits file.

Weights, temperatures, gates and the first step of an exit error are fitted on a share of its
recordings; the promise is tested on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from early_exit import wise
from early_exit.calibrate import check_budget
from early_exit.confidence import Temperature
from early_exit.gate import fit_gate
from early_exit.groups import names_digest, shuffled, split_off
from early_exit.logits import LogitsFile
from early_exit.paths import common_path, leave_along, pareto_path, quantile_path
from early_exit.policy import Policy, combined_logits, policy_confidences, vanilla_policy
from early_exit.promise import (
    BUDGETS,
    Losses,
    Wish,
    least_limit,
    losses,
    p_values,
    per_recording,
    recordings_needed,
    rejected_along,
)
from early_exit.wise import fit_temperature

FIT_SHARE = 1 / 3
NOBODY = 1.0
CHOSEN_HERE = (
    "the epochs of the exits or of their backbone were chosen on these videos, so the promise is"
    " too hopeful: train both with --select-on last"
)


class PolicySettings(NamedTuple):
    """How clips are decided. weights (D, K), or None: learned as WISE on the fit share.
    temperature: a value, "fit" for one on all points, or "fit_per_exit"."""

    weights: np.ndarray | None
    confidence: str = "max"
    rule: str = "common"
    temperature: Temperature | str = 1.0
    pool: str = "logits"
    output_temperatures: Sequence[float] = ()
    alpha: float = 0.01
    solver: str = "exact"

    @property
    def needs_fit(self) -> bool:
        return (
            self.weights is None
            or self.rule == "per_exit"
            or self.confidence == "gate"
            or isinstance(self.temperature, str)
        )


def promise_policy(
    logits: LogitsFile,
    part: str,
    costs: Sequence[float],
    wish: Wish,
    settings: PolicySettings,
    provenance: dict,
) -> Policy:
    """The cheapest policy that keeps the wish with its guarantee; for a budget the dearest one.

    Where none does, it is the full network, for a budget the first exit, and `promise` says why and
    what could be promised. Losses are counted against the full network without exits. costs: (D,),
    none below the first or above the last. The bets follow the order of `groups.shuffled`. Raises
    ValueError for a wish without sense, as a budget below the first exit's cost.
    """
    wish.check()
    if wish.kind in BUDGETS:
        check_budget(wish.limit, costs[0], BUDGETS[wish.kind].lower())
    rows, labels = logits.samples(part)
    names, groups = logits.part(part).names, logits.groups(part)
    needs_fit = settings.needs_fit or wish.kind == "exit_error"
    fit_on = split_off(groups, FIT_SHARE) if needs_fit else np.zeros(len(names), dtype=bool)
    tested = ~fit_on
    # Where there are too few to fit on, there are too few to promise anything.
    can_fit = not needs_fit or fit_on.any()
    plain = _policy(logits, settings, rows[fit_on], labels[fit_on], costs, provenance, can_fit)
    chosen, weights = None, ()
    number = len({group for group, own in zip(groups, tested) if own})
    if number >= 2 and can_fit:
        path = _path(settings, plain, rows[fit_on], labels[fit_on], costs)
        if wish.kind in BUDGETS:  # from the cheapest up
            path = path[::-1]
        share = wish.limit / costs[-1] if wish.kind in BUDGETS else wish.limit
        full = wise.combine(rows, wise.vanilla_weights(logits.outputs))[:, -1].argmax(axis=1)

        def along(path: np.ndarray, videos: np.ndarray) -> Losses:
            own = [group for group, one in zip(groups, videos) if one]
            seen = rows[videos], labels[videos], full[videos]
            return _losses_along(path, plain, wish, *seen, own, costs)

        if wish.kind == "exit_error":
            path = path[_safest(along(path, fit_on), wish, share) :]
        found = along(path, tested)
        weights = found.b[0]
        # No policy can cost more than the full network.
        kept = rejected_along(found.a, found.b, wish, share, found.low) if share < 1 else path
        steps = len(kept)
        chosen = tuple(map(float, path[steps - 1])) if steps else None
    thresholds = chosen or (0.0 if wish.kind in BUDGETS else NOBODY,) * len(plain.exits)
    if not chosen:
        nobody = [NOBODY] * len(plain.exits)
        plain = vanilla_policy(logits.outputs, nobody, plain.exits, provenance=provenance)
    promise = {
        **wish._asdict(),
        "kept_by": "thresholds" if chosen else _fallback(wish),
        **{"num_videos": int(tested.sum()), "num_groups": number},
        **{"num_videos_to_fit": int(fit_on.sum()), "list_digest": names_digest(names)},
        "epochs_chosen_here": epochs_chosen_on(logits, part),
    }
    return replace(
        plain, thresholds=thresholds, promise={**promise, "words": words(promise, weights, costs)}
    )


def epochs_chosen_on(logits: LogitsFile, part: str) -> bool:
    """Whether the protocol says that epochs of exits or backbone were chosen on these videos."""
    return f"selected on {part}" in logits.meta["protocol"]


def words(promise: dict, weights: Sequence[float], costs: Sequence[float]) -> str:
    """The promise in words: what holds, or, if nothing holds, what it would take.

    weights: b of each recording at the first step, in the order of the bets. costs: (D,).
    """
    wish = Wish(*(promise[field] for field in Wish._fields))
    counted = f"{promise['num_videos']} videos of {promise['num_groups']} recordings"
    asked = f"{_amount(wish, wish.limit)} with probability {wish.guarantee:g}"
    if promise["kept_by"] == "thresholds":
        unit = "mean over recordings" if wish.count == "recordings" else "mean over clips"
        but = f"; {CHOSEN_HERE}" if promise.get("epochs_chosen_here") else ""
        return f"{asked}, {unit}, by {wish.test.replace('_', '-')} on {counted}{but}"
    start = f"{counted} cannot promise {asked}: {promise['kept_by']} is kept"
    scale, loss, least = 1.0, "loses too much", 0.0
    if wish.kind in BUDGETS:
        start += f", whose {costs[0]:g} {BUDGETS[wish.kind]} keep it without a test"
        scale, loss, least = costs[-1], "costs too much", costs[0] / costs[-1]
    number = promise["num_groups"]
    if number < 2:
        return f"{start}; fewer than two recordings can promise nothing"
    if not np.any(weights):
        return f"{start}; nobody leaves at the first step"
    could_be = least_limit(weights, wish.guarantee, least)
    needed = recordings_needed(wish.limit / scale, wish.guarantee, weights, least)
    could = (
        f"so many recordings could promise {_amount(wish, could_be * scale)} at best"
        if could_be is not None
        else "so many recordings can promise nothing"
    )
    if needed <= number:
        return f"{start}; the number suffices, but already the first step {loss}"
    if np.isinf(needed):
        return f"{start}; {could}, and no number of recordings promises it"
    videos = int(np.ceil(needed * promise["num_videos"] / number))
    fit = promise["num_videos_to_fit"]
    more = f", besides {fit} to fit on" if fit else ""
    return (
        f"{start}; {could}, and the wish needs at least {needed} recordings, here about "
        f"{videos} videos{more}"
    )


def _fallback(wish: Wish) -> str:
    return "the first exit" if wish.kind in BUDGETS else "the full network"


def _amount(wish: Wish, limit: float) -> str:
    if wish.kind in BUDGETS:
        return f"at most {limit:g} {BUDGETS[wish.kind]}"
    # Rounded up: a promise may be weaker than what holds, not stronger.
    share = f"{np.ceil(1e4 * limit - 1e-6) / 100:g}"
    return {
        "drop": f"a top-1 at most {share} points below the full network's",
        "disagreement": f"at most {share} % other labels than the full network's",
        "exit_error": f"at most {share} % wrong among those that leave early",
    }[wish.kind]


def _policy(
    logits: LogitsFile,
    settings: PolicySettings,
    rows: np.ndarray,
    labels: np.ndarray,
    costs: Sequence[float],
    provenance: dict,
    can_fit: bool,
) -> Policy:
    """The policy without thresholds, fitted on rows (n, K, C)."""
    weights, scales = settings.weights, tuple(settings.output_temperatures)
    if not can_fit:
        weights = wise.vanilla_weights(logits.outputs) if weights is None else weights
        settings = settings._replace(temperature=1.0, confidence="max", pool="logits")
        scales = ()
    elif weights is None:
        how = {"alpha": settings.alpha, "solver": settings.solver, "pool": settings.pool}
        if scales:
            scales = tuple(wise.fit_temperatures(rows, labels).tolist())
        weights = wise.fit(rows, labels, logits.outputs, temperatures=scales, **how).weights
    exits = tuple(logits.meta["exits"])
    policy = Policy(
        exits,
        (NOBODY,) * len(exits),
        tuple(map(tuple, weights.tolist())),
        provenance=provenance,
        pool=settings.pool,
        output_temperatures=scales,
    )
    temperature = settings.temperature
    if isinstance(temperature, str):
        combined = combined_logits(policy, rows)
        if temperature == "fit_per_exit":
            temperature = tuple(wise.fit_temperatures(combined, labels).tolist())
        else:
            temperature = fit_temperature(combined, labels)
    gate = ()
    if settings.confidence == "gate":
        gate = fit_gate(combined_logits(policy, rows), labels, costs, temperature)
    return replace(policy, temperature=temperature, confidence=settings.confidence, gate=gate)


def _losses_along(
    path: np.ndarray,
    policy: Policy,
    wish: Wish,
    rows: np.ndarray,
    labels: np.ndarray,
    full: np.ndarray,
    groups: Sequence[str],
    costs: Sequence[float],
) -> Losses:
    """The losses along a path (P, E), per recording in the order of the bets: a and b (P, G)."""
    order = {group: place for place, group in enumerate(shuffled(groups))}
    recordings = np.array([order[group] for group in groups])
    combined = combined_logits(policy, rows)
    points = leave_along(policy_confidences(policy, combined), path)
    found = losses(wish.kind, points, combined.argmax(axis=2), labels, costs, full)
    a, b = (per_recording(x, recordings, wish.count) for x in (found.a, found.b))
    return Losses(a, b, found.low)


def _safest(fitted: Losses, wish: Wish, limit: float) -> int:
    """The step at which the fit share speaks most for the wish; of equal ones the last, cheapest.

    An exit error needs clips that leave: a step without any has p = 1, and would end the tests. To
    skip the steps at which no tested clip leaves would choose the start by the data of the test.
    Chosen by other recordings, the path is fixed for those that test it, from any step on (split
    fixed sequence testing in Angelopoulos et al., Learn then Test, 2021).
    """
    p = p_values(fitted.a, fitted.b, wish, limit, fitted.low)
    return int(np.flatnonzero(p == p.min())[-1])


def _path(
    settings: PolicySettings,
    policy: Policy,
    rows: np.ndarray,
    labels: np.ndarray,
    costs: Sequence[float],
) -> np.ndarray:
    if settings.rule == "common" and policy.confidence != "gate":
        return common_path(policy.confidence, len(policy.exits))
    combined = combined_logits(policy, rows)
    sure = policy_confidences(policy, combined)
    if settings.rule == "common":
        return quantile_path(sure)
    return pareto_path(sure, combined.argmax(axis=2) == labels[:, None], costs)
