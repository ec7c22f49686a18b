"""What exits over time save on real videos: top-1, GMACs and milliseconds of every way.

    python -m benchmarks.over_time --run runs/ucf101/team_net/split1_seed1 \\
        --data-root data/ucf101 --test-list lists/ucf101_split1_test.txt --out results/over_time.csv

Each way in turn predicts every --every-th test video, by the class behind predict.py, so all ways
see the same load of the machine. A way is the network on a fixed number of segments, without exits;
or a policy with one threshold. The threshold is fixed, or chosen for --max-drop on the held-out
videos of the run's logits.pt (save_logits.py --per-segment), which also fit the temperature. Their
top-1 is counted, expected (early_exit.expected), or promised with a probability of 0.9
(docs/promises.md). The decisions of a way must equal those of the saved logits, which also decide
the videos that are not timed. --probe adds the linear probe on I-frames, which reads nothing else.

`load_ms` is how long the network waited for the video. Times are means over the timed videos of one
run. Rows of the same run, way and machine are replaced in --out.
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

from benchmarks.measuring import CLOCKS, machine
from benchmarks.probe import Probe, load_probe
from benchmarks.table import check_table, update_rows
from coviar.command import run
from dataset_team.records import read_list
from early_exit.logits import LOGITS_NAME, LogitsFile
from early_exit.policy import Policy, decide
from early_exit.prediction import Prediction
from early_exit.predictor import Predictor
from early_exit.promise import Wish
from early_exit.route import along, parse_route, point_names, route_gmacs
from early_exit.wise import FULL, fit_temperature, num_exits, vanilla_weights
from MACs.team_net import exit_gmacs, segment_gmacs
from models.team_net_ic import TeamNetIC
from study.columns import RUN
from study.over_time import routes_of
from study.policies import make_policy, make_promise, tables_along
from training.options import make_parser, non_negative_float, positive_int, refusing
from training.provenance import command_line
from training.trained import Trained, load_trained

FIXED = (0.7, 0.9)
GUARANTEE = 0.9
TIMED = ("load", "network")
WAY = ["way", "exits", "threshold", "segments", "clock"]
COLUMNS = [*RUN, *WAY, "top1_pct", "num_videos", "mean_segments", "gmacs", "num_timed", "load_ms"]
COLUMNS += ["network_ms", "latency_ms", "wasted_segments", "threads", "machine", "command"]
KEY = [*RUN, *WAY, "threads", "machine"]


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
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
        "--every",
        type=positive_int,
        default=1,
        metavar="N",
        help="time every N-th test video (default 1); top-1 and GMACs are of all",
    )
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: milliseconds of the processor, for a busy machine, without reading ahead",
    )
    parser.add_argument("--out", type=Path, metavar="CSV")
    return parser


@dataclasses.dataclass
class Way:
    """One way to a label. policy: None without exits. saved: what the saved logits decide of each
    test video, empty if they do not say. found: predictions by the number of the video."""

    name: str
    predictor: Predictor | Probe
    gmacs: dict[str, float]
    exits: str = ""
    threshold: str = ""
    policy: Policy | None = None
    saved: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    found: dict[int, Prediction] = dataclasses.field(default_factory=dict)


def with_segments(trained: Trained, number: int) -> Trained:
    """The backbone alone, which takes clips of so many segments, evenly over the video."""
    backbone = copy.copy(trained.net.backbone)
    backbone.num_segments = number
    backbone.config = {**backbone.config, "num_segments": number}
    return dataclasses.replace(trained, net=TeamNetIC(backbone, ()).eval())


def fixed_ways(trained: Trained, numbers: list[int], clock: str) -> Iterator[Way]:
    """The network on fixed numbers of segments, and on all."""
    total = trained.net.backbone.num_segments
    for number in [*numbers, total]:
        alone = with_segments(trained, number)
        costs = exit_gmacs(alone.net.backbone.config, (), trained.crop_size)
        yield Way(f"T = {number}", Predictor(alone, None, clock=CLOCKS[clock]), costs)


def exit_ways(trained: Trained, path: Path, max_drop: float, clock: str) -> Iterator[Way]:
    """Exits over time, over depth and over both, if the run has them."""
    logits = LogitsFile.load(path)
    total, exits = logits.num_segments, logits.exits
    shared = Predictor(trained, None, clock=CLOCKS[clock])
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
            if name == "time" and label == goal and clock == "wall":
                ahead = shared.with_policy(policy, read_ahead=1)
                yield Way(f"{label}, read ahead", ahead, gmacs, name, threshold, policy)


def predict_all(ways: list[Way], videos: list[Path], every: int) -> None:
    """Every way predicts every `every`-th video; ways without saved decisions predict all."""
    for way in ways:
        way.predictor.warm_up()
    for number, video in enumerate(tqdm(videos, unit="video", disable=None)):
        video.read_bytes()  # into the system's cache, for a fair start
        turn = number % len(ways)
        for way in [*ways[turn:], *ways[:turn]]:
            if number % every == 0 or not way.saved:
                way.found[number] = way.predictor.predict(video)


def saved_decisions(policy: Policy | None, logits: LogitsFile, names: list[str]) -> list[tuple]:
    """(point, label) of each test video, as the saved logits say; policy None: the full network."""
    if policy is None:
        part = logits.part("test").select(names)
        streams = part.logits.mean(axis=0)[:, num_exits(logits.outputs) :]
        return [(FULL, int(label)) for label in streams.sum(1).argmax(1)]
    costs = segment_gmacs(logits.meta["model"], policy.route, logits.meta["crop_size"])
    points = along(logits, policy.route, policy.evidence, costs)
    decided = decide(policy, points.part("test").select(names).logits.mean(axis=0))
    known = point_names(policy.route)
    return [(known[point], int(label)) for point, label in zip(*decided)]


def check_decisions(way: Way, names: list[str]) -> None:
    """Raises ValueError naming a video where the prediction is not what the saved logits say."""
    for number, got in way.found.items():
        predicted = (got.point, int(got.probabilities.argmax()))
        if way.saved and way.saved[number] != predicted:
            raise ValueError(
                f"{way.name}: {names[number]} got {predicted}, by saved logits {way.saved[number]}"
            )


def row_of(way: Way, labels: np.ndarray, every: int) -> dict:
    segments = {point: count for count, point in _counts(way)}
    decided = way.saved or [
        (got.point, int(got.probabilities.argmax())) for got in way.found.values()
    ]
    timed = [got for number, got in way.found.items() if number % every == 0]
    load, network = (float(np.mean([getattr(p, f"{x}_ms") for p in timed])) for x in TIMED)
    total = timed[0].num_segments
    return {
        "way": way.name,
        "exits": way.exits,
        "threshold": way.threshold,
        "segments": total,
        "top1_pct": round(100 * float(np.mean([a == b for (_, a), b in zip(decided, labels)])), 4),
        "num_videos": len(decided),
        "mean_segments": round(float(np.mean([segments.get(p, total) for p, _ in decided])), 4),
        "gmacs": round(float(np.mean([way.gmacs[point] for point, _ in decided])), 6),
        "num_timed": len(timed),
        "load_ms": round(load, 3),
        "network_ms": round(network, 3),
        "latency_ms": round(load + network, 3),
        "wasted_segments": round(float(np.mean([p.wasted_segments for p in timed])), 4),
    }


def _counts(way: Way) -> list[tuple[int, str]]:
    """(segments read, point) of a policy's points."""
    if way.policy is None:
        return []
    return [
        (count, name) for (count, _), name in zip(way.policy.route, point_names(way.policy.route))
    ]


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        check_table(args.out, COLUMNS, KEY)
        trained = load_trained(args.run)
        logits = LogitsFile.load(args.run / LOGITS_NAME)
        records = read_list(args.test_list, args.data_root, logits.meta["data"])
        numbers = [*args.fixed_segments, logits.num_segments]
        probes = load_probe(args.probe, numbers, CLOCKS[args.clock]) if args.probe else []
        ways = list(fixed_ways(trained, args.fixed_segments, args.clock))
        ways += exit_ways(trained, args.run / LOGITS_NAME, args.max_drop, args.clock)
        for probe in probes:
            name = f"I-frame probe, T = {probe.num_segments}"
            ways.append(Way(name, probe, probe.gmacs, "probe"))
    names = [record.name for record in records]
    for way in ways:
        if way.policy or way.name == f"T = {logits.num_segments}":
            way.saved = saved_decisions(way.policy, logits, names)
    predict_all(ways, [Path(record.path) for record in records], args.every)
    for way in ways:
        check_decisions(way, names)
    labels = np.array([record.label for record in records])
    about = {
        **{key: logits.meta[key] for key in RUN},
        "clock": args.clock,
        "threads": torch.get_num_threads(),
        "machine": machine("cpu"),
        "command": command_line(),
    }
    rows = [{**about, **row_of(way, labels, args.every)} for way in ways]
    whole = next(row for row in rows if row["way"] == f"T = {logits.num_segments}")
    shown = {
        f"{row['exits']} {row['way']}".strip(): {
            **{key: row[key] for key in ("top1_pct", "mean_segments", "gmacs", "latency_ms")},
            "gmacs_ratio": round(row["gmacs"] / whole["gmacs"], 4),
            "ms_ratio": round(row["latency_ms"] / whole["latency_ms"], 4),
        }
        for row in rows
    }
    result = {"benchmark": "over_time", **{k: about[k] for k in ("threads", "machine")}, **shown}
    print(json.dumps(result), flush=True)
    if args.out:
        with refusing(parser):
            update_rows(args.out, COLUMNS, KEY, rows)


if __name__ == "__main__":
    run(main, get_args_parser())
