"""Save the logits of every exit and stream of one trained method, for train, held-out and test.

    python save_logits.py --method prog_kd --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt

Writes <checkpoint_dir>/<data>/<method>/<split>_seed<k>/logits.pt: part `train` holds the training
videos as tested (one deterministic view), `train_views` their --views augmented views, `heldout`
and `test` the other videos. Rows carry the video's name. WISE and thresholds need nothing else.
Views that the bank lacks are computed; torchrun --nproc_per_node=N divides them over N processes.
"""

import torch

from coviar.command import run
from early_exit.logits import LOGITS_NAME, LogitsFile, Part
from models import STREAMS
from training import distributed
from training.bank import fill_share
from training.checkpoint import BEST
from training.options import (
    add_data_options,
    add_device_options,
    add_location_options,
    folder_name,
    make_parser,
)
from training.provenance import command_line, print_result
from training.recipes import METHODS
from training.resolve import run_path
from training.script import check_data, open_frozen, refusing
from training.train_options import add_frozen_options


def get_args_parser():
    parser = make_parser(__doc__)
    add_data_options(parser)
    add_frozen_options(parser, no_views="no part train_views")
    group = parser.add_argument_group("run")
    group.add_argument(
        "--method", type=folder_name, required=True, help=f"{', '.join(METHODS)}, or your own"
    )
    add_location_options(group)
    add_device_options(group)
    return parser


def collect(net, views, count):
    """One part: names, labels and logits (views, n, exits + streams, classes)."""
    logits = []
    for features in (views[view] for view in range(count)):
        with torch.no_grad():
            device = next(net.heads.parameters()).device
            exits = net.heads_from(features.exit_inputs(device))
        logits.append(torch.cat([torch.stack(exits, 1).cpu(), features.streams], dim=1))
    return Part(names=features.names, labels=features.labels, logits=torch.stack(logits))


def main(args, parser):
    folder = run_path(args, args.method)
    with refusing(parser):
        check_data(args)
        frozen = open_frozen(args)
    try:
        net = frozen.exits(folder / BEST)
    except (ValueError, FileNotFoundError) as error:
        parser.error(f"{error}; train the exits first, with the same options")
    distributed.start(frozen.device)
    splits = frozen.splits
    counts = {"train_as_tested": 1, "train": args.views}
    for name, dataset in {"heldout": splits.heldout, "test": splits.test}.items():
        if dataset is not None:
            counts[name] = dataset.num_test_views
    banks = {part: frozen.views(part) for part in counts}
    fill_share(banks, counts, distributed.rank() + 1, distributed.world_size())
    distributed.barrier()
    if distributed.is_main():
        save(args, frozen, net, folder, counts, banks)
    distributed.stop()


def save(args, frozen, net, folder, counts, banks):
    names = {"train_as_tested": "train", "train": "train_views"}
    parts = {
        names.get(part, part): collect(net, banks[part], count)
        for part, count in counts.items()
        if count
    }
    logits = LogitsFile(
        meta={
            "data": args.data_name,
            "split": args.split,
            "seed": args.random_seed,
            "method": args.method,
            "protocol": frozen.splits.protocol,
            "command": command_line(),
            "model": frozen.backbone.config,
            "crop_size": frozen.crop_size,
            "exits": list(net.exits),
            "backbone": str(frozen.path),
            "backbone_digest": frozen.digest,
            "precision": args.precision,
            "data_seed": args.data_seed,
        },
        outputs=[f"exit{k}" for k in net.exits] + list(STREAMS),
        class_names=frozen.class_names,
        parts=parts,
    )
    path = folder / LOGITS_NAME
    logits.save(path)
    print_result(
        {
            "logits": str(path),
            "precision": args.precision,
            "videos": {name: len(part.names) for name, part in parts.items()},
            "views": {name: len(part.logits) for name, part in parts.items()},
        }
    )


if __name__ == "__main__":
    run(main, get_args_parser())
