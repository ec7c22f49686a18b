"""The throughput of early exiting on real test videos, next to its accuracy and its MACs.

    python -m benchmarks.policies --run runs/ucf101/prog_kd/split1_seed1 --data-name ucf101 \\
        --data-root data/ucf101 --test-list lists/ucf101_split1_test.txt --max-drop 0 1

The run holds best.pt, logits.pt and wise.json. For each --max-drop a policy is calibrated on its
held-out videos. Then the test clips (one per video) pass the full network without exits, and
`early_exit` with each policy, in turns, in batches and singly. Gains are ratios of clips per second
to the full network: of the network alone, and with loading on the same cores. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.measuring import capability, device_name, interleaved_medians
from coviar.command import run
from dataset_team.dataset import VideoDataset
from dataset_team.records import read_list
from dataset_team.transforms import normalise
from early_exit.calibrate import RULES
from early_exit.logits import LOGITS_NAME, LogitsFile
from early_exit.policy import Policy
from early_exit.wise import COMBINATIONS
from MACs.team_net import exit_gmacs
from models.graphs import make_graphs
from models.inference import prepare_for_inference
from models.precision import CHOICES, resolve
from models.team_net_ic import TeamNetIC
from study.policies import load_run_tables, make_policy
from training.options import make_parser, non_negative_float, positive_int, refusing
from training.trained import load_trained


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run of exits")
    parser.add_argument("--pretrained", type=Path, help="its backbone, if it is not found")
    parser.add_argument("--data-name", default="ucf101")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--test-list", type=Path, required=True)
    parser.add_argument(
        "--max-drop", type=non_negative_float, nargs="+", default=[0.0, 1.0], metavar="PCT"
    )
    parser.add_argument("--combination", choices=COMBINATIONS, default="wise")
    parser.add_argument("--rule", choices=RULES, default="common")
    parser.add_argument("--batch-sizes", type=positive_int, nargs="+", default=[1, 8])
    parser.add_argument("--videos", type=positive_int, help="take every n-th, about this many")
    parser.add_argument("--repeats", type=positive_int, default=3)
    parser.add_argument("--precision", choices=CHOICES, default="auto")
    parser.add_argument("--compiled", action="store_true", help="with torch.compile")
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu or cuda")
    return parser


def calibrated_policies(
    run: Path, max_drops: Sequence[float], combination: str, rule: str
) -> dict[str, Policy]:
    """A policy for each of `max_drops`, as team_net_wise_all_acc.py makes it."""
    path = run / LOGITS_NAME
    tables = load_run_tables(path, LogitsFile.load(path))
    goal = {"select_on": "heldout", "confidence": "max", "temperature": 1.0}
    return {
        f"max_drop_{drop:g}": make_policy(tables, combination, rule, max_drop=drop, **goal)
        for drop in max_drops
    }


def open_videos(args: argparse.Namespace, net: TeamNetIC, crop_size: int) -> VideoDataset:
    records = read_list(args.test_list, args.data_root, args.data_name)
    if args.videos:  # spread over the classes, which lists go through one by one
        records = records[:: max(1, len(records) // args.videos)]
    segments = net.backbone.num_segments
    return VideoDataset(records, train=False, num_segments=segments, crop_size=crop_size)


def run_all(
    decide: Callable, clips: list[tuple[torch.Tensor, ...]], batch_size: int, device: str
) -> list:
    """`decide` on all clips, batch by batch."""
    results = []
    for start in range(0, len(clips), batch_size):
        batch = zip(*clips[start : start + batch_size])
        results.append(decide(*normalise(*(torch.stack(x).to(device) for x in batch))))
    return results


def outcome(
    net: TeamNetIC, policy: Policy | None, clips: list, labels: torch.Tensor, crop_size: int, device
) -> dict:
    """top1_pct, mean gmacs and, for a policy, the shares of clips that leave at each point."""
    exits = policy.exits if policy else ()
    costs = exit_gmacs(net.backbone.config, exits, crop_size, net.ic_pool)
    if policy is None:
        output = run_all(net.backbone, clips, 8, device)
        found, points = torch.cat([x.fused.argmax(1) for x in output]).cpu(), None
    else:
        output = run_all(lambda *clip: net.early_exit(*clip, policy), clips, 8, device)
        found, points = (torch.cat([x[k] for x in output]).cpu() for k in (0, 1))
    result = {"top1_pct": round(100 * (found == labels).float().mean().item(), 2)}
    if points is None:
        return {**result, "gmacs": round(costs["full"], 4)}
    shares = points.bincount(minlength=len(costs)) / len(points)
    gmacs = sum(share * cost for share, cost in zip(shares.tolist(), costs.values()))
    return {
        **result,
        "gmacs": round(gmacs, 4),
        "macs_gain": round(costs["full"] / gmacs, 2),
        "share_pct": {name: round(100 * x, 1) for name, x in zip(costs, shares.tolist())},
        "thresholds": policy.thresholds,
        "reached": policy.provenance["reached"],
    }


@torch.inference_mode()
def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        policies = calibrated_policies(args.run, args.max_drop, args.combination, args.rule)
        trained = load_trained(args.run, args.pretrained)
        dataset = open_videos(args, trained.net, trained.crop_size)
    args.precision = resolve(args.precision, args.device)
    net = prepare_for_inference(trained.net.to(args.device), args.precision, args.compiled)
    make_graphs(net, 0)
    clips = [dataset[i][:3] for i in tqdm(range(len(dataset)), desc="loading", disable=None)]
    labels = torch.tensor([record.label for record in dataset.records])
    deciders = {"full": net.backbone}
    for name, policy in policies.items():
        deciders[name] = lambda *clip, policy=policy: net.early_exit(*clip, policy)
    cases = {
        (name, size): lambda decide=decide, size=size: run_all(decide, clips, size, args.device)
        for size in args.batch_sizes
        for name, decide in deciders.items()
    }
    cases["load"] = lambda: [dataset[i] for i in range(len(dataset))]
    medians = {
        case: ms / len(clips) for case, ms in interleaved_medians(cases, args.repeats).items()
    }
    result = {
        "benchmark": "policies",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **capability(args.device),
        **{key: str(x) if isinstance(x, Path) else x for key, x in vars(args).items()},
        "videos": len(clips),
        "load_ms": round(medians["load"], 2),
    }
    for name in deciders:
        about = (net, policies.get(name), clips, labels, trained.crop_size, args.device)
        result[name] = outcome(*about)
        for size in args.batch_sizes:
            ms, full, load = medians[name, size], medians["full", size], medians["load"]
            result[name][f"batch_{size}"] = {
                "ms": round(ms, 2),
                "gain": round(full / ms, 2),
                "gain_with_loading": round((full + load) / (ms + load), 2),
            }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    run(main, get_args_parser())
