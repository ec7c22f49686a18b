"""One epoch of backbone training. backbone.py has the rest of a run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2
from tqdm import tqdm

from dataset_team.dataset import VideoDataset
from models.team_net import BackboneOutput, TeamNet
from training import distributed
from training.loading import Batch, to_device
from training.state import TrainingState
from training.tuning import lr_scales

GRADIENT_CLIP = 20  # PAPER: TEAM-Net's backbone recipe


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 arithmetic where `precision` says so; weights and reductions stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def make_optimizer(
    model: TeamNet,
    name: str,
    lr: float,
    weight_decay: float,
    classifier_scales: tuple[float, float],
    depth_scale: float = 1.0,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """`sgd` (momentum .9, as published) or `adamw`, both fused.

    The scales are those of `lr_scales`. Biases and normalisation have no weight decay.
    """
    scales = lr_scales(model, classifier_scales, depth_scale)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}  # by (lr scale, decay)
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = scales[id(parameter)], weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault(key, []).append(parameter)
    settings = [
        {"params": parameters, "lr": lr * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
    if name == "adamw":
        return torch.optim.AdamW(settings, lr=lr, fused=True)
    return torch.optim.SGD(settings, lr=lr, momentum=0.9, nesterov=nesterov, fused=True)


def clip_loss(
    output: BackboneOutput,
    labels: torch.Tensor,
    stream_loss: float,
    label_smoothing: float,
    alone: bool = False,
) -> torch.Tensor:
    """Mean cross entropy of the fused logits, plus `stream_loss` times the streams' mean.

    alone: the sum of the streams' own cross entropies instead, as if each trained alone. labels:
    (b,), or (b, classes) shares of the classes when clips are mixed. label_smoothing: Szegedy et
    al., CVPR 2016.
    """
    if alone or stream_loss:
        streams = (output.iframe, output.mv, output.residual)
        own = [F.cross_entropy(x, labels, label_smoothing=label_smoothing) for x in streams]
        if alone:
            return torch.stack(own).sum()
    loss = F.cross_entropy(output.fused, labels, label_smoothing=label_smoothing)
    return loss + stream_loss * torch.stack(own).mean() if stream_loss else loss


def make_mixup(alpha: float, num_classes: int) -> v2.MixUp:
    """Mixes each clip with another of its batch (Zhang et al., ICLR 2018); used by `mixed`.

    All modalities and labels of a batch use one share, drawn from Beta(alpha, alpha).
    """
    return v2.MixUp(alpha=alpha, num_classes=num_classes, labels_getter=lambda clips: clips[-1])


def mixed(batch: Batch, mixup: v2.MixUp) -> Batch:
    """The batch with mixed clips; its labels are shares of the classes, (b, classes)."""
    *inputs, shares = mixup(*map(tv_tensors.Video, batch.inputs), batch.labels)
    return batch._replace(inputs=tuple(x.as_subclass(torch.Tensor) for x in inputs), labels=shares)


def make_ema(model: TeamNet, decay: float) -> AveragedModel:
    """A running mean of weights and BatchNorm statistics; call `update_parameters` each step."""
    average = get_ema_multi_avg_fn(decay)
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def step_lr(lr: float, lr_steps: list[int], epoch: int) -> float:
    """lr, times 0.1 for each of `lr_steps` that epoch has reached."""
    return lr * 0.1 ** sum(epoch >= step for step in lr_steps)


def cosine_lr(lr: float, epochs: int, warmup: int, epoch: int) -> float:
    """Linear from lr / (warmup + 1) up to lr over `warmup` epochs, then half a cosine towards 0."""
    if epoch < warmup:
        return lr * (epoch + 1) / (warmup + 1)
    return lr * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def train_one_epoch(
    network: nn.Module,
    loader: DataLoader,
    state: TrainingState,
    *,
    device: torch.device,
    precision: str,
    loss_function: Callable[[BackboneOutput, torch.Tensor], torch.Tensor],
    after_step: Callable[[], None],
    mixup: v2.MixUp | None = None,
    frozen: Iterable[nn.Module] = (),
) -> dict[str, float]:
    """Run the remaining steps of the epoch in `state`; call `after_step` after each.

    network: state.model, alone or in DistributedDataParallel. loader: its batch sampler is a
    TrainBatches. frozen: of `keep_frozen`. Returns the mean loss and top1_pct of the whole epoch on
    augmented clips, and clips_per_s and data_wait_share of the steps run here. The label of a mixed
    clip is the one with the larger share. Raises FloatingPointError when the loss is not finite,
    naming the clips, or the gradient is not, before any weight is changed by it.
    """
    network.train()
    for module in frozen:
        module.eval()
    batches, progress = loader.batch_sampler, state.progress
    batches.view, batches.first_step = progress.epoch, progress.step
    clips_before, waited = progress.clips, 0.0
    start = time.perf_counter()
    samples = iter(loader)
    steps = range(progress.step, batches.steps)
    for step in tqdm(steps, desc="train", leave=False, disable=None):
        torch.manual_seed(dropout_seed(batches.seed, progress.epoch, step))
        state.optimizer.zero_grad(set_to_none=True)
        shares = batches.shares(step)
        for share in shares:
            mark = time.perf_counter()
            batch = to_device(next(samples), device)
            waited += time.perf_counter() - mark
            labels = batch.labels
            if mixup is not None:
                batch = mixed(batch, mixup)
                labels = batch.labels.argmax(1)
            is_last = share is shares[-1]
            with contextlib.nullcontext() if is_last else without_exchange(network):
                with autocast(device, precision):
                    output = network(*batch.inputs)
                loss = loss_function(output, batch.labels)
                check_finite(loss, progress.epoch, step, batch, loader.dataset)
                (loss * share.weight).backward()
            correct = (output.fused.argmax(1) == labels).sum().item()
            progress.clips += share.count
            progress.loss += loss.item() * share.count
            progress.correct += correct * share.count / len(share.rows)
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), GRADIENT_CLIP)
        if not torch.isfinite(norm):  # in all processes alike
            where = f"in epoch {progress.epoch} at step {step}"
            raise FloatingPointError(f"the norm of the gradient is {norm.item()} {where}")
        state.optimizer.step()
        if state.ema is not None:
            state.ema.update_parameters(state.model)
        progress.step = step + 1
        after_step()
    progress.collect()
    seconds = time.perf_counter() - start
    (clips,) = distributed.sum_of(progress.clips)
    return {
        "loss": progress.loss / clips,
        "train_top1_pct": 100 * progress.correct / clips,
        "clips_per_s": (clips - clips_before) / seconds,
        "data_wait_share": waited / seconds,
    }


def dropout_seed(seed: int, epoch: int, step: int) -> int:
    """The seed of one step in this process; a resumed run repeats the step with it."""
    key = [seed, epoch, step, distributed.rank()]
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def without_exchange(network: nn.Module) -> contextlib.AbstractContextManager:
    """Gradients stay in this process: for every pass of a step but the last."""
    if isinstance(network, nn.parallel.DistributedDataParallel):
        return network.no_sync()
    return contextlib.nullcontext()


def check_finite(
    loss: torch.Tensor, epoch: int, step: int, batch: Batch, dataset: VideoDataset
) -> None:
    """End all processes if the loss of one is not finite; that process names the clips."""
    is_bad = not torch.isfinite(loss)
    (bad_anywhere,) = distributed.any_of(is_bad)
    if is_bad:
        names = [dataset.records[row].name for row in batch.indices.tolist()]
        raise FloatingPointError(
            f"loss is {loss.item()} in epoch {epoch} at step {step}; clips {names}"
        )
    if bad_anywhere:
        raise SystemExit(1)


def check_logits(what: str, logits: torch.Tensor, names: Sequence[str]) -> None:
    """Raise FloatingPointError for logits (n, ...) of which some video's are not finite."""
    bad = (~torch.isfinite(logits)).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise FloatingPointError(
            f"the logits of {what} are not finite for {len(bad)} of {len(names)} videos, for"
            f" example {names[bad[0]]}"
        )
