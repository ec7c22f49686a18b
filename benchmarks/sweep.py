"""The time that the bank of frozen views saves, and the accuracy by its number of views.

    python -m benchmarks.sweep --out runs/sweep --pretrained BACKBONE.pt --data-name ucf101 \\
        --data-root data/ucf101 --train-list lists/ucf101_split1_train.txt \\
        --test-list lists/ucf101_split1_test.txt --precision auto
    python -m benchmarks.sweep --compare-views 1 4 10 20 fresh --out runs/compare ... (the same)

The first form fills a new bank and trains four methods x three seeds from it, each by its script
in a process of its own, start-up included, `--jobs` of them at a time. It also computes the time of
the same runs without a bank: the number of clips in their epochs and evaluations, times the seconds
per clip (loading, network) that filling the bank took. It leaves out the time to train the exits.

The second form trains them with each number of views and writes <out>/views.csv. `fresh` is another
view in each epoch, from a bank with as many views as epochs. Its exits equal those of `--views 0`
to the last bit (tests/test_scripts.py) and take less time. A repeated command goes on where it
stopped.

Options that this program does not know go to the scripts: data, precision, workers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from coviar.command import run
from study.run_tables import write_rows
from training.options import make_parser, non_negative_int, positive_int
from training.provenance import command_line
from training.recipes import METHODS
from training.resolve import resolve_recipe
from training.train_options import exit_parser

COLUMNS = ["data", "split", "seed", "method", "views", "exit", "part", "top1_pct"]
COLUMNS += ["protocol", "command"]
REPO = Path(__file__).resolve().parent.parent


def number_of_views(text: str) -> int | str:
    return text if text == "fresh" else positive_int(text)


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder of bank, runs and CSV")
    parser.add_argument("--pretrained", required=True, type=Path, help="the backbone's checkpoint")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=non_negative_int, default=[1, 736, 4711])
    parser.add_argument(
        "--exits",
        nargs="+",
        choices=tuple("1234"),
        default=["1", "2", "3"],
        help="as for the scripts",
    )
    parser.add_argument("--epochs", type=positive_int, help="instead of the published numbers")
    parser.add_argument("--views", type=positive_int, default=10, help="of the bank (default 10)")
    parser.add_argument(
        "--jobs",
        type=positive_int,
        default=os.cpu_count(),
        help="runs at a time, sharing the cores (default: one per core)",
    )
    parser.add_argument(
        "--compare-views",
        nargs="+",
        type=number_of_views,
        metavar="V",
        help="numbers of views, and `fresh`: compare the exits' accuracy instead of the time",
    )
    return parser


def script_of(method: str) -> str:
    return f"train_{method}"


class ScriptRuns:
    """The runs of one set of options."""

    def __init__(self, args: argparse.Namespace, forwarded: list[str]):
        """Ends with the script's parser.error for an option that the script does not know."""
        self.args, self.common = args, [*forwarded, "--pretrained", str(args.pretrained)]
        self.common += ["--cache-dir", str(args.out / "bank")]
        self.epochs = ["--epochs", str(args.epochs)] if args.epochs else []
        self.recipes = {}
        for method in args.methods:
            parser = exit_parser("", script_of(method))
            parser.prog = f"{script_of(method)}.py"
            self.recipes[method] = parser.parse_args([*self.common, *self.epochs])
            resolve_recipe(self.recipes[method])

    def fill(self, views: int, parts: tuple[str, ...] = ("train", "heldout", "test")) -> dict:
        """Fill the bank with all cores; the result of `python -m training.views`."""
        command = ["-m", "training.views", *self.common, "--views", str(views), "--parts", *parts]
        return run_script(command, os.cpu_count())

    def train(self, views: dict[str, int], folder: str, *more: str) -> list[dict]:
        """The results of all methods x seeds, with method and seed, --jobs at a time."""
        threads = max(1, os.cpu_count() // self.args.jobs)

        def train_one(job: tuple[str, int]) -> dict:
            method, seed = job
            options = [*self.common, *self.epochs, "--exits", *self.args.exits, *more]
            options += ["--views", str(views[method]), "--random_seed", str(seed)]
            options += ["--checkpoint_dir", str(self.args.out / folder)]
            return {
                "method": method,
                "seed": seed,
                **run_script([f"{script_of(method)}.py", *options], threads),
            }

        with ThreadPoolExecutor(self.args.jobs) as pool:
            jobs = [(method, seed) for method in self.args.methods for seed in self.args.seeds]
            return list(pool.map(train_one, jobs))


def run_script(command: list[str], threads: int) -> dict:
    """The result that a script prints last; SystemExit with its message where it fails."""
    process = subprocess.run(
        [sys.executable, *command],
        cwd=REPO,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return json.loads(process.stdout.splitlines()[-1].partition("result: ")[2])


def measure_time(sweep: ScriptRuns) -> dict:
    """Seconds with the bank and without."""
    start = time.perf_counter()
    filled = sweep.fill(sweep.args.views)
    seconds_fill, start = time.perf_counter() - start, time.perf_counter()
    results = sweep.train(dict.fromkeys(sweep.args.methods, sweep.args.views), "runs")
    seconds_runs = time.perf_counter() - start
    seconds_per_clip = filled["seconds"] / filled["computed_clips"]
    passed = {method: clips_passed(r, filled) for method, r in sweep.recipes.items()}
    clips = len(sweep.args.seeds) * sum(passed.values())
    seconds_without = clips * seconds_per_clip
    return {
        "benchmark": "sweep",
        "runs": len(results),
        "epochs": {method: recipe.epochs for method, recipe in sweep.recipes.items()},
        "videos": filled["videos"],
        "seconds_runs": round(seconds_runs, 2),
        "seconds_fill": round(seconds_fill, 2),
        "clips_fill": filled["computed_clips"],
        "ms_per_clip": round(1e3 * seconds_per_clip, 3),
        "clips_without_bank": clips,
        "seconds_without_bank": round(seconds_without, 1),
        "ratio_ready_bank": round(seconds_without / seconds_runs, 1),
        "ratio_with_filling": round(seconds_without / (seconds_fill + seconds_runs), 1),
    }


def clips_passed(recipe: argparse.Namespace, filled: dict) -> int:
    """The clips that go through the backbone in one run that keeps no features.

    It evaluates after every epoch, as published (--eval-freq 1).
    """
    clips = {part: n * filled["views"][part] for part, n in filled["videos"].items()}
    each_epoch = (
        filled["videos"]["train"] + clips["test" if recipe.select_on == "test" else "heldout"]
    )
    return recipe.epochs * each_epoch + clips["test"]


def compare_views(sweep: ScriptRuns) -> dict:
    """Accuracy by number of views, over methods and seeds; writes views.csv."""
    epochs = {method: recipe.epochs for method, recipe in sweep.recipes.items()}
    wanted = [max(epochs.values()) if v == "fresh" else v for v in sweep.args.compare_views]
    sweep.fill(max(wanted))
    rows = []
    for views in sweep.args.compare_views:
        per_method = epochs if views == "fresh" else dict.fromkeys(epochs, views)
        for result in sweep.train(per_method, f"views_{views}", "--resume"):
            rows += rows_of(result, sweep.recipes[result["method"]], views)
    path = sweep.args.out / "views.csv"
    write_rows(path, COLUMNS, rows)
    summary = {}
    for method in (*sweep.args.methods, "all methods"):
        for views in sweep.args.compare_views:
            mean, std = over_seeds(rows, method, views)
            summary.setdefault(str(views), {})[method] = [round(mean, 2), round(std, 2)]
            print(f"{method:14} {views!s:>6} views: test top-1 {mean:6.2f} +- {std:.2f}")
    return {
        "benchmark": "views",
        "csv": str(path),
        "seeds": sweep.args.seeds,
        "test_top1_pct_mean_std": summary,
    }


def rows_of(result: dict, recipe: argparse.Namespace, views: int | str) -> list[dict]:
    known = {
        "data": recipe.data_name,
        "split": recipe.split,
        "seed": result["seed"],
        "method": result["method"],
        "views": views,
        "protocol": result["protocol"],
        "command": command_line(),
    }
    return [
        {**known, "exit": f"exit{k}", "part": part, "top1_pct": round(top1, 3)}
        for part in ("heldout", "test")
        for k, top1 in zip(result["exits"], result.get(f"{part}_top1_pct", ()))
    ]


def over_seeds(rows: list[dict], method: str, views: int | str) -> tuple[float, float]:
    """Mean and standard deviation, over seeds, of the test top-1 averaged over exits."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        if (row["part"], row["views"]) == ("test", views) and method in (
            row["method"],
            "all methods",
        ):
            by_seed.setdefault(row["seed"], []).append(row["top1_pct"])
    means = [statistics.mean(values) for values in by_seed.values()]
    return statistics.mean(means), statistics.stdev(means) if len(means) > 1 else 0.0


def main(known: tuple[argparse.Namespace, list[str]], parser: argparse.ArgumentParser) -> None:
    args, forwarded = known
    args.out, args.pretrained = args.out.resolve(), args.pretrained.resolve()
    if not args.compare_views and args.out.is_dir() and any(args.out.iterdir()):
        parser.error(f"--out {args.out} is not empty: the time to fill a bank is measured too")
    sweep = ScriptRuns(args, forwarded)
    result = compare_views(sweep) if args.compare_views else measure_time(sweep)
    machine = {"torch": torch.__version__, "cpus": os.cpu_count(), "jobs": args.jobs}
    print(json.dumps({**result, **machine, "command": command_line()}), flush=True)


if __name__ == "__main__":
    parser = get_args_parser()
    parser.parse_args = parser.parse_known_args  # what it does not know goes to the scripts
    run(main, parser)
