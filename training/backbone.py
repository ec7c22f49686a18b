"""Training a TEAM-Net backbone, from its recipe to its result."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from dataset_team.dataset import VideoDataset
from dataset_team.list_file import name_of_file
from MACs.team_net import exit_gmacs
from models import BACKBONE_OUTPUTS
from models.inference import prepare_for_inference
from models.team_net import TeamNet
from training import distributed
from training.agreement import joined_records, name_digests
from training.checkpoint import load_checkpoint, save_checkpoint
from training.engine import (
    check_logits,
    clip_loss,
    cosine_lr,
    make_ema,
    make_mixup,
    make_optimizer,
    set_lr,
    step_lr,
    train_one_epoch,
)
from training.features import compute_view
from training.loading import TrainBatches, make_loader
from training.on_cpu import prepare_for_training
from training.run_folder import RunFolder
from training.splits import Splits
from training.state import TrainingState
from training.stopping import Stopped, StopSignals
from training.synced_norm import use_synced_norm
from training.tensor_file import BEST
from training.tuning import keep_frozen


@dataclass(frozen=True)
class EvaluationSettings:
    precision: str
    batch_size: int
    workers: int


@dataclass(frozen=True)
class BackboneRecipe(EvaluationSettings):
    """How a backbone is trained; see the options."""

    lr: float
    epochs: int
    lr_steps: list[int]
    wd: float
    lr_schedule: str
    warmup: int
    optimizer: str
    nesterov: bool
    freeze: list[str]
    partial_bn: bool
    depth_lr_scale: float
    classifier_lr_scale: tuple[float, float]
    stream_loss: float
    label_smoothing: float
    mixup: float | None
    ema: float
    accumulate: int
    sync_bn: bool
    save_steps: int | None
    eval_freq: int
    random_seed: int
    tensorboard: bool

    def lr_at(self, epoch: int) -> float:
        if self.lr_schedule == "cosine":
            return cosine_lr(self.lr, self.epochs, self.warmup, epoch)
        return step_lr(self.lr, self.lr_steps, epoch)


def check_batches(
    num_videos: int,
    *,
    batch_size: int,
    accumulate: int,
    num_segments: int,
    crop_size: int,
    sync_bn: bool,
) -> None:
    """Raise ValueError where a pass would give BatchNorm only one value per channel.

    Such a pass has one clip of one segment, and its last feature map, a 32nd of the crop, one
    pixel.
    """
    processes = distributed.world_size()
    per_clip = num_segments * math.ceil(crop_size / 32) ** 2

    def has_single_value(size: int) -> bool:
        for clips in {min(size, num_videos), num_videos % size or size}:
            passes = min(accumulate, max(1, clips // processes))
            share = clips // passes // processes if clips >= processes else clips
            if share * per_clip * (processes if sync_bn else 1) == 1:
                return True
        return False

    if has_single_value(batch_size):
        sizes = range(batch_size + 1, num_videos + batch_size + 1)
        other = next((f" ({n} does)" for n in sizes if not has_single_value(n)), "")
        raise ValueError(
            f"--batch-size {batch_size} with {num_videos} training videos leaves a pass of"
            " one clip, and BatchNorm needs more than one value per channel at --num_segments 1"
            f" and --crop-size {crop_size}: choose a batch size that does not leave"
            f" one{other}, more segments or a larger crop"
        )


def train_backbone(
    recipe: BackboneRecipe,
    folder: RunFolder,
    splits: Splits,
    model: TeamNet,
    device: torch.device,
    stop: StopSignals,
) -> dict:
    """Train up to recipe.epochs from the last checkpoint, if any; returns the result."""
    model.to(device, memory_format=torch.channels_last)
    model = prepare_for_training(model, device)
    if recipe.sync_bn:
        model = use_synced_norm(model, device)
    frozen = keep_frozen(model, recipe.freeze, recipe.partial_bn)
    optimizer = make_optimizer(
        model,
        recipe.optimizer,
        recipe.lr,
        recipe.wd,
        recipe.classifier_lr_scale,
        recipe.depth_lr_scale,
        recipe.nesterov,
    )
    ema = make_ema(model, recipe.ema) if recipe.ema else None
    state = TrainingState(model, optimizer, ema)
    state.load(folder.path)
    progress = state.progress
    distributed.on_main(_check_best, folder.path / BEST, progress.best)
    folder.start_log(progress.epoch, recipe.tensorboard)

    batches = TrainBatches(
        len(splits.train), recipe.batch_size, recipe.accumulate, recipe.random_seed
    )
    loader = make_loader(splits.train, batches, None, recipe.workers, device)
    loss_function = functools.partial(
        clip_loss,
        stream_loss=recipe.stream_loss,
        label_smoothing=recipe.label_smoothing,
        alone=model.config["fusion"] == "sum",
    )
    mixup = make_mixup(recipe.mixup, len(splits.class_names)) if recipe.mixup else None
    network = distributed.exchanging(model, device)

    def after_step() -> None:
        (asked,) = distributed.any_of(stop.asked is not None)
        wanted = recipe.save_steps and progress.step % recipe.save_steps == 0
        if asked or wanted:
            progress.collect()
        if asked:
            raise Stopped(stop.asked or "signal to another process")
        if wanted:
            state.save(folder.path)

    while progress.epoch < recipe.epochs:
        epoch = progress.epoch
        lr = recipe.lr_at(epoch)
        set_lr(optimizer, lr)
        line = {"epoch": epoch, "lr": lr}
        try:
            with stop.deferred(), segments_of(model, splits.train.num_segments):
                line.update(
                    train_one_epoch(
                        network,
                        loader,
                        state,
                        device=device,
                        precision=recipe.precision,
                        loss_function=loss_function,
                        after_step=after_step,
                        mixup=mixup,
                        frozen=frozen,
                    )
                )
            if (epoch + 1) % recipe.eval_freq == 0 or epoch == recipe.epochs - 1:
                line.update(select_best(recipe, folder, splits, state, device))
            with stop.deferred():
                folder.log(line)
                progress.next_epoch()
                state.save(folder.path)
        except Stopped:  # during an epoch, or after its last step
            state.save(folder.path)
            raise

    model.load_state_dict(distributed.on_main(load_checkpoint, folder.path / BEST)["model"])
    return {
        "run": str(folder.path),
        "best_epoch": progress.best["epoch"],
        f"{splits.selection_name}_top1_pct": progress.best["top1_pct"],
        **test_result(model, splits, device, recipe),
    }


def _check_best(path: Path, best: dict | None) -> None:
    if best and not path.is_file():
        raise FileNotFoundError(
            f"{path} is gone, the weights of the best epoch so far ({best['epoch']}): bring it"
            " back, or start again with --overwrite"
        )


@contextlib.contextmanager
def segments_of(model: TeamNet, num_segments: int) -> Iterator[None]:
    """The model takes clips of another number of segments while this context lasts."""
    own, model.num_segments = model.num_segments, num_segments
    try:
        yield
    finally:
        model.num_segments = own


def select_best(
    recipe: BackboneRecipe,
    folder: RunFolder,
    splits: Splits,
    state: TrainingState,
    device: torch.device,
) -> dict:
    """Evaluate on the selection videos. Save the model if it is the best, or with --select-on last.

    Returns what goes into the log.
    """
    model, progress = state.ema.module if state.ema else state.model, state.progress
    distributed.same_weights(model)
    top1 = evaluate(model, splits.selection, device, recipe)
    best = progress.best
    if best is None or top1["fused"] > best["top1_pct"] or splits.settings.select_on == "last":
        if distributed.is_main():
            content = describe_model(model, splits, progress.epoch)
            save_checkpoint(folder.path / BEST, content)
        progress.best = {"epoch": progress.epoch, "top1_pct": top1["fused"]}
    return {f"{splits.selection_name}_{output}": top1[output] for output in BACKBONE_OUTPUTS}


def evaluate(
    model: TeamNet, dataset: VideoDataset, device: torch.device, settings: EvaluationSettings
) -> dict[str, float]:
    """top1_pct per output; the logits of several test views of a video are averaged.

    Raises FloatingPointError, naming a video, when the logits are not finite.
    """
    network, logits = prepare_for_inference(model, settings.precision), 0
    rows = distributed.own_rows(len(dataset), settings.batch_size)
    for view in range(dataset.num_test_views if len(rows) else 0):
        features = compute_view(
            network,
            dataset,
            view,
            device=device,
            batch_size=settings.batch_size,
            workers=settings.workers,
            rows=rows,
        )
        logits = logits + features.streams
    own = (logits, features.labels) if len(rows) else ()
    logits, labels = distributed.gather_rows(own, torch.from_numpy(rows), len(dataset))
    check_logits("the network", logits, [record.name for record in dataset.records])
    by_output = dict(zip(BACKBONE_OUTPUTS, (logits.sum(1), *logits.unbind(1))))
    return {
        output: 100 * (scores.argmax(1) == labels).float().mean().item()
        for output, scores in by_output.items()
    }


def test_result(
    model: TeamNet, splits: Splits, device: torch.device, settings: EvaluationSettings
) -> dict:
    """Top-1 of the network and its streams on the test videos, with the protocol."""
    model.to(device, memory_format=torch.channels_last)
    top1 = evaluate(model, splits.test, device, settings)
    return {
        "test_top1_pct": top1.pop("fused"),
        **{f"test_{output}_pct": value for output, value in top1.items()},
        "test_videos": len(splits.test),
        "gmacs": exit_gmacs(model.config, (), splits.test.crop_size)["full"]
        * splits.test.num_test_views,
        "skipped_videos": splits.skipped,
        "precision": settings.precision,
        "protocol": splits.protocol,
    }


def describe_model(model: TeamNet, splits: Splits, epoch: int) -> dict:
    """The content of a backbone's checkpoint."""
    root = splits.settings.data_root
    names = [name_of_file(record.path, root) for record in splits.train.records]
    own = {splits.settings.data_name: name_digests(names)}
    return {
        "model": model.state_dict(),
        "config": model.config,
        "crop_size": splits.train.crop_size,
        "class_names": list(splits.class_names),
        "encoding": splits.train.encoding,
        "epoch": epoch,
        "data_name": splits.settings.data_name,
        "split": splits.settings.split,
        "select_on": splits.settings.select_on,
        "heldout": splits.heldout_names,
        "trained_on": joined_records(model.trained_on, own),
    }
