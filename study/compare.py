"""Is one method better than another? Paired differences of top-1, with confidence intervals.

    python -m study.compare runs/ucf101 --pair prog_kd/vanilla team_ce/vanilla \\
        --pair prog_kd/wise prog_kd/vanilla --out results/ucf101/comparisons.csv

A pair is FIRST SECOND. The difference is first minus second, at every decision point that both
have. A side is METHOD/COMBINATION; combinations are

    vanilla, constant             as everywhere
    wise                          fitted exactly on held-out videos
    wise:PART, wise:PART:SOLVER   fitted on `heldout`, `train` or `train_views`, `exact` or by `sgd`
    iframe, mv+residual, ...      the sum of these streams of the backbone, at the point full only

With `--against FOLDER` the second sides are runs below that folder, made with other options or on
another backbone.

Runs are paired by data, split and seed, test videos by name. A video's difference, and whether it
is right, is its mean over seeds; means are over the test videos of all splits. The interval is a
percentile bootstrap over videos within each split; with `--resample group` over groups, the videos
of one recording. It says how much the difference would change with other test videos, not with
other backbones. `--resample backbone` says both: it draws backbones, and the recordings of their
test videos, the same for all backbones of a split. A split may then have several (name the folders
of all), and each counts as one. `--recordings FILE` keeps how many videos of each recording each
side has right. Such files stand for their runs, which may be gone:

    python -m study.compare results/ucf101/*/recordings.csv --resample backbone --pair ...

With `--mean-over classes` top-1 is the mean over the classes of the test list.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from coviar.command import run
from coviar.files import check_out, check_suffix
from early_exit import wise
from early_exit.logits import LogitsFile
from study import columns, recordings
from study.paired import (
    Difference,
    by_unit,
    check_same_videos,
    over_backbones,
    paired_difference,
)
from study.run_tables import write_rows
from study.sides import Runs, Side, load_runs
from study.tables import to_markdown, write_table
from training.options import make_parser, refusing
from training.provenance import command_line, print_result

COLUMNS = [
    *("data", "first", "second", "against", "exit"),
    *("first_top1_pct", "second_top1_pct", "difference_pct"),
    *("low_pct", "high_pct", "std_over_runs_pct", "std_over_splits_pct", "runs", "num_videos"),
    *("confidence_pct", "resample", "protocol", "command"),
]

VIDEOS, CLASSES = "videos", "classes"
OF_CLASSES = ", mean over classes"  # in the column protocol
BACKBONE = "backbone"
CONFIDENCE_PCT = 95.0  # of intervals, where nothing else is asked for


def compare(
    runs: Runs,
    against: Runs,
    first: Side,
    second: Side,
    resample: str,
    pct: float,
    mean_over: str = VIDEOS,
) -> list[dict]:
    """The rows of one pair, `first` of `runs` and `second` of `against`: one per data set and
    common decision point. resample: `video` or `group`."""
    for side, known in ((first, runs), (second, against)):
        if side.method not in known:
            raise ValueError(f"no logits of {side.method!r}, only of {', '.join(sorted(known))}")
    ours, theirs = runs[first.method], against[second.method]
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise ValueError(f"{first.method} and {second.method} have no data, split, seed in common")
    rows = []
    for data in sorted({key[0] for key in common}):
        keys = [key for key in common if key[0] == data]
        pairs = [_correct_pair(ours[key], theirs[key], first, second, mean_over) for key in keys]
        if len({tuple(pair.points) for pair in pairs}) > 1:
            raise ValueError(f"the runs of {data} do not all have the same exits")
        alike: dict[str, list[_Pair]] = defaultdict(list)  # of one split
        for key, pair in zip(keys, pairs):
            same = alike[key[1]]
            same.append(pair)
            if pair.names != same[0].names:
                raise ValueError(
                    f"{first.method} of {' '.join(map(str, key[:3]))} was tested on other videos"
                    " than another seed of this split: save its logits again from the same lists"
                )
        names = [same[0].names for same in alike.values()]
        groups = [same[0].groups for same in alike.values()]
        weights = [same[0].weights for same in alike.values()]
        first_right, second_right = (
            [np.stack([getattr(pair, name) for pair in same]) for same in alike.values()]
            for name in ("first", "second")
        )
        result = paired_difference(
            [a - b for a, b in zip(first_right, second_right)],
            names if resample == "video" else groups,
            weights,
            confidence_pct=pct,
        )
        about = {
            **{"data": data, "runs": len(pairs), "num_videos": sum(map(len, names))},
            **{"confidence_pct": pct, "resample": resample},
            "protocol": "; ".join(sorted({pair.protocol for pair in pairs})),
        }
        top1 = (_mean_right(right, weights) for right in (first_right, second_right))
        rows += _rows(about, pairs[0].points, *top1, result)
    return rows


def compare_backbones(
    table: pd.DataFrame, first: str, second: str, pct: float, mean_over: str = VIDEOS
) -> list[dict]:
    """The rows of one pair, as `compare`, over the backbones of a table of `study.recordings`.

    Raises as `check_same_videos`.
    """
    points = recordings.common_points(table, first, second)
    rows = []
    for data, of_data in table.groupby("data"):
        backbones, units, top1 = [], [], []
        for backbone, own in of_data.groupby(columns.BACKBONE):
            weights = own["num_videos"].to_numpy(float)
            if mean_over == CLASSES:
                weights = weights / own.groupby("class_name")["num_videos"].transform("sum")
            shares = [
                own[[f"{side} {point}" for point in points]].div(
                    own["seeds"] * own["num_videos"], axis=0
                )
                for side in (first, second)
            ]
            top1.append([np.average(side, axis=0, weights=weights) for side in shares])
            difference = (shares[0].to_numpy() - shares[1].to_numpy())[None]
            backbones.append(backbone)
            units.append(by_unit(difference, own["recording"], weights))
        check_same_videos(backbones, units)
        of_splits = of_data.merge(of_data.drop_duplicates("split")[columns.BACKBONE])
        about = {
            **{"data": data, "runs": len(units), "num_videos": int(of_splits["num_videos"].sum())},
            **{"confidence_pct": pct, "resample": BACKBONE},
            "protocol": "; ".join(sorted(of_data["protocol"].unique()))
            + (OF_CLASSES if mean_over == CLASSES else ""),
        }
        splits = [split for _, split, _ in backbones]
        result = over_backbones(splits, units, confidence_pct=pct)
        rows += _rows(about, points, *np.mean(top1, axis=0), result)
    return rows


def _rows(
    about: dict, points: Sequence[str], first: np.ndarray, second: np.ndarray, result: Difference
) -> Iterator[dict]:
    """A row for each point; first, second: (D,) shares that are right."""
    for d, point in enumerate(points):
        yield {
            **about,
            "exit": point,
            **{"first_top1_pct": 100 * first[d], "second_top1_pct": 100 * second[d]},
            "difference_pct": result.mean[d],
            **{"low_pct": result.low[d], "high_pct": result.high[d]},
            "std_over_runs_pct": result.std_over_runs[d],
            "std_over_splits_pct": result.std_over_splits[d],
        }


class _Pair(NamedTuple):
    points: list[str]
    names: list[str]  # sorted, so that the rows of all seeds are of the same videos
    groups: list[str]  # the recordings of the videos
    first: np.ndarray  # (n, D) float, 1 where right
    second: np.ndarray
    weights: np.ndarray  # (n,) of the videos
    protocol: str


def _correct_pair(
    ours: LogitsFile, theirs: LogitsFile, first: Side, second: Side, mean_over: str
) -> _Pair:
    names = sorted(ours.part("test").names)
    if names != sorted(theirs.part("test").names):
        raise ValueError(
            f"{first.method} and {second.method} of {ours.meta['data']} {ours.meta['split']} were"
            " tested on other videos: save the logits again from the same lists"
        )
    points = [point for point in first.points(ours) if point in second.points(theirs)]
    correct = [
        side.right(logits, names, points) for logits, side in ((ours, first), (theirs, second))
    ]
    protocol = " against ".join(sorted({logits.meta["protocol"] for logits in (ours, theirs)}))
    weights, test = np.ones(len(names)), ours.part("test").select(names)
    if mean_over == CLASSES:
        weights = _class_weights(test.labels)
        protocol += OF_CLASSES
    return _Pair(points, names, test.recordings(), *correct, weights, protocol)


def _mean_right(splits: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
    """(D,) the share that is right, as the difference weighs videos; splits: (seeds, n, D) each."""
    videos = np.concatenate([right.mean(axis=0) for right in splits])
    return np.average(videos, axis=0, weights=np.concatenate(weights))


def _class_weights(labels: np.ndarray) -> np.ndarray:
    """(n,) weights of mean 1, with which each class that there is counts the same."""
    _, rows, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return len(labels) / (len(counts) * counts[rows])


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="folders that hold run folders; with --resample backbone also files of --recordings",
    )
    group.add_argument(
        "--pair", nargs=2, action="append", required=True, metavar=("FIRST", "SECOND")
    )
    group.add_argument(
        "--against", type=Path, metavar="FOLDER", help="runs of the second sides (default RUNS)"
    )
    group.add_argument(
        "--mean-over",
        choices=(VIDEOS, CLASSES),
        default=VIDEOS,
        help="classes: each class counts the same (default videos)",
    )
    group.add_argument("--resample", choices=("video", "group", BACKBONE), default="video")
    group.add_argument(
        "--recordings",
        type=Path,
        metavar="FILE",
        help="with --resample backbone: keep what each recording has right",
    )
    group.add_argument(
        "--confidence-pct",
        type=float,
        default=CONFIDENCE_PCT,
        help=f"(default {CONFIDENCE_PCT:g})",
    )
    group.add_argument("--out", type=Path, help="CSV file; a Markdown table beside it")
    return parser


def tables_of(rows: Sequence[dict]) -> str:
    """Markdown, one table per data set: per pair and decision point "first - second: difference
    [interval]", in bold where the interval does not hold 0."""
    parts = []
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data]
        points = sorted({row["exit"] for row in own}, key=lambda point: (point == wise.FULL, point))
        table = [["first - second", *points]]
        for pair in dict.fromkeys((row["first"], row["second"]) for row in own):
            cells = {
                row["exit"]: _cell(row) for row in own if (row["first"], row["second"]) == pair
            }
            table.append([" - ".join(pair), *(cells.get(point, "") for point in points)])
        row = own[0]
        unit = "backbones" if row["resample"] == BACKBONE else "runs"
        parts.append(
            f"{to_markdown(table)}\n\n{data}, {row['runs']} {unit}, {row['num_videos']} test"
            f" videos; top-1 in percent, difference in points with its {row['confidence_pct']:g} %"
            " interval"
            f" (bootstrap over {row['resample']}s), bold where that does not hold 0."
            f" Protocol: {row['protocol']}."
        )
    return "\n\n".join(parts)


def _cell(row: dict) -> str:
    difference = f"{row['difference_pct']:+.1f}"
    if row["low_pct"] > 0 or row["high_pct"] < 0:
        difference = f"**{difference}**"
    top1 = f"{row['first_top1_pct']:.1f} - {row['second_top1_pct']:.1f}"
    return f"{top1}: {difference} [{row['low_pct']:.1f}, {row['high_pct']:.1f}]"


def _over_videos(args: argparse.Namespace) -> list[dict]:
    if args.recordings:
        raise ValueError("--recordings keeps what --resample backbone counts")
    runs = load_runs(args.runs)
    against = load_runs([args.against]) if args.against else runs
    rows = []
    for words in args.pair:
        how = args.resample, args.confidence_pct, args.mean_over
        found = compare(runs, against, *map(Side.parse, words), *how)
        rows += [{**row, **dict(zip(("first", "second"), words))} for row in found]
    return rows


def _over_backbones(args: argparse.Namespace) -> list[dict]:
    if args.against:
        raise ValueError("--resample backbone pairs runs on one backbone: not with --against")
    table = recordings.load(args.runs, list(dict.fromkeys(sum(args.pair, []))))
    rows = []
    for words in args.pair:
        found = compare_backbones(table, *words, args.confidence_pct, args.mean_over)
        rows += [{**row, **dict(zip(("first", "second"), words))} for row in found]
    if args.recordings:
        recordings.write(args.recordings, table)
    return rows


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if not 50 <= args.confidence_pct < 100:
        parser.error(f"--confidence-pct {args.confidence_pct:g} is not in [50, 100)")
    with refusing(parser):
        check_out(args.out)
        check_suffix(args.out, ".csv")  # the table beside it ends in .md
        rows = _over_backbones(args) if args.resample == BACKBONE else _over_videos(args)
        tables = tables_of(rows)
        print(tables)
        if args.out:
            about = {"against": args.against, "command": command_line()}
            write_rows(args.out, COLUMNS, [{**row, **about} for row in rows])
            write_table(args.out.with_suffix(".md"), tables)
    print_result({"comparisons": str(args.out) if args.out else None, "rows": len(rows)})


if __name__ == "__main__":
    run(main, get_args_parser())
