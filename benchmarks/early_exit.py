"""The time that early exits save, beside their MACs. One JSON line of one run.

    python -m benchmarks.early_exit --batch-sizes 1 8

All clips leave at one exit, then at the next, then at none. In the case `mixed` about equal shares
leave at each of them. The rows that leave are dropped from the batch, on a CPU from each part of it
(`TeamNet.parts`). Ratios are to the full network without exits on the batch. Weights and clips are
random, since only time is measured.

    python -m benchmarks.early_exit --out results/latency.csv --videos VIDEO...

adds rows to a table of latencies per clip, and replaces rows of the same network, precision,
threads and machine. With `--videos` the row `load` is the time to load a clip of these. Policies on
real clips: `python -m benchmarks.policies`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks.measuring import capability, interleaved_medians
from benchmarks.random_network import add_network_options, random_clips, random_network
from benchmarks.table import check_table, update_rows
from coviar import VideoIndex, read_index
from coviar.command import run
from dataset_team.dataset import load_test_view
from early_exit.policy import Policy, vanilla_policy
from early_exit.wise import decision_points, output_names
from MACs.team_net import exit_gmacs
from models.graphs import make_graphs
from models.inference import prepare_for_inference
from models.precision import CHOICES, resolve
from models.team_net_ic import TeamNetIC
from training.options import make_parser, positive_int, refusing
from training.provenance import command_line

NOBODY, EVERYBODY = 2.0, -1.0  # thresholds for a confidence in [0, 1]
SETTING = ["arch", "motion_arch", "num_segments", "crop_size", "precision", "threads"]
COLUMNS = [*SETTING, "batch_size", "exit", "latency_ms", "share_of_full", "gmacs", "machine"]
COLUMNS += ["command"]
KEY = [*SETTING, "batch_size", "machine"]


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_network_options(parser)
    parser.add_argument("--exits", type=int, nargs="+", choices=(1, 2, 3, 4), default=[1, 2, 3])
    parser.add_argument("--batch-sizes", type=positive_int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=positive_int, default=9)
    parser.add_argument("--precision", choices=CHOICES, default="auto")
    parser.add_argument("--compiled", action="store_true", help="with torch.compile")
    parser.add_argument("--out", type=Path, metavar="CSV", help="table to put the latencies into")
    parser.add_argument("--videos", nargs="+", default=[], metavar="VIDEO", help="to time loading")
    return parser


def build_policy(exits: Sequence[int], thresholds: Sequence[float]) -> Policy:
    return vanilla_policy(output_names(exits), thresholds, exits)


def mixed_thresholds(net: TeamNetIC, clips: list[torch.Tensor]) -> list[float]:
    """Thresholds with which the same number of these clips leaves at every point."""
    points = len(net.exits) + 1
    confidence = net.early_exit(
        *clips, build_policy(list(net.exits), [NOBODY] * (points - 1))
    ).confidence
    thresholds = []
    for k in range(points - 1):
        thresholds.append(confidence[:, k].quantile(1 - 1 / (points - k)).item())
        confidence = confidence[confidence[:, k] <= thresholds[-1]]
    return thresholds


def time_exits(net: TeamNetIC, args: argparse.Namespace, batch_size: int) -> dict[str, dict]:
    """Milliseconds per batch and cost ratios of every way out."""
    clips = random_clips(batch_size, args.num_segments, args.crop_size, args.device)
    policies = {}
    for point, k in enumerate(args.exits):
        thresholds = [EVERYBODY if j == point else NOBODY for j in range(len(args.exits))]
        policies[f"exit{k}"] = build_policy(args.exits, thresholds)
    policies["no_exit_taken"] = build_policy(args.exits, [NOBODY] * len(args.exits))
    if batch_size > len(args.exits):
        policies["mixed"] = build_policy(args.exits, mixed_thresholds(net, clips))
    cases = {name: lambda p=p: net.early_exit(*clips, p) for name, p in policies.items()}
    medians = interleaved_medians({"full": lambda: net.backbone(*clips), **cases}, args.repeats)
    gmacs = exit_gmacs(net.backbone.config, args.exits, args.crop_size)
    points = torch.tensor([gmacs[name] for name in decision_points(output_names(args.exits))])
    result = {"full": {"ms": round(medians["full"], 2)}}
    for name, policy in policies.items():
        mean_gmacs = points[net.early_exit(*clips, policy).point.cpu()].mean().item()
        result[name] = {
            "ms": round(medians[name], 2),
            "ms_ratio": round(medians[name] / medians["full"], 4),
            "macs_ratio": round(mean_gmacs / gmacs["full"], 4),
        }
    return result


def time_loading(indexes: Sequence[VideoIndex], args: argparse.Namespace) -> float:
    """Milliseconds to load a clip as tested: the mean over the videos of their medians."""
    cases = {
        index.path: lambda index=index: load_test_view(index, args.num_segments, args.crop_size)
        for index in indexes
    }
    medians = interleaved_medians(cases, args.repeats)
    return sum(medians.values()) / len(medians)


def latency_rows(result: dict, config: dict, args: argparse.Namespace) -> list[dict]:
    """One row per batch size and point: the exits, `full` (without exits), `load`."""
    gmacs = exit_gmacs(config, args.exits, args.crop_size)
    setting = {
        **{key: {**vars(args), **config, **result}[key] for key in SETTING},
        "machine": result["machine"],
        "command": command_line(),
    }
    rows = []
    for batch_size in args.batch_sizes:
        timed = result[f"batch_{batch_size}"]
        times = {point: timed[point]["ms"] / batch_size for point in gmacs}
        if args.videos:
            times["load"] = result["load_ms"]
        for point, ms in times.items():
            row = {"exit": point, "latency_ms": round(ms, 3), "gmacs": gmacs.get(point, "")}
            row["share_of_full"] = round(ms / times["full"], 4)
            rows.append({**setting, "batch_size": batch_size, **row})
    return rows


def write_latencies(path: str | os.PathLike, rows: Sequence[dict]) -> None:
    """Put rows into a table, in the place of those of the same setting and batch size."""
    update_rows(path, COLUMNS, KEY, rows)


@torch.inference_mode()
def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        check_table(args.out, COLUMNS, KEY)
        indexes = [read_index(path) for path in args.videos]
    args.exits = sorted(set(args.exits))
    args.precision = resolve(args.precision, args.device)
    backbone = random_network(args.num_segments, args.arch, args.motion_arch, args.device)
    net = TeamNetIC(backbone, args.exits).to(args.device)
    for head in net.heads.values():
        nn.init.normal_(head.weight, std=0.01)  # clips must differ in confidence
    net = prepare_for_inference(net, args.precision, args.compiled)
    make_graphs(net, 0)
    result = {
        "benchmark": "early_exit",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **capability(args.device),
        **{key: value for key, value in vars(args).items() if key not in ("out", "videos")},
    }
    for batch_size in args.batch_sizes:
        result[f"batch_{batch_size}"] = time_exits(net, args, batch_size)
    if indexes:
        result["load_ms"] = round(time_loading(indexes, args), 3)
    print(json.dumps(result), flush=True)
    if args.out:
        with refusing(parser):
            write_latencies(args.out, latency_rows(result, net.backbone.config, args))


if __name__ == "__main__":
    run(main, get_args_parser())
