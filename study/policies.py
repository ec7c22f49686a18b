"""One run's policies from its logits and WISE weights, as team_net_wise_all_acc.py makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from dataset_team.identity import file_digest
from early_exit import wise
from early_exit.calibrate import Goal, calibrate
from early_exit.expected import expected_right
from early_exit.learn_wise import learn_wise
from early_exit.logits import LogitsFile
from early_exit.outside import load_any, results_folder
from early_exit.policy import Policy
from early_exit.promise import Wish
from early_exit.promised_policy import PolicySettings, promise_policy
from early_exit.route import Route, along, parse_route
from early_exit.thresholds import confidences
from early_exit.wise_file import WISE_NAME, load_weights
from models import FULL
from models.points import uses_streams
from study.run_tables import RunTables
from study.timings import load_times
from training.provenance import command_line

ROUTE_FOLDER = "over_time"
# What a policy records of the logits that it was made of, to be compared where it decides.
OF_LOGITS = ("backbone_digest", "exits_digest", "precision")


def open_logits(
    path: Path, test_path: Path | None, route: Sequence[str] | None, evidence: str
) -> tuple[LogitsFile, Path]:
    """Logits at the exits of any network, or at the points of a route; and the folder for results.

    Raises FileNotFoundError, and ValueError when the file has no exit, or when the words of the
    route do not fit it.
    """
    logits, folder = load_any(path, test_path), results_folder(path)
    if route is None:
        if not logits.exits:
            raise ValueError(f"{path} has no exits but after segments: name them with --route")
        return logits, folder
    if logits.num_segments is None:
        raise ValueError(
            f"--route needs logits per segment, {path} has none: save_logits.py --per-segment"
        )
    if logits.gmacs is not None:
        logits = _numbered(logits)
    points = parse_route(route, logits.num_segments, logits.exits)
    return along(logits, points, evidence, _segment_gmacs(logits, points)), folder / ROUTE_FOLDER


def _numbered(logits: LogitsFile) -> LogitsFile:
    """Outside logits whose exits have the names that a route takes, whatever theirs are."""
    names = [*(f"exit{k}" for k in logits.meta["exits"]), FULL]
    if logits.outputs != names:
        theirs = ", ".join(f"{name} is {own}" for name, own in zip(names, logits.outputs))
        print(f"note: on a route {theirs}")
    return replace(logits, outputs=names)


def _segment_gmacs(logits: LogitsFile, route: Route) -> dict[str, float]:
    """1e9 MACs of one segment to each depth of the route."""
    if logits.gmacs is not None:
        if uses_streams(route):
            raise ValueError("logits of another network have no streams to leave after")
        costs = np.array(logits.gmacs) / logits.num_segments
        return dict(zip(wise.decision_points(logits.outputs), costs.tolist()))
    from MACs.team_net import segment_gmacs  # takes torchvision's seconds

    return segment_gmacs(logits.meta["model"], route, logits.meta["crop_size"])


def load_run_tables(
    path: Path, logits: LogitsFile, folder: Path | None = None, timings: Path | None = None
) -> RunTables:
    """The logits of `path`, the WISE weights of the folder (default: the run's), and measured
    times.

    timings: a table of `python -m benchmarks.timings`. Raises ValueError when weights or times are
    of other logits or of another network.
    """
    wise_path = (folder or results_folder(path)) / WISE_NAME
    if logits.gmacs is not None and not wise_path.is_file():
        print("note: no weights of wise_team_net_logit.py yet, so they are learned first")
        learn_wise(path, logits, folder=wise_path.parent)
    try:
        betas, fitted, *pooling = load_weights(wise_path, logits.outputs)
    except ValueError as error:
        raise ValueError(
            f"{error}: run wise_team_net_logit.py again, with the same --route if there is one"
        ) from error
    for key in ("route", "evidence"):
        if fitted.get(key) != logits.meta.get(key):
            raise ValueError(
                f"{wise_path} was fitted for the {key} {fitted.get(key)}: run"
                " wise_team_net_logit.py again, with the same --route and --evidence"
            )
    if fitted.get("logits_sha256") != file_digest(path):
        raise ValueError(
            f"{wise_path} was fitted on other logits than {path} holds now: "
            "run wise_team_net_logit.py again"
        )
    meta = logits.meta
    if logits.gmacs is None:
        from MACs.team_net import exit_gmacs  # as above
        from models.team_net_ic import CONCAT

        ic_pool = meta.get("ic_pool", CONCAT)
        costs = exit_gmacs(meta["model"], meta["exits"], meta["crop_size"], ic_pool)
    else:
        costs = dict(zip(wise.decision_points(logits.outputs), logits.gmacs))
    times = load_times(timings, logits) if timings else None
    return RunTables(logits, betas, costs, fitted, command_line(), *pooling, times=times)


def tables_along(logits: LogitsFile, weights: np.ndarray, timings: Path | None = None) -> RunTables:
    """The tables of logits that hold their costs, with `weights` (D, K) instead of WISE's.

    timings: as in `load_run_tables`.
    """
    times = load_times(timings, logits) if timings else None
    costs = dict(zip(wise.decision_points(logits.outputs), logits.gmacs))
    fitted = {"solver": "none", "fit_on": "none"}
    return RunTables(logits, weights, costs, fitted, command_line(), times=times)


def make_policy(
    tables: RunTables,
    combination: str,
    rule: str,
    *,
    select_on: str,
    confidence: str,
    temperature: float,
    max_drop: float,
    budget: float | None = None,
    unit: str = "gmacs",
    is_expected: bool = False,
) -> Policy:
    """A policy whose thresholds meet the goal, chosen on the part `select_on`.

    max_drop: points of top-1 below the full network, unless a budget is given, in `gmacs` or `ms`.
    is_expected: top-1 is expected, not counted, see early_exit.expected.
    """
    if budget is None:
        full = 100 * tables.combined(select_on, "vanilla")[1][:, -1].mean()
        counts = np.unique(tables.logits.part(select_on).labels, return_counts=True)[1]
        is_chance = full <= 100 * counts.max() / counts.sum()
        goal, words = Goal(min_top1_pct=full - max_drop), f"max-drop {max_drop:g}"
        if is_chance:
            words += " (the full network does not beat naming the largest class)"
    else:
        is_chance = False
        goal, words = Goal(max_cost=budget, unit=unit), f"budget-{unit} {budget:g}"
    combined, correct = tables.combined(select_on, combination)
    sure = confidences(combined, confidence, temperature)
    if is_expected:
        correct, words = expected_right(sure, correct), f"{words}, expected"
    costs = tables.budget_costs(select_on, unit)
    choice = calibrate(sure, correct, costs, goal, rule)
    provenance = {
        **_made(tables, combination, rule, select_on),
        **{"goal": words, "reached": bool(choice.reached and not is_chance)},
    }
    return Policy(
        tuple(tables.logits.meta["exits"]),
        choice.thresholds,
        tuple(map(tuple, tables.weights[combination].tolist())),
        temperature,
        confidence,
        provenance,
        *tables.pooling[combination],
        **route_of(tables.logits),
    )


def route_of(logits: LogitsFile) -> dict:
    """The fields of a policy that say how it reads segments."""
    if "route" not in logits.meta:
        return {}
    route = tuple((count, depth) for count, depth in logits.meta["route"])
    return {"route": route, "evidence": logits.meta["evidence"]}


def make_promise(
    tables: RunTables,
    combination: str,
    rule: str,
    *,
    wish: Wish,
    select_on: str,
    confidence: str,
    temperature: float | str,
) -> Policy:
    """A policy with a promise, chosen on the part `select_on`."""
    learn = combination == "wise" and tables.fitted["fit_on"] == select_on
    how = PolicySettings(
        None if learn else tables.weights[combination],
        confidence,
        rule,
        temperature,
        *tables.pooling[combination],
        tables.fitted.get("alpha", 0.01),
        tables.fitted.get("solver", "exact"),
    )
    costs = tables.budget_costs(select_on, "ms" if wish.kind == "budget_ms" else "gmacs")
    made = _made(tables, combination, rule, select_on)
    policy = promise_policy(tables.logits, select_on, costs, wish, how, made)
    reached = policy.promise["kept_by"] == "thresholds"
    goal = f"{wish.kind} {wish.limit:g} guarantee {wish.guarantee:g}"
    made = {**made, "goal": goal, "reached": reached}
    return replace(policy, provenance=made, **route_of(tables.logits))


def _made(tables: RunTables, combination: str, rule: str, select_on: str) -> dict:
    """What a policy was made of, and when."""
    return {
        **tables.row(select_on, combination),
        **{"rule": rule, "select_on": select_on},
        "num_views": len(tables.logits.part(select_on).logits),
        **{key: tables.logits.meta.get(key) for key in OF_LOGITS},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
