"""Training internal classifiers on a frozen backbone; the four IC scripts run it.

The exits are independent heads: their losses are summed, and each keeps its own best epoch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from models.team_net_ic import TeamNetIC
from training import options
from training.checkpoint import (
    BEST,
    LAST,
    load_backbone,
    load_checkpoint,
    save_checkpoint,
    weights_digest,
)
from training.distillation import Schedule, exit_loss
from training.engine import set_lr, step_lr
from training.loading import epoch_order, open_splits, protocol
from training.log import RunFolder, print_result
from training.views import Features, Views

ADAM_EPS = 1e-3  # PAPER: recipes


def add_classifier_options(parser: argparse.ArgumentParser) -> None:
    """Exits, views and backbone of the IC scripts."""
    add_frozen_options(parser)
    group = parser.add_argument_group("exits")
    group.add_argument(
        "--exits",
        type=int,
        nargs="+",
        choices=(1, 2, 3, 4),
        default=[1, 2, 3],
        help="TEAM blocks that get an exit (default 1 2 3)",
    )


def add_distillation_options(parser: argparse.ArgumentParser, schedule: str | None = None) -> None:
    """Temperature, and the curriculum where the script lets it be chosen."""
    group = parser.add_argument_group("distillation")
    if schedule:
        group.add_argument(
            "--schedule",
            default=schedule,
            help="teachers in turn with their epochs, the last one without; of mv, residual,"
            f" iframe, fused, labels (default {schedule})",
        )
    group.add_argument(
        "--T",
        "--temperature",
        dest="temperature",
        type=options.positive_float,
        default=1.0,
        help="softmax temperature of student and teacher (default 1)",
    )


def add_frozen_options(parser: argparse.ArgumentParser) -> None:
    """The frozen backbone and how its views are made; save_logits.py needs the same."""
    group = parser.add_argument_group("frozen backbone")
    group.add_argument(
        "--pretrained",
        help="backbone checkpoint, ours or a published one (default: best.pt of the run of the"
        " same data and split under --checkpoint_dir)",
    )
    for flag, words in (
        ("--arch", "I-frame stream"),
        ("--motion-arch", "MV and residual streams"),
    ):
        group.add_argument(flag, help=f"{words}; read from the backbone, an error if it differs")
    group.add_argument("--num_segments", type=options.positive_int, help="T; likewise")
    group.add_argument("--is_shift", action="store_true", default=None, help="TSM; likewise")
    group.add_argument("--dropout", type=options.fraction, help="likewise (no effect in eval mode)")
    group.add_argument("--crop-size", type=options.positive_int, help="likewise, in pixels")
    group.add_argument(
        "--views",
        type=options.non_negative_int,
        default=10,
        help="augmented views of each training video in the bank; epochs take them in turn."
        " 0: a fresh view every epoch, and no bank (default 10)",
    )
    group.add_argument(
        "--cache-dir", type=Path, help="of the bank (default <checkpoint_dir>/<data>/views)"
    )
    group.add_argument(
        "--data-seed", type=int, default=0, help="of the views; the same for all methods and seeds"
    )
    group.add_argument(
        "--feature-batch", type=options.positive_int, default=16, help="clips per forward pass"
    )


class Frozen:
    """A frozen backbone with the data its exits see; shared by the IC scripts and save_logits."""

    def __init__(self, args: argparse.Namespace, parser: argparse.ArgumentParser):
        """Ends in parser.error when backbone, options and lists do not belong together."""
        self.device = options.choose_device(args.gpus, parser)
        self.path = options.find_backbone(args, parser)
        try:
            self.backbone = load_backbone(self.path, args.num_segments)
            checkpoint = load_checkpoint(self.path)
            self.crop_size = checkpoint.get("crop_size") or args.crop_size or 224
            self._check(args, checkpoint)
            self.splits = open_splits(
                args, self.backbone.num_segments, self.crop_size, args.data_seed
            )
        except (ValueError, FileNotFoundError) as error:
            parser.error(str(error))
        self.class_names = list(self.splits.class_names)
        if len(self.class_names) != self.backbone.config["num_classes"]:
            parser.error(
                f"{self.path} knows {self.backbone.config['num_classes']} classes,"
                f" {args.train_list} has {len(self.class_names)}"
            )
        self._check_heldout(checkpoint)
        self.digest = weights_digest(self.backbone.state_dict())
        self.backbone.to(self.device, memory_format=torch.channels_last)
        self.args = args

    def views(self, dataset, banked: bool = True) -> Views:
        default = self.args.checkpoint_dir / self.args.data_name / "views"
        return Views(
            self.backbone,
            dataset,
            device=self.device,
            precision=self.args.precision,
            batch_size=self.args.feature_batch,
            workers=self.args.workers,
            cache_dir=(self.args.cache_dir or default) if banked else None,
        )

    def _check(self, args: argparse.Namespace, checkpoint: dict) -> None:
        known = {**self.backbone.config, "crop_size": self.crop_size}
        if "model" not in checkpoint:  # published files do not tell their dropout
            known.pop("dropout")
        for key in ("arch", "motion_arch", "num_segments", "is_shift", "dropout", "crop_size"):
            asked = getattr(args, key)
            if asked is not None and key in known and asked != known[key]:
                raise ValueError(
                    f"{self.path} was trained with {key} {known[key]}, the options say {asked};"
                    " leave the option out, or name another backbone with --pretrained"
                )

    def _check_heldout(self, checkpoint: dict) -> None:
        """Say it when the backbone has seen the videos that models are chosen on."""
        heldout = self.splits.heldout
        unseen = set(checkpoint.get("heldout", ()))
        if heldout and any(record.name not in unseen for record in heldout.records):
            print(
                f"note: the backbone {self.path} may have trained on held-out videos (it records"
                " another held-out set, or none); its exits look better there than they are"
            )


def run_classifiers(
    args: argparse.Namespace, parser: argparse.ArgumentParser, method: str, schedule: str
) -> dict:
    """Train or evaluate the exits as the options say; returns the result that is printed last."""
    options.resolve_recipe(args)
    options.check_files(args, parser)
    try:
        teachers = Schedule(schedule, args.epochs)
    except ValueError as error:
        parser.error(str(error))
    args.exits = sorted(set(args.exits))
    folder = RunFolder(options.run_path(args, method))
    if not args.evaluate:
        folder.check(args, parser)
        if folder.result is not None and args.resume:
            print_result(folder.result)
            return folder.result
    frozen = Frozen(args, parser)
    if args.evaluate:
        try:
            net = load_classifiers(folder.path / BEST, frozen)
        except (ValueError, FileNotFoundError) as error:
            parser.error(str(error))
        result = {"run": str(folder.path), **test_result(net, frozen)}
    else:
        folder.start(args)
        result = train_classifiers(args, folder, frozen, teachers)
        folder.finish(result)
    print_result(result)
    return result


def train_classifiers(
    args: argparse.Namespace, folder: RunFolder, frozen: Frozen, teachers: Schedule
) -> dict:
    """Train up to args.epochs from the last checkpoint, if any; returns the result."""
    torch.manual_seed(args.random_seed)
    net = TeamNetIC(frozen.backbone, args.exits).train()
    net.heads.to(frozen.device)
    optimizer = make_optimizer(net, args.lr, args.wd)
    start, best = 0, {}
    if (folder.path / LAST).is_file():
        checkpoint = load_checkpoint(folder.path / LAST)
        net.heads.load_state_dict(checkpoint["heads"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        start, best = checkpoint["epoch"] + 1, checkpoint["best"]
    folder.start_log(start, args.tensorboard)

    train_views = frozen.views(frozen.splits.train, banked=args.views > 0)
    train_views.prepare(min(args.views, args.epochs))
    selection = average_views(frozen.views(frozen.splits.selection))
    for epoch in range(start, args.epochs):
        features = train_views[epoch % args.views if args.views else epoch]
        lr = step_lr(args.lr, args.lr_steps, epoch)
        set_lr(optimizer, lr)
        losses = train_one_epoch(net, features, teachers[epoch], optimizer, args, epoch)
        line = {"epoch": epoch, "lr": lr, "teacher": teachers[epoch], "losses": losses}
        if (epoch + 1) % args.eval_freq == 0 or epoch == args.epochs - 1:
            scores = score_exits(net, selection)
            line[f"{args.select_on}_top1_pct"] = [score["top1_pct"] for score in scores.values()]
            keep_best(best, net, scores, epoch)
        folder.log(line)
        state = {"heads": net.heads.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint(folder.path / LAST, {**state, "epoch": epoch, "best": best})

    for k, exit_best in best.items():
        net.heads[k].load_state_dict(exit_best["head"])
    save_checkpoint(
        folder.path / BEST,
        {
            "heads": net.heads.state_dict(),
            "exits": list(net.exits),
            "best_epochs": {k: exit_best["epoch"] for k, exit_best in best.items()},
            "backbone": str(frozen.path),
            "backbone_digest": frozen.digest,
            "schedule": teachers.words,
        },
    )
    return {
        "run": str(folder.path),
        "schedule": teachers.words,
        "best_epochs": [exit_best["epoch"] for exit_best in best.values()],
        f"{args.select_on}_top1_pct": [exit_best["top1_pct"] for exit_best in best.values()],
        **test_result(net, frozen),
    }


def make_optimizer(net: TeamNetIC, lr: float, weight_decay: float) -> torch.optim.Adam:
    """Adam on the heads; weight decay on their matrices only."""
    matrices = [p for p in net.heads.parameters() if p.ndim > 1]
    biases = [p for p in net.heads.parameters() if p.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, lr=lr, eps=ADAM_EPS)


def train_one_epoch(
    net: TeamNetIC,
    features: Features,
    teacher: str,
    optimizer: torch.optim.Optimizer,
    args: argparse.Namespace,
    epoch: int,
) -> list[float]:
    """One pass over a view of the training videos; returns the mean loss of each exit.

    Raises FloatingPointError, naming the clips, when a loss is not finite.
    """
    device = next(net.heads.parameters()).device
    order = torch.from_numpy(epoch_order(len(features.labels), args.random_seed, epoch))
    totals = torch.zeros(len(net.exits), device=device)
    for rows in order.split(args.batch_size):
        squeezes = [squeeze[rows].to(device) for squeeze in features.squeezes]
        streams, labels = features.streams[rows].to(device), features.labels[rows].to(device)
        losses = torch.stack(
            [
                exit_loss(logits, teacher, streams, labels, args.temperature)
                for logits in net.heads_from(squeezes)
            ]
        )
        if not torch.isfinite(losses).all():
            names = [features.names[row] for row in rows.tolist()]
            raise FloatingPointError(
                f"losses {losses.tolist()} in epoch {epoch} with clips {names}; the last"
                " checkpoint is intact: try a lower --lr"
            )
        optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        optimizer.step()
        totals += losses.detach() * len(rows)
    return (totals / len(order)).tolist()


@torch.no_grad()
def score_exits(net: TeamNetIC, features: Features) -> dict[str, dict]:
    """Per exit: top1_pct and mean cross entropy of its logits against the labels."""
    device = next(net.heads.parameters()).device
    labels = features.labels.to(device)
    scores = {}
    logits = net.heads_from([squeeze.to(device) for squeeze in features.squeezes])
    for k, exit_logits in zip(net.exits, logits):
        scores[str(k)] = {
            "top1_pct": 100 * (exit_logits.argmax(1) == labels).float().mean().item(),
            "loss": torch.nn.functional.cross_entropy(exit_logits, labels).item(),
        }
    return scores


def keep_best(best: dict, net: TeamNetIC, scores: dict[str, dict], epoch: int) -> None:
    """Keep each exit's head of its best epoch: highest top-1, lower cross entropy at a tie."""
    for k, score in scores.items():
        rank = (score["top1_pct"], -score["loss"])
        if k not in best or rank > (best[k]["top1_pct"], -best[k]["loss"]):
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


def load_classifiers(path: Path, frozen: Frozen) -> TeamNetIC:
    """The exits of an IC run's best.pt on the frozen backbone, in eval mode.

    Raises ValueError when they were trained on another backbone.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint["backbone_digest"] != frozen.digest:
        raise ValueError(
            f"the exits in {path} stand on the backbone {checkpoint['backbone']} as it was then"
            f" (digest {checkpoint['backbone_digest']}), not on {frozen.path} ({frozen.digest});"
            " name the right one with --pretrained, or train the exits again"
        )
    net = TeamNetIC(frozen.backbone, checkpoint["exits"]).eval()
    net.heads.load_state_dict(checkpoint["heads"])
    net.heads.to(frozen.device)
    return net


def test_result(net: TeamNetIC, frozen: Frozen) -> dict:
    features = average_views(frozen.views(frozen.splits.test))
    fused = features.streams.sum(1).argmax(1) == features.labels
    return {
        "exits": list(net.exits),
        "test_top1_pct": [score["top1_pct"] for score in score_exits(net, features).values()],
        "test_fused_pct": 100 * fused.float().mean().item(),
        "test_videos": len(features.labels),
        "skipped_videos": frozen.splits.skipped,
        "protocol": protocol(frozen.args, frozen.splits),
    }
