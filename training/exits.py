"""Training internal classifiers (exits) on a frozen backbone.

The exits are independent heads: their losses are summed, and each keeps its own best epoch.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import numpy as np
import torch

from models.team_net_ic import CONCAT, MEAN, TeamNetIC
from training.bank import Views
from training.checkpoint import AGAIN, load_last, of_this_version, save_checkpoint, save_last
from training.distillation import Schedule, exit_loss, taught
from training.engine import check_logits, set_lr, step_lr
from training.features import Features
from training.frozen import Frozen
from training.loading import epoch_order
from training.run_folder import RunFolder
from training.stopping import StopSignals
from training.tensor_file import BEST, LAST

ADAM_EPS = 1e-3  # PAPER: recipes
# Between checkpoints: with a bank, an epoch takes less time than writing one. A killed run repeats
# the lost epochs with the same result.
SAVE_SECONDS = 5.0


@dataclass(frozen=True)
class ExitRecipe:
    """How exits are trained; see the options."""

    exits: list[int]
    lr: float
    epochs: int
    batch_size: int
    lr_steps: list[int]
    wd: float
    temperature: float
    views: int
    eval_freq: int
    random_seed: int
    tensorboard: bool
    ic_pool: str = CONCAT


def train_exits(
    recipe: ExitRecipe, folder: RunFolder, frozen: Frozen, teachers: Schedule, stop: StopSignals
) -> dict:
    """Train up to recipe.epochs from the last checkpoint, if any; returns the result."""
    torch.manual_seed(recipe.random_seed)
    net = TeamNetIC(frozen.backbone, recipe.exits, recipe.ic_pool).train()
    net.heads.to(frozen.device)
    optimizer = make_exit_optimizer(net.heads, recipe.lr, recipe.wd)
    start, best = 0, {}
    checkpoint = load_last(folder.path)
    if checkpoint:
        with of_this_version(folder.path / LAST, AGAIN):
            net.heads.load_state_dict(checkpoint["heads"])
            optimizer.load_state_dict(checkpoint["optimizer"])
            start, best = checkpoint["epoch"] + 1, checkpoint["best"]
    folder.start_log(start, recipe.tensorboard)

    parts = ["train", *(["unlabelled"] if frozen.splits.unlabelled else [])]
    banks = [frozen.views(part, banked=recipe.views > 0) for part in parts]
    for bank in banks:
        bank.prepare(min(recipe.views, recipe.epochs))
    selection = average_views(frozen.views("selection"))
    selection_name = frozen.splits.selection_name
    keep_last = frozen.data.select_on == "last"
    teachers = teachers.measured(selection.streams, selection.labels)
    saved = time.monotonic()
    for epoch in range(start, recipe.epochs):
        view = epoch % recipe.views if recipe.views else epoch
        features = functools.reduce(Features.joined, (bank[view] for bank in banks))
        with stop.deferred():
            lr = step_lr(recipe.lr, recipe.lr_steps, epoch)
            set_lr(optimizer, lr)
            losses = train_heads_one_epoch(net, features, teachers[epoch], optimizer, recipe, epoch)
            line = {"epoch": epoch, "lr": lr, "teacher": teachers[epoch], "losses": losses}
            if (epoch + 1) % recipe.eval_freq == 0 or epoch == recipe.epochs - 1:
                scores = score_exits(net, selection)
                line[f"{selection_name}_top1_pct"] = [s["top1_pct"] for s in scores.values()]
                keep_best(best, net, scores, epoch, keep_last)
            folder.log(line)
            is_late = time.monotonic() > saved + SAVE_SECONDS
            if is_late or stop.asked or epoch == recipe.epochs - 1:
                state = {"heads": net.heads.state_dict(), "optimizer": optimizer.state_dict()}
                save_last(folder.path, {**state, "epoch": epoch, "best": best})
                saved = time.monotonic()

    for k, exit_best in best.items():
        net.heads[k].load_state_dict(exit_best["head"])
    save_checkpoint(
        folder.path / BEST,
        {
            "heads": net.heads.state_dict(),
            "exits": list(net.exits),
            "ic_pool": net.ic_pool,
            "best_epochs": {k: exit_best["epoch"] for k, exit_best in best.items()},
            "backbone": str(frozen.path),
            "backbone_digest": frozen.digest,
            "schedule": teachers.words,
            "crop_size": frozen.crop_size,
            "num_segments": frozen.backbone.num_segments,
            "class_names": frozen.class_names,
            "encoding": frozen.splits.train.encoding,
            "select_on": frozen.data.select_on,
            "heldout": frozen.splits.heldout_names,
        },
    )
    return {
        "run": str(folder.path),
        "schedule": teachers.words,
        "best_epochs": [exit_best["epoch"] for exit_best in best.values()],
        f"{selection_name}_top1_pct": [exit_best["top1_pct"] for exit_best in best.values()],
        **test_exits(net, frozen),
    }


def make_exit_optimizer(heads: torch.nn.Module, lr: float, weight_decay: float) -> torch.optim.Adam:
    """Adam on the heads; weight decay on their matrices only."""
    matrices = [p for p in heads.parameters() if p.ndim > 1]
    biases = [p for p in heads.parameters() if p.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, lr=lr, eps=ADAM_EPS)


def train_heads_one_epoch(
    net: TeamNetIC,
    features: Features,
    teacher: str,
    optimizer: torch.optim.Optimizer,
    recipe: ExitRecipe,
    epoch: int,
) -> list[float]:
    """One pass over a view of the training videos; returns the mean loss of each exit over the
    clips that the teacher says something of.

    Raises FloatingPointError, naming the clips, when a loss is not finite.
    """
    device = next(net.heads.parameters()).device
    order = torch.from_numpy(epoch_order(len(features.labels), recipe.random_seed, epoch))
    seed = np.random.SeedSequence([recipe.random_seed, epoch]).generate_state(1)
    generator = torch.Generator().manual_seed(int(seed[0]))
    totals = torch.zeros(len(net.exits), device=device)
    clips = taught(teacher, features.labels)
    for rows in order.split(recipe.batch_size):
        squeezes = features.exit_inputs(device, rows)
        weights = None
        if net.ic_pool == MEAN:
            weights = segment_weights(len(rows), net.backbone.num_segments, generator).to(device)
        streams, labels = features.streams[rows].to(device), features.labels[rows].to(device)
        losses = torch.stack(
            [
                exit_loss(logits, teacher, streams, labels, recipe.temperature)
                for logits in net.heads_from(squeezes, weights)
            ]
        )
        if not torch.isfinite(losses).all():
            names = [features.names[row] for row in rows.tolist()]
            raise FloatingPointError(
                f"losses {losses.tolist()} in epoch {epoch} with clips {names}"
            )
        optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        optimizer.step()
        totals += losses.detach() * int(clips[rows].sum())
    return (totals / int(clips.sum())).tolist()


def segment_weights(clips: int, num_segments: int, generator: torch.Generator) -> torch.Tensor:
    """(clips, num_segments): for each clip the weights of a mean over a random subset of segments.

    Subsets of 1, 2, ... all segments are equally likely.
    """
    counts = torch.randint(1, num_segments + 1, (clips, 1), generator=generator)
    ranks = torch.rand(clips, num_segments, generator=generator).argsort(1).argsort(1)
    return (ranks < counts) / counts


@torch.no_grad()
def score_exits(net: TeamNetIC, features: Features) -> dict[str, dict]:
    """Per exit: top1_pct and mean cross entropy of its logits against the labels.

    Raises FloatingPointError, naming a video, when the logits are not finite.
    """
    device = next(net.heads.parameters()).device
    labels = features.labels.to(device)
    scores = {}
    logits = net.heads_from(features.exit_inputs(device))
    for k, exit_logits in zip(net.exits, logits):
        check_logits(f"exit {k}", exit_logits, features.names)
        scores[str(k)] = {
            "top1_pct": 100 * (exit_logits.argmax(1) == labels).float().mean().item(),
            "loss": torch.nn.functional.cross_entropy(exit_logits, labels).item(),
        }
    return scores


def keep_best(
    best: dict, net: TeamNetIC, scores: dict[str, dict], epoch: int, keep_last: bool = False
) -> None:
    """Keep each exit's head of its best epoch: highest top-1, lower cross entropy at a tie.

    With `keep_last` the latest epoch takes the place of any earlier one.
    """
    for k, score in scores.items():
        rank = (score["top1_pct"], -score["loss"])
        if keep_last or k not in best or rank > (best[k]["top1_pct"], -best[k]["loss"]):
            head = {key: value.clone().cpu() for key, value in net.heads[k].state_dict().items()}
            best[k] = {**score, "epoch": epoch, "head": head}


def average_views(views: Views) -> Features:
    """All test views of a data set as one Features.

    Exits are linear in the squeeze vectors, so the exit logits of the averaged vectors are the
    average of the views' logits.
    """
    parts = [views[view] for view in range(views.dataset.num_test_views)]
    return Features(
        squeezes=tuple(torch.stack(column).mean(0) for column in zip(*(p.squeezes for p in parts))),
        streams=torch.stack([part.streams for part in parts]).mean(0),
        labels=parts[0].labels,
        names=parts[0].names,
    )


def test_exits(net: TeamNetIC, frozen: Frozen) -> dict:
    features = average_views(frozen.views("test"))
    fused = features.streams.sum(1).argmax(1) == features.labels
    return {
        "exits": list(net.exits),
        "test_top1_pct": [score["top1_pct"] for score in score_exits(net, features).values()],
        "test_fused_pct": 100 * fused.float().mean().item(),
        "test_videos": len(features.labels),
        "skipped_videos": frozen.splits.skipped,
        "precision": frozen.precision,
        "protocol": frozen.protocol,
    }
