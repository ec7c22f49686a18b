"""One table, one figure and one page from the result tables of all runs in a folder.

    python -m early_exit.report runs/demo

Finds the exits.csv, trade_off.csv and policies.csv that team_net_wise_all_acc.py wrote below the
folder, averages the test results over seeds and splits, prints the tables, and writes them to
report.md with trade_off.png, into the folder.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from coviar.files import whole_file
from early_exit.figure import NAMES, Curve, Panel, draw
from early_exit.tables import ALL, COLUMNS
from training.log import print_result
from training.options import METHODS, make_parser

LABELS = {
    "team_ce": "CE",
    "prog_kd": "PKD",
    "prog_kd_anti": "anti-curriculum PKD",
    "i_frame": "I-frame teacher",
}
FIGURE, PAGE = "trade_off.png", "report.md"
FULL_NETWORK = {"combination": "vanilla", "exit": "full"}
# Who leaves where is shown for one policy: the paper's weights with the paper's rule.
SHOWN = {"combination": "wise", "rule": "common"}


class Run(NamedTuple):
    """The rows about test videos in one run folder's three tables."""

    folder: Path
    exits: list[dict]
    trade_off: list[dict]
    policies: list[dict]

    def settings(self) -> dict:
        """What must be equal in runs that are averaged or compared."""
        return {
            "protocol": {row["combination"]: row["protocol"] for row in self.exits},
            "gmacs": {row["exit"]: row["gmacs"] for row in self.exits},
            "goal": {(row["goal"], row["select_on"]) for row in self.policies},
            "confidence": {row["confidence"] for row in self.policies},
            "thresholds": sorted({row["threshold"] for row in self.trade_off}),
        }


def read_runs(root: Path) -> dict[str, list[Run]]:
    """{data set: its runs}; raises ValueError if there are none, or any that cannot be averaged."""
    folders = sorted(path.parent for path in root.rglob("exits.csv"))
    if not folders:
        raise ValueError(f"no exits.csv below {root}: team_net_wise_all_acc.py writes them")
    data_sets: dict[str, list[Run]] = {}
    for folder in folders:
        run = Run(folder, *(_read(folder / name, COLUMNS[name]) for name in COLUMNS))
        first = data_sets.setdefault(run.exits[0]["data"], [run])[0]
        for name, value in run.settings().items():
            if value != first.settings()[name]:
                raise ValueError(
                    f"{folder} and {first.folder} differ in {name}, so their numbers are not "
                    "comparable: make them alike, or report them from different folders"
                )
        if run is not first:
            data_sets[run.exits[0]["data"]].append(run)
    return data_sets


def _read(path: Path, columns: Sequence[str]) -> list[dict]:
    if not path.is_file():
        raise ValueError(f"{path} is missing: run team_net_wise_all_acc.py on that run again")
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != list(columns):
            raise ValueError(f"{path}: expected the columns {','.join(columns)}")
        rows = [row for row in reader if row["part"] == "test"]
    if not rows:
        raise ValueError(f"{path} holds no test results: save the logits of the test videos")
    return rows


def values(tables: Iterable[list[dict]], column: str, **where: str) -> list[float]:
    """The column's numbers in all rows that match; empty cells (nobody left there) left out."""
    return [
        float(row[column])
        for table in tables
        for row in table
        if row[column] and all(row[key] == value for key, value in where.items())
    ]


def mean_std(numbers: Sequence[float]) -> str:
    if len(numbers) < 2:
        return f"{numbers[0]:.2f}"
    return f"{statistics.mean(numbers):.2f} ± {statistics.stdev(numbers):.2f}"


def number_of_videos(runs: Sequence[Run]) -> list[str]:
    """Numbers of test videos; splits may differ in theirs."""
    return sorted({row["num_videos"] for run in runs for row in run.exits}, key=int)


def methods_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """{method: its runs}, in the study's order, methods of one's own last."""
    by_method: dict[str, list[Run]] = {}
    for run in runs:
        by_method.setdefault(run.exits[0]["method"], []).append(run)
    order = [name for name in METHODS if name in by_method] + sorted(set(by_method) - set(METHODS))
    return {name: by_method[name] for name in order}


def exit_table(runs: Sequence[Run]) -> list[list[str]]:
    """Header and rows: per method and exit top-1 by combination, GMACs, who leaves there."""
    table = [["method", "exit", *NAMES.values(), "GMACs", "leave there %"]]
    for method, own in methods_of(runs).items():
        exits, policies = [run.exits for run in own], [run.policies for run in own]
        for point in dict.fromkeys(row["exit"] for row in own[0].exits):
            top1 = [
                mean_std(values(exits, "top1_pct", exit=point, combination=combination))
                for combination in NAMES
            ]
            gmacs = values(exits, "gmacs", exit=point)[0]
            share = mean_std(values(policies, "share_pct", exit=point, **SHOWN))
            table.append([LABELS.get(method, method), point, *top1, f"{gmacs:.3f}", share])
    return table


def policy_table(runs: Sequence[Run]) -> list[list[str]]:
    """Header and rows: per method, combination and rule, what the calibrated thresholds give."""
    table = [["method", "combination", "thresholds", "top-1", "GMACs", "% of full", "goal reached"]]
    full = values([run.exits for run in runs], "gmacs", **FULL_NETWORK)[0]
    for method, own in methods_of(runs).items():
        policies = [run.policies for run in own]
        for combination, name in NAMES.items():
            for rule in dict.fromkeys(row["rule"] for row in own[0].policies):
                where = {"combination": combination, "rule": rule, "exit": ALL}
                top1, gmacs = (values(policies, key, **where) for key in ("top1_pct", "gmacs"))
                matching = [
                    row for rows in policies for row in rows if where.items() <= row.items()
                ]
                reached = sum(row["reached"] == "True" for row in matching)
                share = f"{100 * statistics.mean(gmacs) / full:.1f}"
                row = [LABELS.get(method, method), name, rule.replace("_", " "), mean_std(top1)]
                table.append([*row, mean_std(gmacs), share, f"{reached} of {len(matching)}"])
    return table


def panel(data: str, runs: Sequence[Run]) -> Panel:
    """The figure's data: curves averaged over runs at equal thresholds."""
    curves = []
    for method, own in methods_of(runs).items():
        for combination in NAMES:
            sums: dict[str, list[tuple[float, float]]] = {}
            for run in own:
                for row in run.trade_off:
                    if row["exit"] == ALL and row["combination"] == combination:
                        pair = float(row["gmacs"]), float(row["top1_pct"])
                        sums.setdefault(row["threshold"], []).append(pair)
            gmacs, top1 = zip(*(map(statistics.mean, zip(*pairs)) for pairs in sums.values()))
            where = {"combination": combination, "rule": SHOWN["rule"], "exit": ALL}
            policies = [run.policies for run in own]
            policy = [
                statistics.mean(values(policies, key, **where)) for key in ("gmacs", "top1_pct")
            ]
            label = LABELS.get(method, method)
            curves.append(Curve(label, combination, gmacs, top1, tuple(policy)))
    costs = {row["exit"]: float(row["gmacs"]) for row in runs[0].exits}
    full = values([run.exits for run in runs], "top1_pct", **FULL_NETWORK)
    videos = ", ".join(number_of_videos(runs))
    return Panel(f"{data} ({videos} test videos)", curves, costs, statistics.mean(full))


def aligned(table: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up in a terminal."""
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |" for row in table
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def section(data: str, runs: Sequence[Run]) -> str:
    """A data set's part of the page: protocol, the two tables, the commands."""
    protocol, policy = runs[0].settings()["protocol"]["wise"], runs[0].policies[0]
    splits = sorted({row["split"] for run in runs for row in run.exits})
    seeds = sorted({row["seed"] for run in runs for row in run.exits}, key=int)
    calibration = f"{policy['goal']}, chosen on {policy['select_on']} videos"
    spread = (
        "mean ± sample standard deviation over runs" if len(splits) * len(seeds) > 1 else "one run"
    )
    commands = sorted({row["command"] for run in runs for row in run.exits})
    return "\n".join(
        [
            f"## {data}",
            "",
            f"Protocol: {protocol}. Test videos: {', '.join(number_of_videos(runs))}.",
            f"Splits: {', '.join(splits)}; seeds: {', '.join(seeds)}; {spread}.",
            "GMACs are 1e9 multiply-accumulates per video, counting every video, right or wrong.",
            "",
            "Top-1 in percent when every video is decided at one exit. Last column: share of the",
            f"videos that leave there with WISE and one threshold for all exits ({calibration}).",
            "",
            aligned(exit_table(runs)),
            "",
            f"Early exiting with calibrated thresholds ({calibration}), on the test videos:",
            "",
            aligned(policy_table(runs)),
            "",
            "Made from the tables of:",
            "",
            *(f"    {command}" for command in commands),
            "",
        ]
    )


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("input and output")
    group.add_argument("runs_dir", type=Path, help="folder that holds run folders, at any depth")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    try:
        data_sets = read_runs(args.runs_dir)
        panels = [panel(data, runs) for data, runs in data_sets.items()]
        draw(args.runs_dir / FIGURE, panels)
    except ValueError as error:
        parser.error(str(error))
    sections = [section(data, runs) for data, runs in data_sets.items()]
    caption = (
        "Each line sweeps one threshold for all exits, averaged over runs; markers are "
        "thresholds calibrated as said below, the star is the full network without exits."
    )
    page = ["# Accuracy against cost", "", f"![trade-off]({FIGURE})", "", caption, "", *sections]
    page += ["This page:", "", f"    python -m early_exit.report {shlex.quote(str(args.runs_dir))}"]
    with whole_file(args.runs_dir / PAGE) as temporary:
        temporary.write_text("\n".join(page) + "\n")
    print("\n".join(sections))
    counts = {data: len(runs) for data, runs in data_sets.items()}
    print_result({"runs": counts, "page": str(args.runs_dir / PAGE)})


if __name__ == "__main__":
    parser = get_args_parser()
    main(parser.parse_args(), parser)
