"""Options of backbone training; pretrain.py and train_team_net.py show them."""

from __future__ import annotations

import argparse

from training import distributed, options


def add_backbone_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument("--arch", default="resnet50", help="I-frame stream, any torchvision resnet")
    group.add_argument("--motion-arch", default="resnet18", help="MV and residual streams")
    group.add_argument("--num_segments", type=options.positive_int, default=8, help="T (default 8)")
    group.add_argument("--crop-size", type=options.positive_int, default=224, help="pixels")
    group.add_argument("--is_shift", action="store_true", help="temporal shift module (TSM)")
    group.add_argument("--dropout", type=options.fraction, default=0.5, help="before classifiers")
    group.add_argument(
        "--pretrained",
        help="imagenet, or a checkpoint of these scripts or of the published code"
        " (a classifier for other classes is replaced); default: from scratch",
    )
    add_scratch_options(parser)
    add_process_options(parser)


def add_scratch_options(parser: argparse.ArgumentParser) -> None:
    """What helps training from scratch on small data; the defaults are the published recipe."""
    group = parser.add_argument_group("training from scratch (defaults: the published recipe)")
    group.add_argument(
        "--classifier-lr-scale",
        type=options.positive_float,
        nargs=2,
        default=[5.0, 10.0],
        metavar=("WEIGHT", "BIAS"),
        help="of the streams' classifiers, times lr (default 5 10; 1 1 from scratch)",
    )
    group.add_argument("--lr-schedule", choices=("step", "cosine"), default="step")
    group.add_argument(
        "--warmup",
        type=options.non_negative_int,
        default=0,
        help="epochs of linear rise before the cosine",
    )
    group.add_argument(
        "--stream-loss",
        type=float,
        default=0.0,
        help="weight of the streams' own cross entropy: better streams are better teachers",
    )
    group.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    group.add_argument(
        "--label-smoothing", type=options.fraction, default=0.0, help="of the training labels"
    )
    group.add_argument(
        "--mixup",
        type=options.positive_float,
        metavar="ALPHA",
        help="mix clips and labels by shares from Beta(ALPHA, ALPHA) (try 0.4; default: do not)",
    )
    group.add_argument(
        "--ema",
        type=options.fraction,
        default=0.0,
        metavar="DECAY",
        help="evaluate and keep the running mean of the weights, which forgets by this per step"
        " (try 0.99; default 0: the weights as they are)",
    )


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """For several processes (torchrun --nproc_per_node=N ...), small GPUs and long epochs."""
    group = parser.add_argument_group(
        "processes",
        "torchrun --nproc_per_node=N SCRIPT ... trains in N processes. --batch-size and --lr are"
        " those of an optimizer step, whatever N and --accumulate: a batch is divided, the rate"
        " stays. Change --lr by the factor that you change --batch-size by (Goyal et al. 2017).",
    )
    group.add_argument(
        "--accumulate",
        type=options.positive_int,
        default=1,
        metavar="N",
        help="divide a batch into N passes as well, for GPUs that cannot hold it (default 1)",
    )
    group.add_argument(
        "--sync-bn",
        action="store_true",
        help="BatchNorm statistics over the processes' clips of a pass, not over each one's own",
    )
    group.add_argument(
        "--save-steps",
        type=options.positive_int,
        metavar="N",
        help="write a checkpoint every N steps, not only after each epoch",
    )


def check_backbone_options(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.warmup and args.lr_schedule == "step":
        parser.error("--warmup goes with --lr-schedule cosine")
    if args.warmup >= args.epochs:
        parser.error(f"--warmup {args.warmup} does not fit into --epochs {args.epochs}")
    if args.stream_loss < 0:
        parser.error(f"--stream-loss {args.stream_loss} is below 0")
    parts = args.accumulate * distributed.world_size()
    if args.batch_size < parts:
        parser.error(
            f"--batch-size {args.batch_size} cannot be divided into --accumulate {args.accumulate}"
            f" passes times {distributed.world_size()} process(es)"
        )
