"""What exits over time save on real videos: accuracy beside GMACs and milliseconds of every way.

    python -m benchmarks.over_time --run runs/ucf101/team_net/split1_seed1 \\
        --data-root data/ucf101 --test-list lists/ucf101_split1_test.txt --out results/over_time.csv

Every test video is predicted by each way in turn, by the class behind predict.py, so all ways see
the same load of the machine. A way is the network on a fixed number of segments, without exits; or
a policy with one threshold: fixed, or for --max-drop on the held-out videos of the run's logits.pt
(save_logits.py --per-segment), on which the temperature is fitted as well. These are counted, or
what is expected of them (`expected`, early_exit.expected), or it is promised with a probability of
0.9 (docs/promises.md). What a way decides must be what the saved logits say. --probe adds the
linear probe on I-frames, which reads nothing else.

`load_ms` is reading, as long as the network waited for it; both are means over the videos of a
single run. Rows of the same run, way and machine are replaced in --out.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.probe import Probe, load_probe
from benchmarks.table import update_rows
from benchmarks.timing import machine
from coviar.command import quiet_pipe
from dataset_team.lists import read_list
from early_exit.logits import LOGITS_NAME, LogitsFile
from early_exit.policy import Policy, decide
from early_exit.predictor import Prediction, Predictor
from early_exit.promise import Wish
from early_exit.route import Route, along, parse_route, point_names, route_gmacs
from early_exit.wise import fit_temperature, vanilla_weights
from MACs.team_net import exit_gmacs, segment_gmacs
from models.team_net_ic import TeamNetIC
from study.columns import RUN
from study.over_time import routes_of
from study.policies import make_policy, make_promise, tables_along
from training.options import non_negative_float, positive_int
from training.provenance import command_line
from training.trained import Trained, load_trained

FIXED = (0.7, 0.9)
GUARANTEE = 0.9
WAY = ["way", "exits", "threshold", "segments"]
COLUMNS = [*RUN, *WAY, "top1_pct", "num_videos", "mean_segments", "gmacs", "load_ms", "network_ms"]
COLUMNS += ["latency_ms", "wasted_segments", "threads", "machine", "command"]
KEY = [*RUN, *WAY, "threads", "machine"]


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, type=Path, help="a run folder with logits.pt")
    parser.add_argument("--data-root", required=True, type=Path)
    parser.add_argument("--test-list", required=True, type=Path)
    parser.add_argument(
        "--fixed-segments", type=positive_int, nargs="+", default=[1, 2, 4], metavar="T"
    )
    parser.add_argument(
        "--probe", type=Path, metavar="RUN", help="a run folder of train_i_frame_probe.py"
    )
    parser.add_argument("--max-drop", type=non_negative_float, default=1.0, metavar="PCT")
    parser.add_argument(
        "--every", type=positive_int, default=1, metavar="N", help="take every N-th test video"
    )
    parser.add_argument("--out", type=Path, metavar="CSV")
    return parser


@dataclasses.dataclass
class Way:
    """One way to a label. policy: None without exits; expected: what the saved logits decide."""

    name: str
    predictor: Predictor | Probe
    gmacs: dict[str, float]
    exits: str = ""
    threshold: str = ""
    policy: Policy | None = None
    found: list[Prediction] = dataclasses.field(default_factory=list)


def with_segments(trained: Trained, number: int) -> Trained:
    """The backbone alone, which takes clips of so many segments, evenly over the video."""
    backbone = copy.copy(trained.net.backbone)
    backbone.num_segments = number
    backbone.config = {**backbone.config, "num_segments": number}
    return dataclasses.replace(trained, net=TeamNetIC(backbone, ()).eval())


def fixed_ways(trained: Trained, numbers: list[int]) -> Iterator[Way]:
    """The network on 1, 2, .. segments, and on all it was trained to be tested on."""
    total = trained.net.backbone.num_segments
    for number in [*numbers, total]:
        alone = with_segments(trained, number)
        costs = exit_gmacs(alone.net.backbone.config, (), trained.crop_size)
        yield Way(f"T = {number}", Predictor(alone, None), costs)


def exit_ways(trained: Trained, path: Path, max_drop: float) -> Iterator[Way]:
    """Exits over time, over depth, and over both, as far as the run has them."""
    logits = LogitsFile.load(path)
    total, exits = logits.num_segments, logits.exits
    shared = Predictor(trained, None)
    for name, words in routes_of(logits).items():
        route = parse_route(words, total, exits)
        costs = segment_gmacs(logits.meta["model"], route, trained.crop_size)
        points = along(logits, route, "logits", costs)
        tables = tables_along(points, vanilla_weights(points.outputs))
        heldout = tables.combined("heldout", "vanilla")[0]
        temperature = fit_temperature(heldout, points.part("heldout").labels)
        how = {"select_on": "heldout", "confidence": "max", "temperature": temperature}
        how.update(combination="vanilla", rule="common")
        goal = f"max-drop {max_drop:g}"
        counted = make_policy(tables, max_drop=max_drop, **how)
        policies = {
            goal: counted,
            f"{goal}, expected": make_policy(tables, max_drop=max_drop, is_expected=True, **how),
        }
        if name == "time":
            wish = Wish("drop", max_drop / 100, GUARANTEE)
            policies[f"{goal}, promised"] = make_promise(tables, wish=wish, **how)
        for threshold in FIXED if name in ("time", "streams_then_time") else ():
            fixed = dataclasses.replace(counted, thresholds=(threshold,) * len(counted.exits))
            policies[f"fixed {threshold:g}"] = fixed
        gmacs = dict(zip(point_names(route), route_gmacs(route, costs)))
        for label, policy in policies.items():
            threshold = f"{policy.thresholds[0]:.6g}"
            predictor = shared.with_policy(policy)
            yield Way(label, predictor, gmacs, name, threshold, policy)
            if name == "time" and label == goal:
                ahead = shared.with_policy(policy, read_ahead=1)
                yield Way(f"{label}, read ahead", ahead, gmacs, name, threshold, policy)


def predict_all(ways: list[Way], videos: list[Path]) -> None:
    for way in ways:
        way.predictor.warm_up()
    for number, video in enumerate(tqdm(videos, unit="video", disable=None)):
        video.read_bytes()  # into the system's cache, for whoever comes first
        turn = number % len(ways)
        for way in [*ways[turn:], *ways[:turn]]:
            way.found.append(way.predictor.predict(video))


def check_decisions(way: Way, logits: LogitsFile, names: list[str]) -> None:
    """Raises ValueError naming a video where the prediction is not what the saved logits say."""
    route: Route = way.policy.route
    costs = segment_gmacs(logits.meta["model"], route, logits.meta["crop_size"])
    points = along(logits, route, way.policy.evidence, costs)
    part = points.part("test").select(names)
    expected = decide(way.policy, part.logits.mean(axis=0))
    known = point_names(route)
    for name, point, label, got in zip(names, expected.points, expected.labels, way.found):
        if (known[point], label) != (got.point, int(got.probabilities.argmax())):
            raise ValueError(f"{way.name}: {name} left at {got.point}, not at {known[point]}")


def row_of(way: Way, labels: np.ndarray) -> dict:
    found = way.found
    right = [int(p.probabilities.argmax()) == label for p, label in zip(found, labels)]
    load, network = (np.mean([getattr(p, f"{x}_ms") for p in found]) for x in ("load", "network"))
    return {
        "way": way.name,
        "exits": way.exits,
        "threshold": way.threshold,
        "segments": found[0].num_segments,
        "top1_pct": round(100 * float(np.mean(right)), 4),
        "num_videos": len(found),
        "mean_segments": round(float(np.mean([len(p.segments) for p in found])), 4),
        "gmacs": round(float(np.mean([way.gmacs[p.point] for p in found])), 6),
        "load_ms": round(float(load), 3),
        "network_ms": round(float(network), 3),
        "latency_ms": round(float(load + network), 3),
        "wasted_segments": round(float(np.mean([p.wasted_segments for p in found])), 4),
    }


def main(args: argparse.Namespace) -> dict:
    trained = load_trained(args.run)
    logits = LogitsFile.load(args.run / LOGITS_NAME)
    records = read_list(args.test_list, args.data_root, logits.meta["data"])
    records = records[:: args.every]
    ways = list(fixed_ways(trained, args.fixed_segments))
    ways += exit_ways(trained, args.run / LOGITS_NAME, args.max_drop)
    if args.probe:
        for probe in load_probe(args.probe, [*args.fixed_segments, logits.num_segments]):
            name = f"I-frame probe, T = {probe.num_segments}"
            ways.append(Way(name, probe, probe.gmacs, "probe"))
    predict_all(ways, [Path(record.path) for record in records])
    names = [record.name for record in records]
    for way in ways:
        if way.policy:
            check_decisions(way, logits, names)
    labels = np.array([record.label for record in records])
    about = {
        **{key: logits.meta[key] for key in RUN},
        "threads": torch.get_num_threads(),
        "machine": machine("cpu"),
        "command": command_line(),
    }
    rows = [{**about, **row_of(way, labels)} for way in ways]
    if args.out:
        update_rows(args.out, COLUMNS, KEY, rows)
    whole = next(row for row in rows if row["way"] == f"T = {logits.num_segments}")
    shown = {
        f"{row['exits']} {row['way']}".strip(): {
            **{key: row[key] for key in ("top1_pct", "mean_segments", "gmacs", "latency_ms")},
            "gmacs_ratio": round(row["gmacs"] / whole["gmacs"], 4),
            "ms_ratio": round(row["latency_ms"] / whole["latency_ms"], 4),
        }
        for row in rows
    }
    return {"benchmark": "over_time", **{k: about[k] for k in ("threads", "machine")}, **shown}


if __name__ == "__main__":
    with quiet_pipe():
        print(json.dumps(main(get_args_parser().parse_args())))
