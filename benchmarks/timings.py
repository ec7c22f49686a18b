"""Milliseconds of decoding and of the network for leaving at each decision point, on videos.

    python -m benchmarks.timings --run RUN --data-root DATA --test-list LIST --route time \\
        --out results/timings.csv

RUN: a run folder of exits, or, with --route, of any network. Every --every-th video of the list is
predicted once for each point, and leaves there. With --route, the exits of RUN are timed as well,
if it has any; all points take turns, so that depth and time can be compared. The table has the
medians, and `team_net_wise_all_acc.py --timings` takes it. Rows of the same network, points,
precision, threads and machine are replaced.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.early_exit import EVERYBODY, NOBODY, build_policy
from benchmarks.measuring import CLOCKS, machine
from benchmarks.table import check_table, update_rows
from coviar.command import run
from dataset_team.records import read_list
from early_exit.policy import Policy, vanilla_policy
from early_exit.predictor import Predictor
from early_exit.route import parse_route, point_names
from early_exit.wise import FULL
from models.precision import CHOICES, resolve
from study.timings import COLUMNS, KEY, network_of
from training.options import add_route_options, make_parser, positive_int, refusing
from training.provenance import command_line
from training.trained import Trained, load_trained


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--data-root", required=True, type=Path)
    parser.add_argument("--test-list", required=True, type=Path)
    parser.add_argument("--data-name", default="ucf101", help="(default ucf101)")
    parser.add_argument(
        "--every", type=positive_int, default=4, metavar="N", help="video of the list (default 4)"
    )
    parser.add_argument("--precision", choices=CHOICES, default="fp32")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: of the processor, for a busy machine"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="CSV")
    add_route_options(parser)
    return parser


def policies_of(trained: Trained, words: list[str] | None, evidence: str) -> list[Policy]:
    """One for each decision point, at which every clip leaves."""
    exits = list(trained.net.exits)
    if words is None and not exits:
        raise ValueError(f"{trained.path} has no exits: name points with --route")
    total = trained.net.backbone.num_segments
    route = parse_route(words, total, [f"exit{k}" for k in exits]) if words else ()
    number = len(route) - 1 if route else len(exits)
    found = []
    for point in range(number + 1):
        thresholds = [EVERYBODY if k == point else NOBODY for k in range(number)]
        if route:
            names = point_names(route)
            policy = vanilla_policy(names, thresholds, route=route, evidence=evidence)
        else:
            policy = build_policy(exits, thresholds)
        found.append(policy)
    return found


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    precision = resolve(args.precision)
    with refusing(parser):
        check_table(args.out, COLUMNS, KEY)
        trained = load_trained(args.run)
        tables = [policies_of(trained, args.route, args.evidence)]
        if args.route and trained.net.exits:
            tables.append(policies_of(trained, None, args.evidence))
        first = Predictor(trained, tables[0][0], precision=precision, clock=CLOCKS[args.clock])
        predictors = [[first.with_policy(policy) for policy in policies] for policies in tables]
        records = read_list(args.test_list, args.data_root, args.data_name)
    videos = [record.path for record in records]
    videos = videos[:: args.every]
    times = measure(predictors, videos)
    about = {
        **network_of(trained.net.backbone.config, trained.crop_size),
        "precision": precision,
        "clock": args.clock,
        "threads": torch.get_num_threads(),
        "machine": machine("cpu"),
        "num_videos": len(videos),
        "command": command_line(),
    }
    rows = [
        {**about, "points": " ".join(table), "point": point, "decode_ms": load, "network_ms": net}
        for table in times
        for point, (load, net) in table.items()
    ]
    found, *others = (in_ratios(table) for table in times)
    result = {"benchmark": "timings", "out": str(args.out), "videos": len(videos), **found}
    if others:
        result["exits"] = others[0]
    print(json.dumps(result), flush=True)
    with refusing(parser):
        update_rows(args.out, COLUMNS, KEY, rows)


def measure(
    tables: list[list[Predictor]], videos: list[str]
) -> list[dict[str, tuple[float, float]]]:
    """Median ms of decoding and of the network, for each point of each table."""
    for predictors in tables:
        predictors[0].warm_up()
    points = [(table, number) for table, row in enumerate(tables) for number in range(len(row))]
    times: dict[tuple[int, int], list] = {point: [] for point in points}
    for turn, video in enumerate(tqdm(videos, unit="video", disable=None)):
        Path(video).read_bytes()  # into the system's cache, for a fair start
        start = turn % len(points)
        for table, number in [*points[start:], *points[:start]]:
            predictor = tables[table][number]
            found = predictor.predict(Path(video))
            if found.point != predictor.points[number]:
                raise ValueError(
                    f"{video} left at {found.point}, not at {predictor.points[number]}"
                )
            times[table, number].append((found.load_ms, found.network_ms))
    medians = {point: tuple(np.median(row, 0).round(3).tolist()) for point, row in times.items()}
    return [
        {name: medians[table, number] for number, name in enumerate(row[0].points)}
        for table, row in enumerate(tables)
    ]


def in_ratios(table: dict[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    total = sum(table[FULL])
    return {
        point: {"decode_ms": load, "network_ms": net, "ratio": round((load + net) / total, 4)}
        for point, (load, net) in table.items()
    }


if __name__ == "__main__":
    run(main, get_args_parser())
