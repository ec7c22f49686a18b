"""One epoch of backbone training; the rest of a run is in backbone.py."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.team_net import BackboneOutput, TeamNet
from training.loading import to_device

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
) -> torch.optim.Optimizer:
    """`sgd` (momentum .9, the published one) or `adamw`, both fused where the device has it.

    The classifiers' weights and biases learn at these multiples of lr. Weight decay is for matrices
    and kernels only, not for biases and normalisation.
    """
    heads = {id(p) for stream in model.streams for p in stream.classifier.parameters()}
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}  # by (lr scale, decay)
    for parameter in model.parameters():
        is_matrix = parameter.ndim > 1
        scale = classifier_scales[not is_matrix] if id(parameter) in heads else 1.0
        groups.setdefault((scale, weight_decay if is_matrix else 0.0), []).append(parameter)
    settings = [
        {"params": parameters, "lr": lr * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
    if name == "adamw":
        return torch.optim.AdamW(settings, lr=lr, fused=True)
    return torch.optim.SGD(settings, lr=lr, momentum=0.9, fused=True)


def clip_loss(
    output: BackboneOutput, labels: torch.Tensor, stream_loss: float, label_smoothing: float
) -> torch.Tensor:
    """Mean cross entropy of the fused logits, plus `stream_loss` times the mean of the three
    streams' own; against labels (b,) smoothed by `label_smoothing` (Szegedy et al., CVPR 2016)."""
    loss = F.cross_entropy(output.fused, labels, label_smoothing=label_smoothing)
    if not stream_loss:
        return loss
    streams = (output.iframe, output.mv, output.residual)
    own = [F.cross_entropy(logits, labels, label_smoothing=label_smoothing) for logits in streams]
    return loss + stream_loss * torch.stack(own).mean()


def make_ema(model: TeamNet, decay: float) -> AveragedModel:
    """A running mean of weights and BatchNorm statistics, to `update_parameters` each step."""
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
    model: TeamNet,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    precision: str,
    loss_function: Callable[[BackboneOutput, torch.Tensor], torch.Tensor],
    ema: AveragedModel | None = None,
) -> dict[str, float]:
    """Train `model`, and let `ema` follow it, for one pass over `loader`.

    Returns mean loss, top1_pct on the augmented clips, clips_per_s and the share of the time
    spent waiting for data. Raises FloatingPointError, naming the clips, when the loss is not
    finite.
    """
    model.train()
    names = [record.name for record in loader.dataset.records]
    total_loss, correct, clips, waited = 0.0, 0, 0, 0.0
    start = mark = time.perf_counter()
    for step, sample in enumerate(tqdm(loader, desc="train", leave=False, disable=None)):
        waited += time.perf_counter() - mark
        batch = to_device(sample, device)
        with autocast(device, precision):
            output = model(*batch.inputs)
        loss = loss_function(output, batch.labels)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss.item()} at step {step}; clips"
                f" {[names[i] for i in batch.indices.tolist()]}. The last checkpoint is intact:"
                " try a lower --lr, or fp32"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
        optimizer.step()
        if ema is not None:
            ema.update_parameters(model)
        clips += len(batch.labels)
        total_loss += loss.item() * len(batch.labels)
        correct += (output.fused.argmax(1) == batch.labels).sum().item()
        mark = time.perf_counter()
    seconds = time.perf_counter() - start
    return {
        "loss": total_loss / clips,
        "train_top1_pct": 100 * correct / clips,
        "clips_per_s": clips / seconds,
        "data_wait_share": waited / seconds,
    }
