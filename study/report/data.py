"""The numbers of a study that a section of the page shows, as plain values for JSON."""

from __future__ import annotations

import math

import pandas as pd

from early_exit.wise import COMBINATIONS, FULL
from study.columns import ALL, TIMES
from study.drawing import COLOURS, tones
from study.summary import COMBINATION_LABELS, SHOWN, Study, label, where

# Shown first, where a study has it.
FIRST_METHOD = "prog_kd"
MAX_MISTAKES = 60


def first_method(study: Study) -> str:
    return FIRST_METHOD if FIRST_METHOD in study.methods else study.methods[0]


def section_data(study: Study) -> dict:
    """What page.js draws for runs of one setting. Averages are over all seeds and splits.

    colours: by the place of a method; tones: by decision point; both as in the figures.
    points, gmacs: decision points and what leaving there costs; full: [mean, std] top-1 there.
    exits: {method: {combination: [[mean, std] by point]}}, top-1 in percent, std null of one run.
    thresholds, curves: {method: {combination: {top1, gmacs: [[mean, std] by threshold],
        share: [[percent by point] by threshold], ms: [decode_ms, network_ms] by threshold}}}.
    policies: {method: {combination: {gmacs, top1, ms}}} of calibrated common thresholds.
    ms is null where a run has no times.
    outputs, weights: {method: [[mean beta by output] by point]}, null where it has not run.
    classes, confusion: {method: [[decisions by predicted class] by true class]}.
    mistakes: {method: [[true class, predicted, [decisions by exit]]]}, most frequent first.

    Raises ValueError above 6 methods.
    """
    methods, points = study.methods, study.points
    if len(methods) > len(COLOURS):
        raise ValueError(
            f"{study.data}: the page has colours for {len(COLOURS)} methods, not {len(methods)}; "
            "name fewer runs"
        )
    thresholds = sorted(study.trade_off["threshold"].unique())
    left = where(study.decisions, left=1)
    classes = sorted(set(left["class_name"]) | set(left["prediction"]))
    by_method = {method: where(left, method=method) for method in methods}
    vanilla = where(study.exits, combination=COMBINATIONS[0], exit=FULL)
    return {
        "methods": methods,
        "colours": COLOURS,
        "tones": tones(len(points)),
        "labels": {method: label(method) for method in methods},
        "combinations": list(COMBINATIONS),
        "combination_labels": COMBINATION_LABELS,
        "first_method": first_method(study),
        "first_step": _nearest(thresholds, _calibrated(study)),
        "points": points,
        "gmacs": [float(study.costs[point]) for point in points],
        "full": _mean_std(vanilla["top1_pct"]),
        "exits": _nested(study.exits, methods, lambda rows: _by(rows, "exit", points, "top1_pct")),
        "thresholds": [float(threshold) for threshold in thresholds],
        "curves": _nested(study.trade_off, methods, lambda rows: _curve(rows, thresholds, points)),
        "policies": _nested(study.policies, methods, _policy),
        **_weights(study),
        "classes": classes,
        "confusion": {method: _confusion(rows, classes) for method, rows in by_method.items()},
        "mistakes": {method: _mistakes(rows, points) for method, rows in by_method.items()},
    }


def _mean_std(values: pd.Series) -> list:
    """[mean, sample standard deviation or None of a single value]."""
    std = float(values.std())
    return [float(values.mean()), None if math.isnan(std) else std]


def _nested(table: pd.DataFrame, methods: list, value) -> dict:
    """{method: {combination: value(its rows)}}."""
    return {
        method: {
            name: value(where(table, method=method, combination=name)) for name in COMBINATIONS
        }
        for method in methods
    }


def _by(rows: pd.DataFrame, column: str, keys: list, number: str) -> list:
    """[mean, std] over runs of a number, by the values `keys` of a column."""
    groups = dict(iter(rows.groupby(column)[number]))
    return [_mean_std(groups[key]) for key in keys]


def _curve(rows: pd.DataFrame, thresholds: list, points: list) -> dict:
    everyone = where(rows, exit=ALL)
    share = rows.pivot_table("share_pct", "threshold", "exit", aggfunc="mean")
    return {
        "top1": _by(everyone, "threshold", thresholds, "top1_pct"),
        "gmacs": _by(everyone, "threshold", thresholds, "gmacs"),
        "share": share.loc[thresholds, points].to_numpy().tolist(),
        "ms": _ms([where(everyone, threshold=threshold) for threshold in thresholds]),
    }


def _policy(rows: pd.DataFrame) -> dict:
    rows = where(rows, rule=SHOWN["rule"], exit=ALL)
    found = {"gmacs": float(rows["gmacs"].mean()), "top1": float(rows["top1_pct"].mean())}
    ms = _ms([rows])
    return {**found, "ms": ms and ms[0]}


def _ms(groups: list[pd.DataFrame]) -> list | None:
    """Mean TIMES of the runs of each group; None where a run has none."""
    times = [rows[TIMES].mean(skipna=False).tolist() for rows in groups]
    return None if any(map(math.isnan, sum(times, []))) else times


def _calibrated(study: Study) -> float:
    """Mean over runs of the first method's common threshold."""
    rows = where(study.policies, method=first_method(study), **SHOWN, exit=ALL)
    return rows["thresholds"].str.split().str[0].astype(float).mean()


def _nearest(values: list, wanted: float) -> int:
    return min(range(len(values)), key=lambda n: abs(values[n] - wanted))


def _weights(study: Study) -> dict:
    outputs = list(dict.fromkeys(study.weights["output"]))
    means = study.weights.groupby(["method", "point", "output"])["beta"].mean().to_dict()
    weights = {
        method: [
            [means.get((method, point, output)) for output in outputs] for point in study.points
        ]
        for method in study.methods
    }
    return {"outputs": outputs, "weights": weights}


def _confusion(rows: pd.DataFrame, classes: list) -> list:
    counts = rows.groupby(["class_name", "prediction"]).size().to_dict()
    return [[int(counts.get((true, taken), 0)) for taken in classes] for true in classes]


def _mistakes(rows: pd.DataFrame, points: list) -> list:
    wrong = rows[rows["class_name"] != rows["prediction"]]
    counts = wrong.groupby(["class_name", "prediction", "exit"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=points, fill_value=0)
    found = [[*names, [int(n) for n in row]] for names, row in zip(counts.index, counts.to_numpy())]
    return sorted(found, key=lambda item: -sum(item[2]))[:MAX_MISTAKES]
