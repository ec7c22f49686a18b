"""How much faster a bf16 training step is than a plain fp32 one, and whether it learns the same.

    python -m benchmarks.train_step --arch resnet50 --crop-size 224 --num_segments 8 --batch-size 2
    python -m benchmarks.train_step --toy data/toy --seeds 1 2 3

Plain is PyTorch's default: fp32, channels first, an optimizer that is not fused. The others are
the step of train_team_net.py (channels last, fused SGD) in fp32 and in bf16, where depthwise
convolutions stay in fp32. Clips are random.
With `--toy` (a folder of `python -m dataset_team.toy`) train_team_net.py itself then runs in both
precisions, and the losses of its epochs are compared with their deviation over the seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.measuring import capability, interleaved_medians, measured_precisions
from benchmarks.random_network import NUM_CLASSES, add_network_options, random_clips
from coviar.command import run
from models.team_net import TeamNet
from training.engine import GRADIENT_CLIP, autocast, clip_loss, make_optimizer
from training.on_cpu import prepare_for_training
from training.options import make_parser, non_negative_int, positive_int

LR = 0.01
TOY_RUN = ["--arch", "resnet18", "--num_segments", "3", "--crop-size", "64", "--batch-size", "8"]
TOY_RUN += ["--lr", "0.004", "--lr-schedule", "cosine", "--classifier-lr-scale", "1", "1"]
TOY_RUN += ["--data-name", "toy", "--no-flip"]


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_network_options(parser, "resnet18", crop_size=112, num_segments=4)
    parser.add_argument("--batch-size", type=positive_int, default=8)
    parser.add_argument("--repeats", type=positive_int, default=9, help="timed rounds")
    parser.add_argument("--toy", type=Path, help="folder of toy data: compare the losses as well")
    parser.add_argument("--epochs", type=positive_int, default=6, help="of the runs on toy data")
    parser.add_argument(
        "--seeds", type=non_negative_int, nargs="+", default=[1, 2, 3], help="likewise"
    )
    return parser


def make_step(args: argparse.Namespace, precision: str, plain: bool) -> Callable[[], None]:
    """One training step on the same random clips, of a network of its own."""
    torch.manual_seed(0)
    device = torch.device(args.device)
    net = TeamNet(NUM_CLASSES, args.num_segments, args.arch, args.motion_arch).to(device).train()
    clips = random_clips(args.batch_size, args.num_segments, args.crop_size, args.device)
    labels = torch.randint(NUM_CLASSES, (args.batch_size,), device=device)
    if plain:
        optimizer = torch.optim.SGD(net.parameters(), LR, momentum=0.9)
    else:
        net.to(memory_format=torch.channels_last)
        net = prepare_for_training(net, device)
        optimizer = make_optimizer(net, "sgd", LR, 1e-4, (1.0, 1.0))

    def step() -> None:
        with autocast(device, precision):
            output = net(*clips)
        if plain:
            loss = F.cross_entropy(output.fused, labels)
        else:
            loss = clip_loss(output, labels, stream_loss=0.0, label_smoothing=0.0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_CLIP)
        optimizer.step()

    return step


def toy_losses(args: argparse.Namespace, precision: str) -> torch.Tensor:
    """Training loss of every epoch, (seeds, epochs), of train_team_net.py on the toy data."""
    losses = []
    lists = ["--train-list", args.toy / "train.txt", "--test-list", args.toy / "test.txt"]
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as runs:
            options = [*TOY_RUN, *lists, "--data-root", args.toy, "--checkpoint_dir", runs]
            options += ["--precision", precision, "--epochs", args.epochs, "--random_seed", seed]
            options += ["--eval-freq", args.epochs]
            command = [sys.executable, "train_team_net.py", *map(str, options)]
            subprocess.run(command, check=True, stdout=sys.stderr)
            (log,) = Path(runs).glob("*/*/*/log.jsonl")
            losses.append([json.loads(line)["loss"] for line in log.read_text().splitlines()])
    return torch.tensor(losses)


def compare_losses(fp32: torch.Tensor, bf16: torch.Tensor) -> dict:
    """Means over seeds by epoch, and the largest difference of them in standard deviations.

    The deviation is that of a difference of two means over seeds, from both precisions' spread.
    """
    spread = ((fp32.var(0) + bf16.var(0)) / len(fp32)).sqrt()
    difference = (fp32.mean(0) - bf16.mean(0)).abs()
    return {
        "fp32_loss": [round(loss, 3) for loss in fp32.mean(0).tolist()],
        "bf16_loss": [round(loss, 3) for loss in bf16.mean(0).tolist()],
        "std_of_difference": [round(std, 3) for std in spread.tolist()],
        "largest_difference_in_std": round((difference / spread).max().item(), 2),
    }


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.toy and not (args.toy / "train.txt").is_file():
        parser.error(f"--toy {args.toy} has no train.txt; python -m dataset_team.toy {args.toy}")
    if args.toy and len(args.seeds) < 2:
        parser.error("--seeds: a deviation needs two seeds or more")
    if args.toy and "bf16" not in measured_precisions(args.device):
        parser.error("--toy compares fp32 and bf16, which this processor does not compute")
    steps = {
        "plain": make_step(args, "fp32", plain=True),
        **{p: make_step(args, p, plain=False) for p in measured_precisions(args.device)},
    }
    medians = interleaved_medians(steps, args.repeats)
    result = {
        "benchmark": "train_step",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **capability(args.device),
        **{key: value for key, value in vars(args).items() if key not in ("toy", "epochs")},
    }
    for name, ms in medians.items():
        ratio = round(medians["plain"] / ms, 2)
        result[name] = {"ms": round(ms, 1), "ratio_to_plain": ratio}
    if args.toy:
        result["toy"] = compare_losses(*(toy_losses(args, name) for name in ("fp32", "bf16")))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    run(main, get_args_parser())
