"""How much faster the prepared network is than the plain one. One JSON line of one run.

    python -m benchmarks.forward --compiled

Plain is eager float32 as the network is built; prepared is `models.inference`, with the graphs of
`models.graphs` and without. Weights and clips are random, since time does not depend on them.
`share_of_peak` divides the rate of the whole network by the machine's peak: the best rate, in the
same precision, of a large matrix product and of ResNet's 3x3 convolutions alone.
"""

from __future__ import annotations

import argparse
import json
import math

import torch
from torch import nn

from benchmarks.measuring import capability, interleaved_medians, measured_precisions
from benchmarks.random_network import add_network_options, random_clips, random_network
from coviar.command import run
from MACs.team_net import exit_gmacs
from models.graphs import make_graphs
from models.inference import prepare_for_inference
from models.precision import PRECISIONS
from training.options import make_parser, positive_int


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_network_options(parser)
    parser.add_argument("--batch-size", type=positive_int, default=1)
    parser.add_argument(
        "--repeats", type=positive_int, default=9, help="timed rounds, and batches compared"
    )
    parser.add_argument("--compiled", action="store_true", help="measure torch.compile as well")
    return parser


def peak_gmacs_per_s(precision: str, device: str, repeats: int) -> float:
    """1e9 MACs per second: a matrix product of 2048, or a 3x3 convolution on 8 pictures."""
    matrix = torch.randn(2048, 2048, device=device, dtype=PRECISIONS[precision])
    cases, gmacs = {"matmul": lambda: matrix @ matrix}, {"matmul": 2048**3 / 1e9}
    for channels, side in ((64, 56), (128, 28), (256, 14), (512, 28)):
        conv = nn.Conv2d(channels, channels, 3, padding=1, device=device)
        conv.to(PRECISIONS[precision], memory_format=torch.channels_last)
        x = torch.randn(8, channels, side, side, device=device, dtype=PRECISIONS[precision])
        x = x.contiguous(memory_format=torch.channels_last)
        cases[channels] = lambda conv=conv, x=x: conv(x)
        gmacs[channels] = 8 * channels**2 * 9 * side**2 / 1e9
    medians = interleaved_medians(cases, repeats)
    return max(1e3 * gmacs[name] / ms for name, ms in medians.items())


def build_cases(args: argparse.Namespace) -> dict[str, tuple[nn.Module, str]]:
    """The networks to compare_logits, and the precision that each computes in."""
    net = random_network(args.num_segments, args.arch, args.motion_arch, args.device)
    cases = {"plain": (net, "fp32")}
    for precision in measured_precisions(args.device):
        for name, often in ((precision, 0), (f"{precision}_no_graphs", math.inf)):
            fast = prepare_for_inference(net, precision)
            make_graphs(fast, often)
            cases[name] = fast, precision
        if args.compiled:
            fast = prepare_for_inference(net, precision, compiled=True)
            cases[f"{precision}_compiled"] = fast, precision
    return cases


def compare_logits(logits: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
    agreement = (logits.argmax(1) == reference.argmax(1)).float().mean().item()
    difference = (logits - reference).abs().max() / reference.abs().max()
    return {
        "top1_agreement_pct": round(100 * agreement, 2),
        "max_logit_difference": float(f"{difference.item():.2g}"),  # of the largest logit
    }


@torch.inference_mode()
def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    cases = build_cases(args)
    shape = (args.batch_size, args.num_segments, args.crop_size, args.device)
    clips = random_clips(*shape)
    medians = interleaved_medians(
        {name: lambda net=net: net(*clips) for name, (net, _) in cases.items()}, args.repeats
    )
    peaks = {
        p: peak_gmacs_per_s(p, args.device, args.repeats) for p in measured_precisions(args.device)
    }
    batches = [random_clips(*shape) for _ in range(args.repeats)]
    logits = {
        name: torch.cat([net(*batch).fused for batch in batches])
        for name, (net, _) in cases.items()
    }
    config = cases["plain"][0].config
    gmacs = exit_gmacs(config, (), args.crop_size)["full"] * args.batch_size
    result = {
        "benchmark": "forward",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **capability(args.device),
        **vars(args),
        "gmacs": round(gmacs, 3),
        "peak_gmacs_per_s": {p: round(peak, 1) for p, peak in peaks.items()},
    }
    for name, (_, precision) in cases.items():
        result[name] = {
            "ms": round(medians[name], 1),
            "ratio_to_plain": round(medians["plain"] / medians[name], 2),
            "gmacs_per_s": round(1e3 * gmacs / medians[name], 1),
            "share_of_peak": round(1e3 * gmacs / medians[name] / peaks[precision], 3),
            **compare_logits(logits[name], logits["plain"]),
        }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    run(main, get_args_parser())
