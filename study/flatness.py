"""How flat the minima of a backbone's streams are: by flatness the paper orders its teachers.

    python -m study.flatness runs/ucf101_7/team_net/split1_seed1/best.pt --data-name ucf101_7 \\
        --data-root data/ucf101_7 --train-list lists/train.txt --test-list lists/test.txt \\
        --split split1 --part train --segments 2 --out results/ucf101_7/flatness.csv

Measures each stream by its own logits and cross entropy, on a fixed set of clips as tested
(docs/teacher_order.md; study.curvature has the definitions):

    top1_pct, loss                 where the weights are
    random                         what random perturbations add to the loss, by radius
    worst                          what the worst perturbation found adds, by radius
    hessian_trace, relative_trace  the trace of the Hessian; the same, of filters of equal size

The weights of the stream's convolutions and classifier are perturbed. Biases, BatchNorm, TEAM
blocks and other streams are not. Rows are added to --out, stream by stream. A stream whose rows are
there is not measured again.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from coviar.command import run
from models import STREAMS
from models.team_net import TeamNet
from study import curvature
from study.curvature import MeanOfDraws
from study.run_tables import read_rows, write_rows
from study.stream_loss import StreamLoss, choose_videos
from study.tables import to_markdown
from training.agreement import READ_FROM_BACKBONE, check_classes, load_as_trained
from training.loading import Batch, ViewSampler, make_loader, to_device
from training.options import (
    add_data_options,
    make_parser,
    non_negative_int,
    positive_float,
    positive_int,
    refusing,
)
from training.provenance import command_line, print_result
from training.resolve import choose_device
from training.script import check_data, pick
from training.splits import DataSettings, open_splits
from training.tensor_file import weights_digest

PART_DATASETS = {"train": "train_as_tested", "heldout": "heldout"}
_KEY = ["data", "split", "seed", "part", "stream"]
_MEASURE = ["measure", "radius", "draws"]
_SETTINGS = ["num_videos", "num_segments", "draw_seed", "backbone_digest"]
COLUMNS = [*_KEY, *_MEASURE, "value", "std_error", *_SETTINGS, "backbone", "command"]


@dataclass(frozen=True)
class Amounts:
    """How much is measured of a stream; see the options."""

    radii: Sequence[float]
    worst_radii: Sequence[float]
    directions: int
    steps: int
    vectors: int
    draw_seed: int

    def rows(self) -> list[tuple[str, float | str, int | str]]:
        """(measure, radius, draws) of each row of a stream, in the order of `measure`."""
        return [
            *(("top1_pct", "", ""), ("loss", "", "")),
            *(("random", radius, self.directions) for radius in self.radii),
            *(("worst", radius, self.steps) for radius in self.worst_radii),
            *((f"{kind}_trace", "", self.vectors) for kind in ("hessian", "relative")),
        ]


def measure(stream: StreamLoss, amounts: Amounts) -> Iterator[MeanOfDraws]:
    """The value of each of `amounts.rows()`. Raises ValueError where a radius is too large."""
    loss, weights, seed = stream.parts, stream.weights, amounts.draw_seed
    here = curvature.mean_loss(loss, weights)
    yield _exact(stream.top1_pct())
    yield _exact(here)
    for radius in amounts.radii:
        losses = curvature.random_losses(loss, weights, radius, amounts.directions, seed)
        yield MeanOfDraws.of([found - here for found in losses])
    for radius in amounts.worst_radii:
        start = curvature.random_direction(weights, seed, 0)
        yield _exact(curvature.worst_loss(loss, weights, radius, start, amounts.steps) - here)
    yield from curvature.hessian_traces(loss, weights, amounts.vectors, seed)


def _exact(value: float) -> MeanOfDraws:
    return MeanOfDraws(value, np.nan, 1)


def load_batches(
    args: argparse.Namespace, net: TeamNet, crop_size: int, classes: Sequence[str] | None
) -> list[Batch]:
    """The clips of args.videos videos of args.part, on the device of the options, in batches."""
    count = net.config["num_classes"]
    settings = pick(DataSettings, args)
    splits = open_splits(settings, net.num_segments, crop_size, args.draw_seed, count)
    check_classes(args.checkpoint, classes, count, splits.class_names, args.train_list)
    dataset = getattr(splits, PART_DATASETS[args.part])
    if dataset is None:
        raise ValueError("--part heldout: there is no such part with --select-on test")
    rows = choose_videos(dataset.records, args.videos, args.draw_seed)
    device = choose_device(args.gpus)
    sampler = ViewSampler(len(dataset), 0, rows)
    loader = make_loader(dataset, sampler, args.batch_size, args.workers, device)
    return [to_device(sample, device) for sample in tqdm(loader, desc="clips", disable=None)]


def read_flatness(path: Path) -> list[dict]:
    """The rows of a file of this script; raises as `read_rows`."""
    return read_rows(path, COLUMNS, "study.flatness")


def is_done(rows: Sequence[Mapping], wanted: Sequence[Mapping], path: Path) -> bool:
    """Whether `rows`, of `path`, hold these. Raises ValueError where they hold the same stream of
    another backbone or with other settings."""

    def values(row: Mapping, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(_text(row[name]) for name in names)

    stream = values(wanted[0], _KEY)
    settings = [*_MEASURE, *_SETTINGS]
    there = {values(row, settings) for row in rows if values(row, _KEY) == stream}
    if there and there != {values(row, settings) for row in wanted}:
        raise ValueError(
            f"{path} holds {' '.join(stream)} of another backbone or with other settings: name"
            " another --out, or remove these rows"
        )
    return bool(there)


def flatness_table(rows: Sequence[Mapping]) -> list[list[str]]:
    """Header and rows: a line for each measure and radius, a column for each stream."""
    found = defaultdict(dict)
    for row in rows:
        error = f" ± {float(row['std_error']):.2g}" if row["std_error"] else ""
        cell = f"{float(row['value']):.4g}{error}"
        found[row["measure"], row["radius"]][row["stream"]] = cell
    lines = ([*key, *(cells[stream] for stream in STREAMS)] for key, cells in found.items())
    return [["measure", "radius", *STREAMS], *lines]


def _text(value: object) -> str:
    """As it stands in the file: six digits suffice."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return str(value)


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("checkpoint", type=Path, help="backbone: best.pt, or a published file")
    add_data_options(parser)
    group = parser.add_argument_group("clips")
    group.add_argument(
        "--part", choices=PART_DATASETS, default="train", help="of the split (train)"
    )
    group.add_argument(
        "--videos", type=positive_int, default=56, help="drawn, alike from all classes (56)"
    )
    group.add_argument(
        "--segments",
        type=positive_int,
        help="of each clip (default the network's T; fewer are cheaper; not with --is_shift)",
    )
    group.add_argument("--batch-size", type=positive_int, default=8, help="clips a pass (8)")
    group = parser.add_argument_group("measurement")
    group.add_argument(
        "--radii",
        type=positive_float,
        nargs="+",
        default=[0.02, 0.05, 0.1],
        help="of random perturbations, relative to the norm of each filter (0.02 0.05 0.1)",
    )
    group.add_argument(
        "--worst-radii",
        type=positive_float,
        nargs="+",
        default=[0.0005, 0.001, 0.002],
        help="of worst ones, likewise (0.0005 0.001 0.002)",
    )
    group.add_argument("--directions", type=positive_int, default=5, help="random ones (5)")
    group.add_argument("--steps", type=positive_int, default=5, help="to the worst one (5)")
    group.add_argument("--vectors", type=positive_int, default=8, help="for the traces (8)")
    group.add_argument(
        "--draw-seed", type=non_negative_int, default=0, help="of videos, directions, vectors (0)"
    )
    group = parser.add_argument_group("run")
    group.add_argument("--out", type=Path, required=True, help="CSV file; rows are added")
    group.add_argument(
        "--random_seed", type=non_negative_int, default=1, help="of the backbone, for the rows (1)"
    )
    group.add_argument("--gpus", type=non_negative_int, nargs=1, help="CUDA device id")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        measured = add_rows(args)
    print_result({"out": str(args.out), "measured": measured})


def add_rows(args: argparse.Namespace) -> list[str]:
    """Measure the streams that the file lacks, and print the table; returns their names."""
    check_data(args)
    rows = read_flatness(args.out)
    asked = dict.fromkeys(READ_FROM_BACKBONE)
    checkpoint, net, crop_size = load_as_trained(args.checkpoint, asked)
    digest = weights_digest(net.state_dict())
    if args.segments and net.config["is_shift"]:
        raise ValueError("--segments: with temporal shift a clip has the network's T segments")
    net.num_segments = args.segments or net.num_segments
    batches = load_batches(args, net, crop_size, checkpoint.get("class_names"))
    net.to(batches[0].labels.device, memory_format=torch.channels_last)
    net.eval().requires_grad_(False)
    amounts = pick(Amounts, args)
    about = {
        **{"data": args.data_name, "split": args.split, "seed": args.random_seed},
        **{"part": args.part, "num_videos": sum(len(batch.labels) for batch in batches)},
        **{"num_segments": net.num_segments, "draw_seed": args.draw_seed},
        **{"backbone_digest": digest, "backbone": args.checkpoint, "command": command_line()},
    }
    wanted = {
        stream: [{**about, "stream": stream, **dict(zip(_MEASURE, row))} for row in amounts.rows()]
        for stream in STREAMS
    }
    left = [stream for stream in STREAMS if not is_done(rows, wanted[stream], args.out)]
    for stream in left:
        values = measure(StreamLoss(net, stream, batches), amounts)
        values = tqdm(values, desc=stream, total=len(wanted[stream]), disable=None)
        for row, estimate in zip(wanted[stream], values):
            row["value"], row["std_error"] = estimate[:2]
        rows += [{name: _text(row[name]) for name in COLUMNS} for row in wanted[stream]]
        write_rows(args.out, COLUMNS, rows)
    here = [_text(about[name]) for name in _KEY[:-1]]
    print(to_markdown(flatness_table([r for r in rows if [r[name] for name in _KEY[:-1]] == here])))
    return left


if __name__ == "__main__":
    run(main, get_args_parser())
