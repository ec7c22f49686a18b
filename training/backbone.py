"""Training a TEAM-Net backbone; pretrain.py and train_team_net.py run it."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import torch

from models.inference import prepare_for_inference
from models.team_net import TeamNet
from training import options
from training.checkpoint import BEST, LAST, load_backbone, load_checkpoint, save_checkpoint
from training.engine import (
    clip_loss,
    cosine_lr,
    make_ema,
    make_optimizer,
    set_lr,
    step_lr,
    train_one_epoch,
)
from training.loading import Splits, ViewSampler, make_loader, open_splits, protocol
from training.log import RunFolder, print_result
from training.views import compute_view

OUTPUTS = ("fused", "iframe", "mv", "residual")


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
        "--ema",
        type=options.fraction,
        default=0.0,
        metavar="DECAY",
        help="evaluate and keep the running mean of the weights, which forgets by this per step"
        " (try 0.99; default 0: the weights as they are)",
    )


def check_scratch_options(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.warmup and args.lr_schedule == "step":
        parser.error("--warmup goes with --lr-schedule cosine")
    if args.warmup >= args.epochs:
        parser.error(f"--warmup {args.warmup} does not fit into --epochs {args.epochs}")
    if args.stream_loss < 0:
        parser.error(f"--stream-loss {args.stream_loss} is below 0")


def run_backbone(args: argparse.Namespace, parser: argparse.ArgumentParser, method: str) -> dict:
    """Train or evaluate as the options say; returns the result that is printed last."""
    options.resolve_recipe(args)
    options.check_files(args, parser)
    check_scratch_options(args, parser)
    device = options.choose_device(args.gpus, parser)
    folder = RunFolder(options.run_path(args, method))
    if args.evaluate:
        result = evaluate_backbone(args, parser, folder, device)
        print_result(result)
        return result
    folder.check(args, parser)
    if folder.result is None or args.overwrite:
        try:
            splits = open_splits(args, args.num_segments, args.crop_size, args.random_seed)
            model = build_backbone(args, len(splits.class_names))
        except (ValueError, FileNotFoundError, RuntimeError) as error:
            parser.error(str(error))
        folder.start(args)
        train_backbone(args, folder, splits, model, device)
    print_result(folder.result)
    return folder.result


def build_backbone(args: argparse.Namespace, num_classes: int) -> TeamNet:
    """A new network, with the weights of --pretrained where they fit."""
    torch.manual_seed(args.random_seed)
    config = {
        "num_classes": num_classes,
        "num_segments": args.num_segments,
        "arch": args.arch,
        "motion_arch": args.motion_arch,
        "is_shift": args.is_shift,
        "dropout": args.dropout,
    }
    if args.pretrained in (None, "imagenet"):
        return TeamNet(**config, pretrained=args.pretrained)
    model = TeamNet(**config)
    source = load_backbone(Path(args.pretrained), args.num_segments)
    weights, expected = source.state_dict(), model.state_dict()
    known = source.config["num_classes"]
    if known != num_classes:
        print(f"{args.pretrained} knows {known} classes: new classifiers for {num_classes}")
        for state in (weights, expected):
            for key in [key for key in state if ".classifier." in key]:
                del state[key]
    keys = sorted(weights.keys() | expected.keys())
    theirs, ours = ({k: v.shape for k, v in state.items()} for state in (weights, expected))
    misfits = [key for key in keys if theirs.get(key) != ours.get(key)]
    if misfits:
        raise ValueError(
            f"{args.pretrained} holds {source.config}, which does not fit the options {config};"
            f" first keys that differ: {misfits[:5]}"
        )
    model.load_state_dict(weights, strict=False)
    return model


def train_backbone(
    args: argparse.Namespace,
    folder: RunFolder,
    splits: Splits,
    model: TeamNet,
    device: torch.device,
) -> None:
    """Train up to args.epochs from the last checkpoint, if any, and write the result."""
    model.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, args.optimizer, args.lr, args.wd, args.classifier_lr_scale)
    ema = make_ema(model, args.ema) if args.ema else None
    evaluated = ema.module if ema else model
    start, best = 0, None
    if (folder.path / LAST).is_file():
        checkpoint = load_checkpoint(folder.path / LAST)
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        if ema:
            ema.load_state_dict(checkpoint["ema"])
        start, best = checkpoint["epoch"] + 1, checkpoint["best"]
    folder.start_log(start, args.tensorboard)

    sampler = ViewSampler(len(splits.train), seed=args.random_seed)
    loader = make_loader(splits.train, sampler, args.batch_size, args.workers, device)
    loss_function = functools.partial(
        clip_loss, stream_loss=args.stream_loss, label_smoothing=args.label_smoothing
    )
    for epoch in range(start, args.epochs):
        sampler.view = epoch
        torch.manual_seed(args.random_seed * 1_000_003 + epoch)  # dropout, the same when resumed
        if args.lr_schedule == "cosine":
            lr = cosine_lr(args.lr, args.epochs, args.warmup, epoch)
        else:
            lr = step_lr(args.lr, args.lr_steps, epoch)
        set_lr(optimizer, lr)
        line = {"epoch": epoch, "lr": lr}
        line.update(
            train_one_epoch(model, loader, optimizer, device, args.precision, loss_function, ema)
        )
        if (epoch + 1) % args.eval_freq == 0 or epoch == args.epochs - 1:
            top1 = evaluate(evaluated, splits.selection, args, device)
            line.update({f"{args.select_on}_{output}": top1[output] for output in OUTPUTS})
            if best is None or top1["fused"] > best["top1_pct"]:
                best = {"epoch": epoch, "top1_pct": top1["fused"]}
                save_checkpoint(folder.path / BEST, describe_model(evaluated, args, splits, epoch))
        folder.log(line)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        if ema:
            state["ema"] = ema.state_dict()
        save_checkpoint(folder.path / LAST, {**state, "epoch": epoch, "best": best})

    model = load_backbone(folder.path / BEST).to(device, memory_format=torch.channels_last)
    result = {
        "run": str(folder.path),
        "best_epoch": best["epoch"],
        f"{args.select_on}_top1_pct": best["top1_pct"],
        **test_result(model, splits, args, device),
    }
    folder.finish(result)


def evaluate_backbone(
    args: argparse.Namespace,
    parser: argparse.ArgumentParser,
    folder: RunFolder,
    device: torch.device,
) -> dict:
    """Top-1 of the run's best checkpoint (or of --pretrained FILE) on the test list."""
    path = Path(args.pretrained) if args.pretrained else folder.path / BEST
    try:
        model = load_backbone(path, args.num_segments)
        splits = open_splits(args, model.num_segments, args.crop_size, args.random_seed)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    model.to(device, memory_format=torch.channels_last)
    return {"checkpoint": str(path), **test_result(model, splits, args, device)}


def evaluate(
    model: TeamNet, dataset, args: argparse.Namespace, device: torch.device
) -> dict[str, float]:
    """top1_pct per output; the logits of several test views of a video are averaged."""
    network, logits = prepare_for_inference(model, args.precision), 0
    for view in range(dataset.num_test_views):
        features = compute_view(
            network,
            dataset,
            view,
            device=device,
            batch_size=args.batch_size,
            workers=args.workers,
        )
        logits = logits + features.streams
    by_output = dict(zip(OUTPUTS, (logits.sum(1), *logits.unbind(1))))
    return {
        output: 100 * (scores.argmax(1) == features.labels).float().mean().item()
        for output, scores in by_output.items()
    }


def test_result(
    model: TeamNet, splits: Splits, args: argparse.Namespace, device: torch.device
) -> dict:
    top1 = evaluate(model, splits.test, args, device)
    return {
        "test_top1_pct": top1.pop("fused"),
        **{f"test_{output}_pct": value for output, value in top1.items()},
        "test_videos": len(splits.test),
        "skipped_videos": splits.skipped,
        "protocol": protocol(args, splits),
    }


def describe_model(model: TeamNet, args: argparse.Namespace, splits: Splits, epoch: int) -> dict:
    """What later scripts need to know of a backbone, with its weights."""
    return {
        "model": model.state_dict(),
        "config": model.config,
        "crop_size": args.crop_size,
        "class_names": list(splits.class_names),
        "encoding": splits.train.encoding,
        "epoch": epoch,
        "data_name": args.data_name,
        "split": args.split,
        "select_on": args.select_on,
        "heldout": [record.name for record in splits.heldout.records] if splits.heldout else [],
    }
