"""Train the baseline: a linear layer on ImageNet features of a video's I-frames.

    python train_i_frame_probe.py --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt \\
        --arch mobilenet_v2 --num_segments 8

A user would try this first: the network is not trained, and neither motion vectors nor residuals
are used. The I-frames are those of the I-frame stream of train_team_net.py with the same options.
The linear layer is solved exactly on --views augmented views of the training videos. Its weight
decay is chosen on the held-out videos. The run folder is
<checkpoint_dir>/<data>/i_frame_probe/<split>_seed<k>/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from coviar.command import run
from models.weights import load_imagenet
from training.checkpoint import save_checkpoint
from training.options import (
    add_data_options,
    add_device_options,
    add_location_options,
    make_parser,
    non_negative_float,
    positive_int,
    refusing,
)
from training.probe import (
    DECAYS,
    Scored,
    average_features,
    fit_linear,
    new_stream,
    probe_gmacs,
    put_classifier,
    scores,
)
from training.provenance import print_result
from training.recipes import PROBE
from training.resolve import choose_device, resolve_precision
from training.script import check_data, pick, run_folder, running
from training.splits import DataSettings, open_splits
from training.tensor_file import BEST


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_data_options(parser)
    group = parser.add_argument_group("network")
    group.add_argument(
        "--arch", default="mobilenet_v2", help="of train_team_net.py (default mobilenet_v2)"
    )
    group.add_argument("--num_segments", type=positive_int, default=8, help="T (default 8)")
    group.add_argument("--crop-size", type=positive_int, default=224, help="pixels (default 224)")
    group.add_argument(
        "--weights-dir",
        type=Path,
        help="of torchvision's ImageNet weights (default: torch's hub cache, with download)",
    )
    group = parser.add_argument_group("linear layer")
    group.add_argument(
        "--views", type=positive_int, default=4, help="of each training video (default 4)"
    )
    group.add_argument(
        "--wd",
        type=non_negative_float,
        help="weight decay, for standardised features (default: chosen where models are chosen,"
        f" of {', '.join(map(str, DECAYS))})",
    )
    group = parser.add_argument_group("run")
    add_location_options(group)
    used = group.add_mutually_exclusive_group()
    used.add_argument("--resume", action="store_true", help="report the result of a finished run")
    used.add_argument("--overwrite", action="store_true", help="start again in a used folder")
    group.add_argument(
        "--feature-batch", type=positive_int, default=16, help="clips per forward pass"
    )
    add_device_options(group)
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        if args.select_on == "last" and args.wd is None:
            raise ValueError("--select-on last chooses nothing, so it needs a --wd")
        check_data(args)
        device = choose_device(args.gpus)
        resolve_precision(args)
        folder = run_folder(args, parser, PROBE)
        result = folder.finished()
        if result is None:
            settings = pick(DataSettings, args)
            splits = open_splits(settings, args.num_segments, args.crop_size, args.random_seed)
            folder.record_videos(splits)
            if args.weights_dir and not args.weights_dir.is_dir():
                raise FileNotFoundError(f"--weights-dir {args.weights_dir} is no folder")
            shape = (args.arch, len(splits.class_names), args.num_segments)
            stream = new_stream(*shape, load_imagenet([args.arch], args.weights_dir)[args.arch])
    if result is None:
        with running(folder, parser):
            result = train_probe(args, folder, splits, stream.eval().to(device), device)
            folder.finish(result)
    print_result(result)


def train_probe(args, folder, splits, stream, device):
    """Train and test; returns the result."""

    def features(dataset, views):
        return average_features(
            stream,
            dataset,
            range(views),
            device=device,
            precision=args.precision,
            batch_size=args.feature_batch,
            workers=args.workers,
        )

    train = Scored.joined(features(splits.train, args.views))
    selection = Scored.averaged(features(splits.selection, splits.selection.num_test_views))
    num_classes = len(splits.class_names)
    layers = {
        decay: fit_linear(*train, num_classes, decay)
        for decay in (DECAYS if args.wd is None else [args.wd])
    }
    chosen = min(layers, key=lambda decay: scores(layers[decay], selection)[0])
    put_classifier(stream, layers[chosen])
    save_checkpoint(
        folder.path / BEST,
        {
            "stream": stream.state_dict(),
            "arch": args.arch,
            "num_segments": args.num_segments,
            "crop_size": args.crop_size,
            "class_names": list(splits.class_names),
        },
    )
    test = Scored.averaged(features(splits.test, splits.test.num_test_views))
    return {
        "run": str(folder.path),
        "wd": chosen,
        f"{splits.selection_name}_top1_pct": scores(layers[chosen], selection)[1],
        "test_top1_pct": scores(layers[chosen], test)[1],
        "test_videos": len(splits.test),
        "skipped_videos": splits.skipped,
        "gmacs": probe_gmacs(args.arch, num_classes, args.num_segments, args.crop_size)
        * splits.test.num_test_views,
        "precision": args.precision,
        "protocol": splits.protocol,
    }


if __name__ == "__main__":
    run(main, get_args_parser())
