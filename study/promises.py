"""Do promised thresholds keep their promise, and what do they save?

    nice python -m study.promises ../shared/scores --out results/promises

Real scores of four networks on the test videos of UCF-101 and HMDB-51 form a cascade: motion
vectors, + residual, + I-frame, + optical flow (summed logits). All test videos of a split are the
population, so the true drop of every policy is known. Calibration sets are drawn from it by
recording, with replacement. Thresholds are chosen on each set, and the population shows whether
they keep the promise. Writes draws.csv (one row per setting) and wise.csv. A (data, split, method)
that draws.csv holds is not done again, nor is a (data, split) of wise.csv. The exit code is 1 if a
promise was broken more often than 1 - guarantee plus two standard errors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest

from coviar.command import run
from early_exit.calibrate import Goal, calibrate
from early_exit.gate import fit_gate
from early_exit.paths import common_path, leave_along, pareto_path, quantile_path
from early_exit.promise import Wish, losses, per_recording, rejected_along
from early_exit.promised_policy import FIT_SHARE
from early_exit.thresholds import confidences
from early_exit.wise import fit_temperatures
from MACs.counter import count_macs
from models.networks import build_network
from study.cascade import CASCADE, DATA, SPLITS, Population, load_population, scores_name
from study.cascade_wise import wise_rows
from study.promise_figures import draw_promises
from study.run_tables import read_rows, write_rows
from training.options import make_parser, refusing

SIZES, DRAWS = (50, 100, 200, 500, 1000), 500
TEXTS = {"data", "method", "wise", "point"}
DRAWN_COLUMNS = [
    *("data", "split", "method", "recordings", "drop_pct", "guarantee", "draws", "broken_pct"),
    *("broken_low_pct", "broken_high_pct", "broken_clips_pct", "refused_pct", "saved_pct"),
    "best_saved_pct",
]
WISE_COLUMNS = ["data", "split", "wise", "point", "top1_pct", "cross_entropy"]
WISE_COLUMNS += ["calibration_error_pct"]
DROPS, GUARANTEES = (0.5, 1.0, 2.0, 5.0), (0.9, 0.95)
# Number of draws with a fit of their own; the draws between them use the last fit.
NUM_FITS = 20


class Procedure(NamedTuple):
    """How thresholds are chosen. make: (population, rows to fit on) -> confidences, path."""

    make: Callable
    fits: bool
    count: str = "recordings"
    test: str = "betting"


def cascade_gmacs() -> np.ndarray:
    """(4,) 1e9 MACs of one picture of 224 x 224, of everything run so far."""
    each = []
    for _, _, arch, channels in CASCADE:
        with torch.device("meta"):
            network = build_network(arch, channels).eval()
        each.append(count_macs(network, torch.empty(1, channels, 224, 224, device="meta")) / 1e9)
    return np.cumsum(each)


def plain(kind: str) -> Callable:
    def make(population: Population, _):
        sure = confidences(population.combined, kind)
        return sure, common_path(kind, sure.shape[1] - 1)

    return make


def with_temperatures(population: Population, rows: np.ndarray):
    scales = tuple(fit_temperatures(population.combined[rows], population.labels[rows]))
    sure = confidences(population.combined, "max", scales)
    return sure, common_path("max", sure.shape[1] - 1)


def gated(population: Population, rows: np.ndarray):
    gate = fit_gate(population.combined[rows], population.labels[rows], population.costs)
    sure = confidences(population.combined, "gate", 1.0, gate)
    return sure, quantile_path(sure[rows])


def per_exit(population: Population, rows: np.ndarray):
    sure = confidences(population.combined)
    right = population.combined.argmax(axis=2) == population.labels[:, None]
    return sure, pareto_path(sure[rows], right[rows], population.costs)


PROCEDURES = {
    "max": Procedure(plain("max"), False),
    "margin": Procedure(plain("margin"), False),
    "entropy": Procedure(plain("entropy"), False),
    "patience": Procedure(plain("patience"), False),
    "max, clips": Procedure(plain("max"), False, count="clips"),
    "max, Hoeffding-Bentkus": Procedure(plain("max"), False, test="hoeffding_bentkus"),
    "temperature per exit": Procedure(with_temperatures, True),
    "gate": Procedure(gated, True),
    "threshold per exit": Procedure(per_exit, True),
}
TODAY = "today, no promise"


class Family(NamedTuple):
    """A path on the population: losses per recording (P, G), true drop (P,), saved share (P,)."""

    a: np.ndarray
    b: np.ndarray
    drop: np.ndarray
    clip_drop: np.ndarray
    saved: np.ndarray


def family(population: Population, sure: np.ndarray, path: np.ndarray, count: str) -> Family:
    points = leave_along(sure, path)
    predicted = population.combined.argmax(axis=2)
    loss = losses("drop", points, predicted, population.labels, population.costs, predicted[:, -1])
    a, b = (per_recording(x, population.recordings, count) for x in (loss.a, loss.b))
    saved = 1 - population.costs[points].mean(axis=1) / population.costs[-1]
    return Family(a, b, a.mean(axis=1) / b.mean(axis=1), loss.a.mean(axis=1), saved)


def clips_of(population: Population, drawn: np.ndarray) -> np.ndarray:
    """The clips of the recordings drawn. A recording drawn twice gives its clips twice."""
    order = np.argsort(population.recordings, kind="stable")
    ends = np.cumsum(np.bincount(population.recordings))
    starts = ends - np.bincount(population.recordings)
    return np.concatenate([order[starts[g] : ends[g]] for g in drawn])


def promised(population: Population, method: Procedure, rng: np.random.Generator) -> list[dict]:
    """The outcome of every draw of every size, for each drop and guarantee."""
    number = population.recordings.max() + 1
    fixed = (
        None if method.fits else family(population, *method.make(population, None), method.count)
    )
    rows = []
    for size in SIZES:
        for draw in range(DRAWS):
            drawn = rng.integers(0, number, size)
            if method.fits:
                fit_on, drawn = np.split(drawn, [round(FIT_SHARE * size)])
                if draw % (DRAWS // NUM_FITS) == 0:
                    made = method.make(population, clips_of(population, fit_on))
                    found = family(population, *made, method.count)
            else:
                found = fixed
            for drop in DROPS:
                wish = Wish("drop", drop / 100, min(GUARANTEES), method.count, method.test)
                steps = _tested(found, drawn, wish)
                for guarantee in GUARANTEES:
                    kept = np.cumprod(np.array([*steps, 1.0]) <= 1 - guarantee)
                    last = int(kept.sum()) - 1
                    rows.append(_outcome(found, last, size, drop, guarantee))
    return rows


def _tested(found: Family, drawn: np.ndarray, wish: Wish) -> list[float]:
    """p-values along the path, up to the first above alpha."""
    steps: list[float] = []
    for start in range(0, len(found.a), 8):
        part = slice(start, start + 8)
        a, b = found.a[part][:, drawn], found.b[part][:, drawn]
        some = rejected_along(a, b, wish, wish.limit, -1)
        steps += some
        if len(some) < len(a):
            break
    return steps


def _outcome(found: Family, last: int, size: int, drop: float, guarantee: float) -> dict:
    """last: the place of the policy taken on its path, -1 for the full network."""
    takes = last >= 0
    return {
        **{"recordings": size, "drop": drop, "guarantee": guarantee, "refused": not takes},
        "broken": takes and found.drop[last] > drop / 100 + 1e-12,
        "broken_clips": takes and found.clip_drop[last] > drop / 100 + 1e-12,
        "saved": found.saved[last] if takes else 0.0,
    }


def today(population: Population, rng: np.random.Generator) -> list[dict]:
    """The outcome of thresholds that lose little enough on the calibration set, without a
    guarantee."""
    sure = confidences(population.combined)
    right = population.combined.argmax(axis=2) == population.labels[:, None]
    number, rows = population.recordings.max() + 1, []
    for size in SIZES:
        for _ in range(DRAWS):
            drawn = clips_of(population, rng.integers(0, number, size))
            full = 100 * right[drawn, -1].mean()
            thresholds = []
            for drop in DROPS:
                goal = Goal(min_top1_pct=full - drop)
                chosen = calibrate(sure[drawn], right[drawn], population.costs, goal, "common")
                thresholds.append(chosen.thresholds)
            found = family(population, sure, np.array(thresholds), "recordings")
            for place, drop in enumerate(DROPS):
                for guarantee in GUARANTEES:
                    rows.append(_outcome(found, place, size, drop, guarantee))
    return rows


def best_saved(population: Population, method: Procedure) -> dict[float, float]:
    """By drop, the most that any threshold of the method could save; fitted on the population."""
    sure, path = method.make(population, np.arange(len(population.labels)))
    found = family(population, sure, path, method.count)
    return {drop: max([0, *found.saved[found.drop <= drop / 100]]) for drop in DROPS}


def summary(rows: list[dict], best: dict[float, float]) -> list[dict]:
    """One row per size, drop and guarantee."""
    table, found = pd.DataFrame(rows), []
    for (size, drop, guarantee), part in table.groupby(["recordings", "drop", "guarantee"]):
        count = int(part["broken"].sum())
        low, high = binomtest(count, len(part)).proportion_ci()
        found.append(
            {
                **{"recordings": size, "drop_pct": drop, "guarantee": guarantee},
                **{"draws": len(part), "broken_pct": 100 * count / len(part)},
                **{"broken_low_pct": 100 * low, "broken_high_pct": 100 * high},
                "broken_clips_pct": 100 * part["broken_clips"].mean(),
                "refused_pct": 100 * part["refused"].mean(),
                "saved_pct": 100 * part["saved"].mean(),
                "best_saved_pct": 100 * best[drop],
            }
        )
    return found


def violations(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of promises that were broken more often than said, by two standard errors."""
    sold = table[table["method"] != TODAY]
    alpha = 1 - sold["guarantee"]
    most = 100 * (alpha + 2 * np.sqrt(alpha * (1 - alpha) / sold["draws"]))
    return sold[sold["broken_pct"] > most]


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("scores", type=Path, help="folder of coviar_<data>.npz")
    parser.add_argument("--out", type=Path, default=Path("results/promises"))
    parser.add_argument("--figures", type=Path, default=Path("figures/promises"))
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--splits", nargs="+", type=int, choices=SPLITS, default=SPLITS)
    parser.add_argument("--methods", nargs="+", choices=[*PROCEDURES, TODAY], metavar="METHOD")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    missing = [name for name in map(scores_name, args.data) if not (args.scores / name).is_file()]
    if missing:
        parser.error(f"{args.scores} has no {' and no '.join(missing)}")
    tables = {args.out / "draws.csv": DRAWN_COLUMNS, args.out / "wise.csv": WISE_COLUMNS}
    with refusing(parser):
        rows, wise_table = (
            read_rows(path, columns, "study.promises", columns, set(columns) - TEXTS)
            for path, columns in tables.items()
        )
    done = {(row["data"], row["split"], row["method"]) for row in rows}
    wise_done = {(row["data"], row["split"]) for row in wise_table}
    (table, wise_path), costs = tables, cascade_gmacs()
    for name in args.methods or [TODAY, *PROCEDURES]:
        for data in args.data:
            for split in args.splits:
                if (data, str(split), name) in done:
                    continue
                population = load_population(args.scores, data, split, costs)
                rng = np.random.default_rng([split, len(data)])  # the same draws for all methods
                if name == TODAY:
                    found, best = today(population, rng), best_saved(population, PROCEDURES["max"])
                else:
                    found = promised(population, PROCEDURES[name], rng)
                    best = best_saved(population, PROCEDURES[name])
                where = {"data": data, "split": split, "method": name}
                rows += [{**where, **row} for row in summary(found, best)]
                write_rows(table, DRAWN_COLUMNS, rows)
                print(f"{name}: {data} split {split}", flush=True)
    for data in args.data:
        for split in args.splits:
            if (data, str(split)) not in wise_done:
                found = wise_rows(load_population(args.scores, data, split, costs))
                wise_table += [{"data": data, "split": split, **row} for row in found]
                write_rows(wise_path, WISE_COLUMNS, wise_table)
    drawn = pd.DataFrame(rows)
    numbers = [name for name in drawn if name not in TEXTS]
    drawn[numbers] = drawn[numbers].apply(pd.to_numeric)
    for guarantee in GUARANTEES:
        draw_promises(drawn, args.figures, guarantee)
    broken = violations(drawn)
    print(f"{len(broken)} promises broken more often than said")
    print(broken.to_string() if len(broken) else "", file=sys.stderr)
    return 1 if len(broken) else 0


if __name__ == "__main__":
    run(main, get_args_parser())
