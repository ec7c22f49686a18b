"""Training a TEAM-Net backbone; pretrain.py and train_team_net.py run it."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import torch

from models import STREAMS
from models.inference import prepare_for_inference
from models.team_net import TeamNet
from training import distributed, options
from training.backbone_options import check_backbone_options
from training.checkpoint import BEST, load_backbone, load_checkpoint, save_checkpoint
from training.engine import (
    clip_loss,
    cosine_lr,
    make_ema,
    make_mixup,
    make_optimizer,
    set_lr,
    step_lr,
    train_one_epoch,
)
from training.loading import Splits, TrainBatches, make_loader, open_splits, protocol
from training.log import RunFolder, print_result
from training.state import TrainingState
from training.stopping import Stopped, StopSignals, running
from training.synced_norm import use_synced_norm
from training.views import compute_view

OUTPUTS = ("fused", *STREAMS)


def run_backbone(args: argparse.Namespace, parser: argparse.ArgumentParser, method: str) -> dict:
    """Train or evaluate as the options say; returns the result that is printed last."""
    options.resolve_recipe(args)
    options.check_files(args, parser)
    device = options.choose_device(args.gpus, parser)
    distributed.start(device)
    check_backbone_options(args, parser)
    options.resolve_precision(args)
    args.precision = distributed.on_main(lambda: args.precision)
    folder = RunFolder(options.run_path(args, method))
    if args.evaluate:
        result = evaluate_backbone(args, parser, folder, device)
    else:
        result = folder.finished(args, parser)
    if result is None:
        try:
            splits = open_splits(args, args.num_segments, args.crop_size, args.random_seed)
            model = build_backbone(args, len(splits.class_names))
        except (ValueError, FileNotFoundError, RuntimeError) as error:
            parser.error(str(error))
        with running(folder, args, parser) as stop:
            result = train_backbone(args, folder, splits, model, device, stop)
            folder.finish(result)
    print_result(result)
    distributed.stop()
    return result


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
    stop: StopSignals,
) -> dict:
    """Train up to args.epochs from the last checkpoint, if any; returns the result."""
    model.to(device, memory_format=torch.channels_last)
    if args.sync_bn:
        use_synced_norm(model)
    optimizer = make_optimizer(model, args.optimizer, args.lr, args.wd, args.classifier_lr_scale)
    ema = make_ema(model, args.ema) if args.ema else None
    state = TrainingState(model, optimizer, ema)
    state.load(folder.path)
    progress = state.progress
    folder.start_log(progress.epoch, args.tensorboard)

    batches = TrainBatches(len(splits.train), args.batch_size, args.accumulate, args.random_seed)
    loader = make_loader(splits.train, batches, None, args.workers, device)
    loss_function = functools.partial(
        clip_loss, stream_loss=args.stream_loss, label_smoothing=args.label_smoothing
    )
    mixup = make_mixup(args.mixup, len(splits.class_names)) if args.mixup else None
    network = distributed.exchanging(model, device)

    def after_step() -> None:
        (asked,) = distributed.any_of(stop.asked is not None)
        wanted = args.save_steps and progress.step % args.save_steps == 0
        if asked or wanted:
            progress.collect()
        if asked:
            raise Stopped(stop.asked or "signal to another process")
        if wanted:
            state.save(folder.path)

    while progress.epoch < args.epochs:
        epoch = progress.epoch
        if args.lr_schedule == "cosine":
            lr = cosine_lr(args.lr, args.epochs, args.warmup, epoch)
        else:
            lr = step_lr(args.lr, args.lr_steps, epoch)
        set_lr(optimizer, lr)
        line = {"epoch": epoch, "lr": lr}
        try:
            with stop.deferred():
                line.update(
                    train_one_epoch(
                        network,
                        loader,
                        state,
                        device,
                        args.precision,
                        loss_function,
                        after_step,
                        mixup,
                    )
                )
            if (epoch + 1) % args.eval_freq == 0 or epoch == args.epochs - 1:
                line.update(select_best(args, folder, splits, state, device))
            with stop.deferred():
                folder.log(line)
                progress.next_epoch()
                state.save(folder.path)
        except Stopped:  # in the middle of an epoch, or between its steps and its end
            state.save(folder.path)
            raise

    model.load_state_dict(distributed.on_main(load_checkpoint, folder.path / BEST)["model"])
    return {
        "run": str(folder.path),
        "best_epoch": progress.best["epoch"],
        f"{splits.selection_name}_top1_pct": progress.best["top1_pct"],
        **test_result(model, splits, args, device),
    }


def select_best(
    args: argparse.Namespace,
    folder: RunFolder,
    splits: Splits,
    state: TrainingState,
    device: torch.device,
) -> dict:
    """Evaluate where models are chosen and keep the model if it is the best so far, or if the last
    one is to be kept; returns what goes into the log."""
    model, progress = state.ema.module if state.ema else state.model, state.progress
    distributed.same_weights(model)
    top1 = evaluate(model, splits.selection, args, device)
    best = progress.best
    if best is None or top1["fused"] > best["top1_pct"] or args.select_on == "last":
        if distributed.is_main():
            content = describe_model(model, args, splits, progress.epoch)
            save_checkpoint(folder.path / BEST, content)
        progress.best = {"epoch": progress.epoch, "top1_pct": top1["fused"]}
    return {f"{splits.selection_name}_{output}": top1[output] for output in OUTPUTS}


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
    rows = distributed.own_rows(len(dataset), args.batch_size)
    for view in range(dataset.num_test_views if len(rows) else 0):
        features = compute_view(
            network,
            dataset,
            view,
            device=device,
            batch_size=args.batch_size,
            workers=args.workers,
            rows=rows,
        )
        logits = logits + features.streams
    own = (logits, features.labels) if len(rows) else ()
    logits, labels = distributed.gather_rows(own, torch.from_numpy(rows), len(dataset))
    by_output = dict(zip(OUTPUTS, (logits.sum(1), *logits.unbind(1))))
    return {
        output: 100 * (scores.argmax(1) == labels).float().mean().item()
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
        "precision": args.precision,
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
