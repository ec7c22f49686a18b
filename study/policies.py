"""One run's policies from its logits and WISE weights, as team_net_wise_all_acc.py makes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from early_exit import wise
from early_exit.calibrate import Goal, calibrate
from early_exit.learn_wise import learn_wise
from early_exit.logits import LogitsFile, file_digest
from early_exit.outside import results_folder
from early_exit.policy import Policy
from early_exit.promise import Wish
from early_exit.promised import Recipe, promise_policy
from early_exit.thresholds import confidences
from early_exit.wise import WISE_NAME
from MACs.team_net import exit_gmacs
from study.run_tables import RunTables
from training.provenance import command_line


def load_run_tables(path: Path, logits: LogitsFile) -> RunTables:
    """The run's logits with the WISE weights beside them; ValueError when these are of others."""
    wise_path = results_folder(path) / WISE_NAME
    if logits.gmacs is not None and not wise_path.is_file():
        print("note: no weights of wise_team_net_logit.py yet, so they are learned first")
        learn_wise(path, logits)
    betas, fitted = wise.load_weights(wise_path, logits.outputs)
    if fitted.get("logits_sha256") != file_digest(path):
        raise ValueError(
            f"{wise_path} was fitted on other logits than {path} holds now: "
            "run wise_team_net_logit.py again"
        )
    meta = logits.meta
    if logits.gmacs is None:
        costs = exit_gmacs(meta["model"], meta["exits"], meta["crop_size"])
    else:
        costs = dict(zip(wise.decision_points(logits.outputs), logits.gmacs))
    pooling = wise.load_pooling(wise_path)
    return RunTables(logits, betas, costs, fitted, command_line(), *pooling)


def make_policy(
    tables: RunTables,
    combination: str,
    rule: str,
    *,
    select_on: str,
    confidence: str,
    temperature: float,
    max_drop: float,
    budget_gmacs: float | None = None,
) -> Policy:
    """A policy whose thresholds meet the goal, chosen on the part `select_on`.

    max_drop: points of top-1 below the full network, unless a budget is given.
    """
    if budget_gmacs is None:
        full = 100 * tables.combined(select_on, "vanilla")[1][:, -1].mean()
        counts = np.unique(tables.logits.part(select_on).labels, return_counts=True)[1]
        is_chance = full <= 100 * counts.max() / counts.sum()
        goal, words = Goal(min_top1_pct=full - max_drop), f"max-drop {max_drop:g}"
        if is_chance:
            words += " (the full network does not beat naming the largest class)"
    else:
        is_chance = False
        goal, words = Goal(max_gmacs=budget_gmacs), f"budget-gmacs {budget_gmacs:g}"
    combined, correct = tables.combined(select_on, combination)
    sure = confidences(combined, confidence, temperature)
    choice = calibrate(sure, correct, tables.costs(select_on), goal, rule)
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
    )


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
    how = Recipe(
        None if learn else tables.weights[combination],
        confidence,
        rule,
        temperature,
        *tables.pooling[combination],
        tables.fitted.get("alpha", 0.01),
        tables.fitted.get("solver", "exact"),
    )
    costs = tables.costs(select_on)
    made = _made(tables, combination, rule, select_on)
    policy = promise_policy(tables.logits, select_on, costs, wish, how, made)
    reached = policy.promise["kept_by"] == "thresholds"
    goal = f"{wish.kind} {wish.limit:g} guarantee {wish.guarantee:g}"
    return replace(policy, provenance={**made, "goal": goal, "reached": reached})


def _made(tables: RunTables, combination: str, rule: str, select_on: str) -> dict:
    """What a policy was made of, and when."""
    return {
        **tables.row(select_on, combination),
        **{"rule": rule, "select_on": select_on},
        "backbone_digest": tables.logits.meta.get("backbone_digest"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
