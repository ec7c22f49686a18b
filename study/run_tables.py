"""The result tables of one run: rows for exits.csv, trade_off.csv and policies.csv.

Tidy: one row per (part, combination, threshold or policy, exit). `exit` is a decision point, or
"all" for all videos together. gmacs: what leaving at that point costs, 1e9 multiply-accumulates per
video over all its clips and crops; in rows "all" the mean over all videos, right or wrong.
decode_ms and network_ms: likewise, empty without times.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from coviar.files import whole_file
from dataset_team.csv_rows import read_csv_text
from early_exit import wise
from early_exit.logits import LogitsFile
from early_exit.policy import Policy, decide
from early_exit.thresholds import confidences, sweep
from study.columns import ALL, RUN, TIMES
from study.timings import Times


class RunTables:
    """One run's logits with its three combinations and costs.

    betas: (D, K) WISE weights. costs: gmacs of one view by decision point ("exit1", .., "full").
    fitted: how the betas were fitted, from wise.json. command: for every row. pool, temperatures:
    of the WISE combination, as in wise.combine. times: of one view, None where nobody measured
    them.
    """

    def __init__(
        self,
        logits: LogitsFile,
        betas: np.ndarray,
        costs: Mapping[str, float],
        fitted: Mapping,
        command: str,
        pool: str = "logits",
        temperatures: Sequence[float] = (),
        times: Times | None = None,
    ):
        self.logits = logits
        self.points = wise.decision_points(logits.outputs)
        self.parts = [part for part in ("heldout", "test") if part in logits.parts]
        self.weights = {
            "vanilla": wise.vanilla_weights(logits.outputs),
            "constant": wise.constant_weights(logits.outputs),
            "wise": betas,
        }
        self._costs = np.array([costs[point] for point in self.points])
        self.fitted = fitted
        self.times = times
        self._command = command
        self.pooling = dict.fromkeys(self.weights, ("logits", ()))
        self.pooling["wise"] = (pool, tuple(temperatures))

    def costs(self, part: str) -> np.ndarray:
        """(D,) gmacs per video of leaving at each decision point: those of one view x views."""
        return self._costs * len(self.logits.part(part).logits)

    def budget_costs(self, part: str, unit: str) -> np.ndarray:
        """(D,) of leaving at each decision point, per video: `gmacs`, or `ms` of decoding and
        network. Raises ValueError where there are no times."""
        if unit == "gmacs":
            return self.costs(part)
        if self.times is None:
            raise ValueError("a budget of ms needs measured times: --timings FILE")
        return self.times.total() * len(self.logits.part(part).logits)

    def _all_costs(self, part: str) -> np.ndarray:
        """(D, 1 or 3): GMACs, and the times if they are known."""
        times = () if self.times is None else self.times
        return np.stack([self._costs, *times], 1) * len(self.logits.part(part).logits)

    def combined(self, part: str, combination: str) -> tuple[np.ndarray, np.ndarray]:
        """(n, D, C) combined logits, and (n, D) whether deciding by them is right."""
        rows, labels = self.logits.samples(part)
        how = self.pooling[combination]
        combined = wise.combine(rows, self.weights[combination], *how)
        return combined, combined.argmax(axis=2) == labels[:, None]

    def row(self, part: str, combination: str) -> dict:
        """The columns that every row has: run, part, combination, protocol and command."""
        meta, protocol = self.logits.meta, self.logits.meta["protocol"]
        if combination == "wise":
            protocol += f"; WISE ({self.fitted['solver']}) fitted on {self.fitted['fit_on']}"
        return {
            **{key: meta[key] for key in RUN},
            "part": part,
            "combination": combination,
            "num_videos": len(self.logits.part(part).names),
            "protocol": protocol,
            "command": self._command,
        }

    def exit_rows(self) -> list[dict]:
        """Every video is decided at one point: exits.csv."""
        rows = []
        for part in self.parts:
            for combination in self.weights:
                run = self.row(part, combination)
                top1 = 100 * self.combined(part, combination)[1].mean(axis=0)
                for point, value, cost in zip(self.points, top1, self._all_costs(part)):
                    rows.append({**run, **_score(point, value, 100, cost)})
        return rows

    def sweep_rows(
        self, thresholds: Sequence[float], confidence: str, temperatures: Mapping[str, float]
    ) -> list[dict]:
        """One threshold common to all exits, swept: trade_off.csv. temperatures: by combination."""
        rows = []
        for part in self.parts:
            costs = self._all_costs(part)
            for combination in self.weights:
                combined, correct = self.combined(part, combination)
                sure = confidences(combined, confidence, temperatures[combination])
                curve = sweep(sure, correct, costs[:, 0], thresholds)
                spent = curve.share_pct @ costs / 100
                run = self.row(part, combination)
                for t, threshold in enumerate(curve.thresholds):
                    at = {**run, "threshold": threshold}
                    rows.append({**at, **_score(ALL, curve.top1_pct[t], 100, spent[t])})
                    leaving = zip(self.points, curve.point_top1_pct[t], curve.share_pct[t], costs)
                    rows += [{**at, **_score(*scores)} for scores in leaving]
        return rows

    def policy_rows(self, policy: Policy) -> list[dict]:
        """What a policy of team_net_wise_all_acc.py does: policies.csv."""
        rows = []
        made = policy.provenance
        how = {
            **{key: made[key] for key in ("rule", "goal", "reached", "select_on")},
            "confidence": policy.confidence,
            "temperature": _numbers(policy.temperature),
            "thresholds": " ".join(f"{threshold:.6g}" for threshold in policy.thresholds),
        }
        for part in self.parts:
            run = {**self.row(part, made["combination"]), **how}
            costs = self._all_costs(part)
            logits, labels = self.logits.samples(part)
            points, predicted = decide(policy, logits)
            right = predicted == labels
            rows.append({**run, **_score(ALL, 100 * right.mean(), 100, costs[points].mean(0))})
            for d, point in enumerate(self.points):
                here = points == d
                top1 = 100 * right[here].mean() if here.any() else np.nan
                rows.append({**run, **_score(point, top1, 100 * here.mean(), costs[d])})
        return rows


def read_rows(
    path: str | os.PathLike,
    columns: Sequence[str],
    script: str,
    required: Collection[str] = (),
    numbers: Collection[str] = (),
    is_input: bool = False,
) -> list[dict]:
    """The rows that `script` wrote there by `write_rows`, as text; none where there is no file.

    is_input: the file is not the --out of the script that reads it, and has rows. Raises as
    `read_csv_text`.
    """
    if not os.path.isfile(path):
        return []
    how = {"columns": columns, "is_output": not is_input}
    return read_csv_text(path, script, required, numbers, **how).rows


def write_rows(path: str | os.PathLike, columns: Sequence[str], rows: Sequence[Mapping]) -> None:
    """Write a CSV whole or not at all; floats to six decimals, NaN as an empty cell."""
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def _numbers(value: float | tuple[float, ...]) -> float | str:
    return " ".join(f"{x:.6g}" for x in value) if isinstance(value, tuple) else value


def _score(exit_: str, top1_pct: float, share_pct: float, costs: Sequence[float]) -> dict:
    """costs: GMACs, and the times if they are known."""
    scores = {"exit": exit_, "top1_pct": top1_pct, "share_pct": share_pct}
    return {**scores, **dict(zip(["gmacs", *TIMES], map(float, costs)))}


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if np.isnan(value) else round(float(value), 6)
    return value
