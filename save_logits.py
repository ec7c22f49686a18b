"""Save the logits of every exit and stream of one trained method, for train, held-out and test.

    python save_logits.py --method prog_kd --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt

Writes <checkpoint_dir>/<data>/<method>/<split>_seed<k>/logits.pt. Its part `train` holds the
training videos as tested (one view without augmentation), `train_views` their --views augmented
views, `heldout` and `test` the other videos. Each row has the name of its video. WISE and
thresholds need nothing else. With --per-segment all parts but `train_views` also hold the logits of
each segment, for exits before the last segment is read (docs/over_time.md); --method team_net then
needs no exits. Views that the bank lacks are computed; torchrun --nproc_per_node=N divides them
over N processes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from coviar.command import run
from dataset_team.sampling import reading_order
from early_exit.groups import stated_groups
from early_exit.logits import LOGITS_NAME, LogitsFile
from early_exit.part import PARTS, LogitsError, Part
from early_exit.wise import output_names
from models.over_time import check_depths
from models.team_net_ic import TeamNetIC
from training import distributed
from training.bank import Views, fill_share
from training.features import Features
from training.frozen import Frozen
from training.options import (
    add_data_options,
    add_device_options,
    add_location_options,
    asking_for_room,
    folder_name,
    make_parser,
    refusing,
)
from training.provenance import command_line, print_result
from training.recipes import METHODS
from training.resolve import run_path
from training.script import check_data, open_frozen
from training.splits import Splits
from training.tensor_file import BEST, weights_digest
from training.train_options import add_frozen_options

# The names, in the file, of the bank's parts.
NAMES = {"train_as_tested": "train", "train": "train_views"}


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_data_options(parser)
    add_frozen_options(parser, no_views="no part train_views")
    group = parser.add_argument_group("run")
    group.add_argument(
        "--method", type=folder_name, required=True, help=f"{', '.join(METHODS)}, or your own"
    )
    group.add_argument(
        "--per-segment",
        action="store_true",
        help="keep the logits of each segment as well, as float16: not with --is_shift, nor with"
        " exits of --ic-pool concat",
    )
    group.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=PARTS,
        help="to save; thresholds need heldout and test (default: all that the data has)",
    )
    add_location_options(group)
    add_device_options(group)
    return parser


@torch.no_grad()
def collect(net: TeamNetIC, views: Views, count: int, device: torch.device) -> Part:
    """One part: names, labels and logits (views, n, exits + streams, classes)."""
    logits, segments = [], []
    for features in (views[view] for view in range(count)):
        inputs = features.exit_inputs(device)
        exits = [x.cpu() for x in net.heads_from(inputs)]
        logits.append(torch.stack([*exits, *features.streams.unbind(1)], 1))
        if features.segments is not None:
            segments.append(segment_logits(net, features, inputs))
    return Part(
        names=features.names,
        labels=features.labels,
        logits=torch.stack(logits),
        groups=stated_groups(views.dataset.records),
        segments=torch.stack(segments) if segments else None,
    )


def segment_logits(
    net: TeamNetIC, features: Features, squeezes: Sequence[torch.Tensor]
) -> torch.Tensor:
    """(n, T, exits + streams, classes) float16, the segments in reading order."""
    count = net.backbone.num_segments
    exits = [net.head(k, squeezes[k - 1].unflatten(1, (count, -1))) for k in net.exits]
    found = [*(x.half().cpu() for x in exits), *features.segments.unbind(2)]
    return torch.stack(found, 2)[:, reading_order(count)]


def open_exits(args: argparse.Namespace, frozen: Frozen, folder: Path) -> TeamNetIC:
    """The trained exits, or the backbone alone. Raises ValueError where it cannot be saved."""
    if args.method == "team_net":
        if not args.per_segment:
            raise ValueError("--method team_net has no exits: name a method, or add --per-segment")
        net = frozen.alone()
    else:
        try:
            net = frozen.exits(folder / BEST)
        except FileNotFoundError as error:
            raise ValueError(f"{error}; train the exits first, with the same options") from error
    if args.per_segment:
        check_depths(net, net.exits)
    return net


def check_finite(net: TeamNetIC, exits: Path, backbone: Path) -> None:
    """Raise ValueError, naming the checkpoint, where weights are not finite."""
    for path, module in ((backbone, net.backbone), (exits, net.heads)):
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f"{path}: the weights {name} are not finite; train it again")


def views_to_save(args: argparse.Namespace, splits: Splits) -> dict[str, int]:
    """The number of views of each part of the bank. Raises ValueError where there is none."""
    counts = {"train_as_tested": 1, "train": args.views}
    for name, dataset in {"heldout": splits.heldout, "test": splits.test}.items():
        if dataset is not None:
            counts[name] = dataset.num_test_views
    counts = {part: n for part, n in counts.items() if NAMES.get(part, part) in args.parts}
    if not any(counts.values()):
        raise ValueError(
            f"--parts {' '.join(args.parts)}: there is nothing to save; train_views needs --views"
            " above 0, heldout needs held-out videos"
        )
    return counts


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    folder = run_path(args, args.method)
    with refusing(parser):
        check_data(args)
        frozen = open_frozen(args)
        net = open_exits(args, frozen, folder)
        check_finite(net, folder / BEST, frozen.path)
        counts = views_to_save(args, frozen.splits)
    with asking_for_room(parser, "give the same command again"), refusing(parser):
        banks = {
            part: frozen.views(part, per_segment=args.per_segment and part != "train")
            for part in counts
        }
        fill_share(banks, counts, distributed.rank() + 1, distributed.world_size())
        distributed.barrier()
        if distributed.is_main():
            save_parts(args, frozen, net, folder, counts, banks)
    distributed.stop()


def save_parts(
    args: argparse.Namespace,
    frozen: Frozen,
    net: TeamNetIC,
    folder: Path,
    counts: Mapping[str, int],
    banks: Mapping[str, Views],
) -> None:
    parts = {
        NAMES.get(part, part): collect(net, banks[part], count, frozen.device)
        for part, count in counts.items()
        if count
    }
    meta = {
        "data": args.data_name,
        "split": args.split,
        "seed": args.random_seed,
        "method": args.method,
        "protocol": frozen.protocol,
        "command": command_line(),
        "model": frozen.backbone.config,
        "crop_size": frozen.crop_size,
        "exits": list(net.exits),
        "ic_pool": net.ic_pool,
        "backbone": str(frozen.path),
        "backbone_digest": frozen.digest,
        "exits_digest": weights_digest(net.heads.state_dict()) if net.exits else None,
        "precision": args.precision,
        "data_seed": args.data_seed,
    }
    try:
        logits = LogitsFile(meta, output_names(net.exits), frozen.class_names, parts)
    except LogitsError as error:
        remedy = "" if args.precision == "fp32" else "; try --precision fp32"
        name = folder / BEST if net.exits else frozen.path
        raise ValueError(f"the network of {name}: {error}{remedy}") from error
    path = folder / LOGITS_NAME
    logits.save(path)
    print_result(
        {
            "logits": str(path),
            "precision": args.precision,
            "videos": {name: len(part.names) for name, part in parts.items()},
            "views": {name: len(part.logits) for name, part in parts.items()},
            "segments": logits.num_segments,
        }
    )


if __name__ == "__main__":
    run(main, get_args_parser())
