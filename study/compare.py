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

Runs are paired by data, split and seed, test videos by name. A video's difference is its mean over
seeds. The interval is a percentile bootstrap over videos within each split; with `--resample group`
over groups, the videos of one recording. It says how much the difference would change with other
test videos, not with other backbones. `--resample backbone` says both: it draws backbones, and in
each the groups of its test videos. A split may then have several backbones (name the folders of
all), and each counts as one. With `--mean-over classes` top-1 is the mean over the classes of the
test list.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coviar.command import run
from coviar.files import whole_file
from early_exit import wise
from early_exit.groups import groups_of
from early_exit.logits import LOGITS_NAME, LogitsFile
from models import STREAMS
from study.paired import over_backbones, paired_difference
from study.run_tables import write_rows
from study.tables import to_markdown
from training.options import make_parser, refusing
from training.provenance import command_line, print_result

COLUMNS = [
    *("data", "first", "second", "against", "exit"),
    *("first_top1_pct", "second_top1_pct", "difference_pct"),
    *("low_pct", "high_pct", "std_over_runs_pct", "runs", "num_videos"),
    *("confidence_pct", "resample", "protocol", "command"),
]

VIDEOS, CLASSES = "videos", "classes"

Runs = dict[str, dict[tuple, LogitsFile]]  # by method, then by (data, split, seed, backbone)


class Side(NamedTuple):
    """One side of a pair: whose logits, and how they are combined."""

    method: str
    combination: str
    fit_on: str = "heldout"
    solver: str = "exact"

    @classmethod
    def parse(cls, text: str) -> Side:
        """Read METHOD/COMBINATION; raises ValueError saying what would be right."""
        method, _, rest = text.partition("/")
        combination, *how = rest.split(":")
        side = cls(method, combination, *how[:2])
        fits = side.fit_on in ("heldout", "train", "train_views") and side.solver in wise.SOLVERS
        known = combination in wise.COMBINATIONS or set(side.streams) <= set(STREAMS)
        if not method or not known or not fits or len(how) > 2 * (combination == "wise"):
            raise ValueError(
                f"{text!r} is no METHOD/COMBINATION such as prog_kd/vanilla, prog_kd/constant,"
                " prog_kd/wise, prog_kd/wise:train_views:sgd or prog_kd/iframe+mv"
            )
        return side

    @property
    def streams(self) -> list[str]:
        """The streams that are summed, when that is the combination."""
        return [] if self.combination in wise.COMBINATIONS else self.combination.split("+")

    def points(self, logits: LogitsFile) -> list[str]:
        """The decision points of this side."""
        points = wise.decision_points(logits.outputs)
        return points[-1:] if self.streams else points

    def weights(self, logits: LogitsFile) -> np.ndarray:
        """(D, K) of this side's combination. WISE is fitted here."""
        if self.streams:
            row = [float(output in self.streams) for output in logits.outputs]
            return np.tile(row, (len(wise.decision_points(logits.outputs)), 1))
        if self.combination == "vanilla":
            return wise.vanilla_weights(logits.outputs)
        if self.combination == "constant":
            return wise.constant_weights(logits.outputs)
        rows, labels = logits.samples(self.fit_on)
        return wise.fit(rows, labels, logits.outputs, solver=self.solver).weights


def load_runs(roots: Sequence[Path], by_backbone: bool = False) -> Runs:
    """Every logits file below the roots. Raises ValueError for two files of one run.

    by_backbone: runs may also differ by their backbone; else the fourth part of a key is None.
    """
    runs: Runs = defaultdict(dict)
    for path in sorted({path for root in roots for path in root.rglob(LOGITS_NAME)}):
        logits = LogitsFile.load(path)
        meta = logits.meta
        backbone = meta.get("backbone_digest") if by_backbone else None
        key = (meta["data"], meta["split"], meta["seed"], backbone)
        if key in runs[meta["method"]]:
            name = f"{meta['method']} {key[:3]}"
            raise ValueError(f"{path}: another file holds {name} too; name one")
        runs[meta["method"]][key] = logits
    if not runs:
        raise ValueError(f"no {LOGITS_NAME} below {', '.join(map(str, roots))}")
    return dict(runs)


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
    common decision point."""
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
        alike: dict[tuple, list[_Pair]] = defaultdict(list)  # of one split, and of one backbone
        for key, pair in zip(keys, pairs):
            alike[key[1], key[3]].append(pair)
        names = [same[0].names for same in alike.values()]
        units = names if resample == "video" else list(map(groups_of, names))
        interval = over_backbones if resample == "backbone" else paired_difference
        result = interval(
            [np.stack([p.first - p.second for p in same]) for same in alike.values()],
            units,
            confidence_pct=pct,
        )
        about = {
            **{"data": data, "runs": len(pairs), "num_videos": sum(map(len, names))},
            **{"confidence_pct": pct, "resample": resample, "command": command_line()},
            "protocol": "; ".join(sorted({pair.protocol for pair in pairs})),
        }
        for d, point in enumerate(pairs[0].points):
            rows.append(
                {
                    **about,
                    "exit": point,
                    "first_top1_pct": 100 * np.mean([pair.first[:, d].mean() for pair in pairs]),
                    "second_top1_pct": 100 * np.mean([pair.second[:, d].mean() for pair in pairs]),
                    "difference_pct": result.mean[d],
                    **{"low_pct": result.low[d], "high_pct": result.high[d]},
                    "std_over_runs_pct": result.std_over_runs[d],
                }
            )
    return rows


class _Pair(NamedTuple):
    points: list[str]
    names: list[str]
    first: np.ndarray  # (n, D) float, 1 where right, or the weight of the video
    second: np.ndarray
    protocol: str


def _correct_pair(
    ours: LogitsFile, theirs: LogitsFile, first: Side, second: Side, mean_over: str
) -> _Pair:
    names = ours.part("test").names
    if sorted(names) != sorted(theirs.part("test").names):
        raise ValueError(
            f"{first.method} and {second.method} of {ours.meta['data']} {ours.meta['split']} were"
            " tested on other videos: save the logits again from the same lists"
        )
    points = [point for point in first.points(ours) if point in second.points(theirs)]
    correct = [
        _correct(logits, side, names, points) for logits, side in ((ours, first), (theirs, second))
    ]
    protocol = " against ".join(sorted({logits.meta["protocol"] for logits in (ours, theirs)}))
    if mean_over == CLASSES:
        weights = _class_weights(ours.part("test").labels)
        correct = [weights[:, None] * right for right in correct]
        protocol += ", mean over classes"
    return _Pair(points, names, *correct, protocol)


def _class_weights(labels: np.ndarray) -> np.ndarray:
    """(n,) weights of mean 1, with which each class that there is counts the same."""
    _, rows, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return len(labels) / (len(counts) * counts[rows])


def _correct(logits: LogitsFile, side: Side, names: list[str], points: list[str]) -> np.ndarray:
    """(n, D) 1.0 where the side is right about the named videos at these points."""
    part = logits.part("test").select(names)
    combined = wise.combine(part.logits.mean(axis=0), side.weights(logits))
    right = combined.argmax(axis=2) == part.labels[:, None]
    known = wise.decision_points(logits.outputs)
    return right[:, [known.index(point) for point in points]].astype(float)


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("comparison")
    group.add_argument("runs", type=Path, nargs="+", help="folders that hold run folders")
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
    group.add_argument("--resample", choices=("video", "group", "backbone"), default="video")
    group.add_argument("--confidence-pct", type=float, default=95.0, help="(default 95)")
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
        parts.append(
            f"{to_markdown(table)}\n\n{data}, {row['runs']} runs, {row['num_videos']} test videos;"
            f" top-1 in percent, difference in points with its {row['confidence_pct']:g} % interval"
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


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if not 50 <= args.confidence_pct < 100:
        parser.error(f"--confidence-pct {args.confidence_pct:g} is not in [50, 100)")
    rows = []
    with refusing(parser):
        by_backbone = args.resample == "backbone"
        if by_backbone and args.against:
            raise ValueError("--resample backbone pairs runs on one backbone: not with --against")
        runs = load_runs(args.runs, by_backbone)
        against = load_runs([args.against]) if args.against else runs
        for words in args.pair:
            first, second = map(Side.parse, words)
            how = args.resample, args.confidence_pct, args.mean_over
            found = compare(runs, against, first, second, *how)
            about = {"first": words[0], "second": words[1], "against": args.against}
            rows += [{**row, **about} for row in found]
    tables = tables_of(rows)
    print(tables)
    if args.out:
        write_rows(args.out, COLUMNS, rows)
        with whole_file(args.out.with_suffix(".md")) as temporary:
            temporary.write_text(f"{tables}\n\n    {command_line()}\n", encoding="utf-8")
    print_result({"comparisons": str(args.out) if args.out else None, "rows": len(rows)})


if __name__ == "__main__":
    run(main, get_args_parser())
