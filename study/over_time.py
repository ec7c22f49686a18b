"""Tables and figures of exits over time, from the logits of runs and from measured ways.

    python -m study.over_time runs/ucf101/team_net/split*_seed1 --out results/over_time

RUN: folders with logits.pt of save_logits.py --per-segment. Writes into --out

    points.csv   top-1 of every point of the routes
    curves.csv   thresholds swept along the routes, with the temperature fitted on held-out videos
    choices.csv  how well a chosen threshold keeps the loss of top-1 to 1 point: in 40 draws two
                 thirds of the held-out recordings choose it, and the others judge it

and into --figures over_time_gmacs and over_time_latency, where --out has the file ways.csv of
`python -m benchmarks.over_time`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from coviar.command import run
from early_exit.calibrate import Goal, calibrate
from early_exit.expected import expected_right
from early_exit.groups import split_off
from early_exit.logits import LOGITS_NAME, LogitsFile
from early_exit.route import along, parse_route, point_names
from early_exit.thresholds import confidences, sweep
from early_exit.wise import FULL, combine, fit_temperature, vanilla_weights
from MACs.team_net import segment_gmacs
from models import STREAMS
from models.points import EVIDENCE, ROUTES
from study import drawing
from study.columns import RUN, TEXTS
from study.run_tables import write_rows
from study.summary import read_table
from training.options import make_parser, refusing
from training.provenance import command_line

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
POINTS, CURVES, CHOICES = "points.csv", "curves.csv", "choices.csv"
# Of ways.csv, the columns that are no numbers, and those without empty cells.
WAYS_TEXTS = [*TEXTS, "way", "exits", "clock", "machine"]
WAYS_REQUIRED = ["method", "split", "way", "top1_pct", "gmacs", "latency_ms"]
MAX_DROP = 1.0  # points of top-1
DRAWS, CHOOSING = 40, 2 / 3
_END = ["top1_pct", "gmacs", "num_videos", "protocol", "command"]
COLUMNS = {
    POINTS: [*RUN, "part", "evidence", "point", *_END],
    CURVES: [*RUN, "part", "route", "evidence", "temperature", "threshold", *_END],
    CHOICES: [
        *(*RUN, "route", "evidence", "estimate", "draws", "drop_mean", "drop_std", "failed_pct"),
        *("gmacs", "num_videos", "protocol", "command"),
    ],
}
ROUTE_LABELS = {
    "time": "exits over time",
    "streams_then_time": "streams, then time",
    "streams_coarse": "streams, then time in 3 stops",
    "depth": "exits over depth",
    "depth_then_time": "depth, then time",
}


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--figures", type=Path, default=Path("figures/over_time"), metavar="FOLDER")
    return parser


def routes_of(logits: LogitsFile) -> dict[str, list[str]]:
    """The routes that the network can take, by name."""
    found = {"time": ["time"]}
    if logits.meta["model"].get("fusion") == "sum":
        found.update({name: [name] for name in ROUTES if name.startswith("streams")})
    if logits.exits:
        found["depth"] = [f"{name}@{logits.num_segments}" for name in logits.exits]
        found["depth_then_time"] = ["depth_then_time"]
    return found


def streams_alone(logits: LogitsFile) -> dict[str, list[str]]:
    """Routes that begin with one stream on all segments, where streams have answers alone."""
    is_sum = logits.meta["model"].get("fusion") == "sum"
    return {name: [f"{name}@{logits.num_segments}"] for name in STREAMS if is_sum}


def rows_of(logits: LogitsFile) -> tuple[list[dict], list[dict]]:
    """Rows of points.csv and of curves.csv of one run."""
    points, curves = [], []
    about = {**{key: logits.meta[key] for key in RUN}, "protocol": logits.meta["protocol"]}
    about["command"] = command_line()
    for evidence in EVIDENCE:
        routes = routes_of(logits)
        for name, words in {**routes, **streams_alone(logits)}.items():
            route = parse_route(words, logits.num_segments, logits.exits)
            costs = segment_gmacs(logits.meta["model"], route, logits.meta["crop_size"])
            found = along(logits, route, evidence, costs)
            weights, temperature = vanilla_weights(found.outputs), None
            for part in ("heldout", "test"):
                rows, labels = found.samples(part)
                combined = combine(rows, weights)
                if temperature is None:
                    temperature = fit_temperature(combined, labels)
                right = combined.argmax(axis=2) == labels[:, None]
                here = {**about, "part": part, "evidence": evidence, "num_videos": len(labels)}
                for point, top1, gmacs in zip(
                    point_names(route), 100 * right.mean(axis=0), found.gmacs
                ):
                    if name == "time" or not point.startswith(FULL):
                        points.append({**here, "point": point, "top1_pct": top1, "gmacs": gmacs})
                if name not in routes:
                    continue
                sure = confidences(combined, "max", temperature)
                curve = sweep(sure, right, found.gmacs, THRESHOLDS)
                how = {**here, "route": name, "temperature": temperature}
                curves += [
                    {**how, "threshold": threshold, "top1_pct": top1, "gmacs": gmacs}
                    for threshold, top1, gmacs in zip(THRESHOLDS, curve.top1_pct, curve.gmacs)
                ]
    return points, curves


def choices_of(logits: LogitsFile) -> list[dict]:
    """Rows of choices.csv of one run."""
    found, groups = [], logits.groups("heldout")
    if len(set(groups)) < 2:
        raise ValueError(
            "the held-out videos are of one recording, so that none is left to judge the thresholds"
            " that the others choose; hold out more"
        )
    about = {**{key: logits.meta[key] for key in RUN}, "protocol": logits.meta["protocol"]}
    for name, words in routes_of(logits).items():
        route = parse_route(words, logits.num_segments, logits.exits)
        costs = segment_gmacs(logits.meta["model"], route, logits.meta["crop_size"])
        points = along(logits, route, EVIDENCE[0], costs)
        rows, labels = points.samples("heldout")
        combined = combine(rows, vanilla_weights(points.outputs))
        judged: dict[str, list] = {"counted": [], "expected": []}
        for draw_ in range(DRAWS):
            chooses = split_off(groups, CHOOSING, draw_)
            temperature = fit_temperature(combined[chooses], labels[chooses])
            sure = confidences(combined, "max", temperature)
            right = combined.argmax(axis=2) == labels[:, None]
            goal = Goal(min_top1_pct=100 * right[chooses, -1].mean() - MAX_DROP)
            expected = expected_right(sure[chooses], right[chooses])
            for estimate, seen in (("counted", right[chooses]), ("expected", expected)):
                chosen = calibrate(sure[chooses], seen, points.gmacs, goal, "common")
                judge = sweep(sure[~chooses], right[~chooses], points.gmacs, chosen.thresholds[:1])
                drop = 100 * right[~chooses, -1].mean() - judge.top1_pct[0]
                judged[estimate].append((drop, judge.gmacs[0]))
        for estimate, values in judged.items():
            drops, gmacs = np.array(values).T
            failed = 100 * np.mean(drops > MAX_DROP + 1e-9)
            row = {"route": name, "evidence": EVIDENCE[0], "estimate": estimate, "draws": DRAWS}
            row.update(drop_mean=drops.mean(), drop_std=drops.std(ddof=1), failed_pct=failed)
            row.update(gmacs=gmacs.mean(), num_videos=len(labels), command=command_line())
            found.append({**about, **row})
    return found


@drawing.styled
def draw_ways(ways: pd.DataFrame, column: str, words: str, folder: Path) -> list[Path]:
    """Top-1 of every way against what it costs, means over the splits."""
    # The probe is some 20 points below the others. The videos are too few for a promise.
    ways = ways[
        ~ways["way"].str.contains("read ahead|promised") & (ways["exits"] != "probe")
    ].copy()
    ways["kind"] = ways["exits"].map(ROUTE_LABELS).fillna("fixed T, no exits")
    kinds = [
        kind for kind in ("fixed T, no exits", *ROUTE_LABELS.values()) if kind in set(ways["kind"])
    ]
    looks = drawing.marks(kinds)
    methods = sorted(set(ways["method"]), key=list(ways["method"]).index)
    figure, axes = drawing.new_figure(drawing.TWO_COLUMNS, 2.8, 1, len(methods), sharey=True)
    for method, axis in zip(methods, axes[0]):
        chosen = ways[ways["method"] == method]
        for kind, look in looks.items():
            part = chosen[chosen["kind"] == kind].groupby("way")[[column, "top1_pct"]].mean()
            part = part.sort_values(column)
            axis.plot(part[column], part["top1_pct"], **look)
            for way, row in part[part.index.str.startswith("T = ")].iterrows():
                place, words_ = (row[column], row["top1_pct"]), {"fontsize": 5}
                axis.annotate(way, place, (3, -6), textcoords="offset points", **words_)
        axis.set_title(f"{method}, {chosen['split'].nunique()} split(s)")
        axis.set_xlabel(words)
        drawing.grid(axis)
    axes[0, 0].set_ylabel(drawing.TOP1)
    drawing.add_legend(figure, looks, columns=4)
    drawing.add_caption(
        figure,
        "Means over the splits, one backbone each; one threshold for all points of a way, on the",
        "largest probability after a temperature fitted on held-out videos. The ways by name: "
        "ways.csv.",
    )
    return drawing.save(figure, folder, f"over_time_{column.split('_')[0]}")


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    points, curves, choices = [], [], []
    path, ways = args.out / "ways.csv", None
    with refusing(parser):
        if path.is_file():
            script = f"python -m benchmarks.over_time --out {path}"
            ways = read_table(path, WAYS_TEXTS, script, WAYS_REQUIRED)
        for folder in args.runs:
            logits = LogitsFile.load(folder / LOGITS_NAME)
            if logits.num_segments is None:
                raise ValueError(
                    f"{folder / LOGITS_NAME} has no logits of single segments: save_logits.py"
                    " --per-segment writes them"
                )
            more = rows_of(logits)
            points += more[0]
            curves += more[1]
            choices += choices_of(logits)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in ((POINTS, points), (CURVES, curves), (CHOICES, choices)):
        write_rows(args.out / name, COLUMNS[name], rows)
    written = [args.out / name for name in (POINTS, CURVES, CHOICES)]
    if ways is not None:
        written += draw_ways(ways, "gmacs", "GMACs a video", args.figures)
        written += draw_ways(ways, "latency_ms", "reading and network, ms a video", args.figures)
    print("\n".join(map(str, written)))


if __name__ == "__main__":
    run(main, get_args_parser())
