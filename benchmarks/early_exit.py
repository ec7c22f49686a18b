"""What an early exit really saves: measured time beside MACs, in one run, one JSON line.

    python -m benchmarks.early_exit --batch-sizes 1 8

Every clip is made to leave at one exit, then at the next, then at none; and, as `mixed`, clips
leave in about equal parts at all of them, so that rows of the batch are dropped on the way. Ratios
are to the full network without exits in the same run. Weights and clips are random: only time is
measured. With `--policies`, a policies.csv of team_net_wise_all_acc.py, the mean time per video
follows for each of its policies on test videos, from its share of videos per exit and the time of
batch 1: give the --arch, --crop-size, --num_segments and --exits of that run.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping

import torch
from torch import nn

from benchmarks.forward import build_network, random_clips
from benchmarks.timing import interleaved_medians
from MACs.team_net import exit_gmacs
from models.inference import PRECISIONS, prepare_for_inference
from models.policy import Policy
from models.team_net import ARCHS
from models.team_net_ic import TeamNetIC

NOBODY, EVERYBODY = 2.0, -1.0  # thresholds for a confidence in [0, 1]
POLICY_COLUMNS = ("data", "split", "seed", "method", "combination", "rule", "goal")


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="resnet50", choices=ARCHS)
    parser.add_argument("--crop-size", type=int, default=224)
    parser.add_argument("--num_segments", type=int, default=8)
    parser.add_argument("--exits", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--compiled", action="store_true", help="with torch.compile")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--policies", metavar="CSV", help="policies to time; needs batch size 1")
    return parser


def build_policy(exits: list[int], thresholds: list[float]) -> Policy:
    """Each exit decides alone, the end by the sum of the streams."""
    number = len(exits)
    rows = [[float(k == j) for j in range(number + 3)] for k in range(number)]
    rows.append([0.0] * number + [1.0] * 3)
    return Policy(tuple(exits), tuple(thresholds), tuple(map(tuple, rows)))


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
    clips = random_clips(args, batch_size)
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
    points = torch.tensor([gmacs[name] for name in [f"exit{k}" for k in args.exits] + ["full"]])
    result = {"full": {"ms": round(medians["full"], 1)}}
    for name, policy in policies.items():
        mean_gmacs = points[net.early_exit(*clips, policy).point.cpu()].mean().item()
        result[name] = {
            "ms": round(medians[name], 1),
            "ms_ratio": round(medians[name] / medians["full"], 4),
            "macs_ratio": round(mean_gmacs / gmacs["full"], 4),
        }
    return result


def read_policies(path: str) -> list[dict]:
    """Test rows of policies.csv, one dict per policy with its shares, {exit: percent}."""
    policies: dict[tuple, dict] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            if row["part"] != "test":
                continue
            name = tuple(row[column] for column in POLICY_COLUMNS)
            policy = policies.setdefault(name, {**dict(zip(POLICY_COLUMNS, name)), "shares": {}})
            if row["exit"] == "all":
                policy["top1_pct"] = float(row["top1_pct"])
            else:
                policy["shares"][row["exit"]] = float(row["share_pct"])
    return list(policies.values())


def time_policy(policy: Mapping, timed: Mapping[str, Mapping]) -> dict:
    """Mean milliseconds per video of a policy, given those of each way out with batch 1."""
    ways = {**timed, "full": timed["no_exit_taken"]}
    ms = sum(share / 100 * ways[point]["ms"] for point, share in policy["shares"].items())
    return {**policy, "ms": round(ms, 1), "throughput_gain": round(timed["full"]["ms"] / ms, 2)}


@torch.inference_mode()
def main(args: argparse.Namespace) -> dict:
    net = TeamNetIC(build_network(args), args.exits).to(args.device)
    for head in net.heads.values():
        nn.init.normal_(head.weight, std=0.01)  # clips must differ in confidence
    net = prepare_for_inference(net, args.precision, args.compiled)
    result = {
        "benchmark": "early_exit",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **vars(args),
    }
    for batch_size in args.batch_sizes:
        result[f"batch_{batch_size}"] = time_exits(net, args, batch_size)
    if args.policies:
        result["policies"] = [
            time_policy(policy, result["batch_1"]) for policy in read_policies(args.policies)
        ]
    return result


if __name__ == "__main__":
    parser = get_args_parser()
    args = parser.parse_args()
    if args.policies and 1 not in args.batch_sizes:
        parser.error("--policies needs 1 among --batch-sizes")
    print(json.dumps(main(args)))
