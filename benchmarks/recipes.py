"""Which teachers and heads train exits best? Trials on the same frozen views, at one budget.

    python -m benchmarks.recipes runs/ucf101_7/views --splits split1 split2 split3 --out recipes.csv

Reads ready banks (`python -m training.views`, `save_logits.py`). Every trial has the published
budget of PKD (training/recipes.txt) and keeps the last epoch, so nothing is chosen. Prints the
teachers' own top-1, then for each trial the test top-1 per exit, mean and standard deviation over
splits and seeds, and the paired difference to the first trial with the 95 % interval of a bootstrap
over recordings (study.paired). The CSV file also has the numbers of each split.

This benchmark chose the teachers that the training scripts offer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import training.recipes
from coviar.command import run
from coviar.files import check_out
from early_exit.groups import groups_of
from models import STREAMS
from models.team_net import new_classifier
from study.paired import paired_difference
from study.run_tables import write_rows
from training.bank import read_banks
from training.checkpoint import load_checkpoint
from training.distillation import Schedule, teacher_logits
from training.engine import set_lr, step_lr
from training.exits import make_exit_optimizer
from training.features import Features
from training.options import make_parser, non_negative_int, refusing
from training.provenance import command_line, print_result

BUDGET = training.recipes.RECIPES["train_prog_kd"][training.recipes.ANY]
PKD = BUDGET.schedule
CPU = torch.device("cpu")
COLUMNS = [
    *("recipe", "baseline", "split", "exit", "top1_pct", "std_over_runs_pct"),
    *("difference_pct", "low_pct", "high_pct", "runs", "num_videos", "command"),
]


class Bank(NamedTuple):
    train: list[Features]
    test: Features
    segments: int


class Trial(NamedTuple):
    """teacher(epoch, streams (n, 3, C), labels, own logits per exit) -> targets (n, C) per exit."""

    teacher: Callable
    head: str = "raw"


class Head(nn.Module):
    """A classifier on squeeze vectors (n, T * d); `kind` says how they enter it."""

    def __init__(self, kind: str, inputs: int, classes: int, segments: int):
        super().__init__()
        self.kind, self.segments = kind, segments
        size = inputs // segments if "pooled" in kind else inputs
        self.norm = (
            nn.Identity() if kind in ("raw", "pooled") else nn.BatchNorm1d(size, affine=False)
        )
        if "hidden" in kind:
            hidden = [nn.Linear(size, 64), nn.ReLU(), nn.Dropout(0.3)]
            self.classify = nn.Sequential(*hidden, new_classifier(64, classes))
        else:
            self.classify = new_classifier(size, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if "pooled" in self.kind:
            x = x.unflatten(1, (self.segments, -1)).mean(1)
        return self.classify(self.norm(x))


def labels_only(epoch, streams, labels, own):
    return [F.one_hot(labels, streams.shape[2]).float()] * len(own)


def scheduled(words: str, temperature: float = 1.0) -> Callable:
    """The streams, or their sum, as a Schedule says; only their softmax knows the temperature."""
    schedule = Schedule(words, BUDGET.epochs)

    def teacher(epoch, streams, labels, own):
        logits = teacher_logits(schedule[epoch], streams)
        return [F.softmax(logits / temperature, 1)] * len(own)

    return teacher


def mean(epoch, streams, labels, own):
    return [F.softmax(streams, 2).mean(1)] * len(own)


def confident(epoch, streams, labels, own):
    """All three at once, weighted by their largest probability."""
    p = F.softmax(streams, 2)
    weight = p.max(2, keepdim=True).values
    return [(p * weight).sum(1) / weight.sum(1)] * len(own)


def half_labels(other: Callable) -> Callable:
    def teacher(epoch, streams, labels, own):
        theirs = other(epoch, streams, labels, own)
        return [(a + b) / 2 for a, b in zip(labels_only(epoch, streams, labels, own), theirs)]

    return teacher


def deeper_exit(epoch, streams, labels, own):
    """The next exit; the last exit learns from the fused streams."""
    deeper = [F.softmax(logits.detach(), 1) for logits in own[1:]]
    return [*deeper, F.softmax(streams.sum(1), 1)]


fused = scheduled("fused")
SCHEDULES = {
    "PKD": PKD,
    "order mv, I, R": "mv:3,iframe:3,residual",
    "order R, mv, I": "residual:3,mv:3,iframe",
    "order R, I, mv": "residual:3,iframe:3,mv",
    "order I, mv, R": "iframe:3,mv:3,residual",
    "order I, R, mv": "iframe:3,residual:3,mv",
    **{f"{name} alone": name for name in STREAMS},
}
TRIALS = {
    "CE": Trial(labels_only),
    **{name: Trial(scheduled(words)) for name, words in SCHEDULES.items()},
    "fused": Trial(fused),
    "fused, temperature 2": Trial(scheduled("fused", temperature=2.0)),
    "mean of streams": Trial(mean),
    "confident streams": Trial(confident),
    "labels + fused": Trial(half_labels(fused)),
    "labels + PKD": Trial(half_labels(scheduled(PKD))),
    "labels + confident": Trial(half_labels(confident)),
    "labels + deeper exit": Trial(half_labels(deeper_exit)),
    "CE standardised": Trial(labels_only, "standardised"),
    "CE pooled": Trial(labels_only, "pooled"),
    "CE standardised pooled": Trial(labels_only, "standardised pooled"),
    "CE standardised hidden": Trial(labels_only, "standardised hidden"),
    "CE standardised pooled hidden": Trial(labels_only, "standardised pooled hidden"),
    "PKD standardised": Trial(scheduled(PKD), "standardised"),
    "PKD pooled": Trial(scheduled(PKD), "pooled"),
    "PKD standardised pooled": Trial(scheduled(PKD), "standardised pooled"),
    "fused standardised pooled": Trial(fused, "standardised pooled"),
    "labels + fused, standardised pooled": Trial(half_labels(fused), "standardised pooled"),
}


def read_bank(root: Path, split: str, digest: str | None) -> Bank:
    """The parts of a split's bank. digest: of the backbone's weights, where there are several.

    Raises ValueError when a part is missing, or there are several banks of it.
    """
    parts, segments = {}, 0
    for folder, about in read_banks(root).items():
        owner, _, part = about["name"].partition(" ") if about else ("", "", "")
        if owner != split or (digest and about["identity"]["backbone"] != digest):
            continue
        if part in parts:
            raise ValueError(
                f"{parts[part]} and {folder} both hold {split}'s {part}: name the backbone's"
                " digest (in about.json) with --digests, or remove one"
            )
        parts[part] = folder
        segments = about["identity"]["config"]["num_segments"]
    missing = {"train", "heldout", "test"} - parts.keys()  # all that a ready bank holds
    if missing:
        raise ValueError(
            f"{root} has no views of {split}'s {', '.join(sorted(missing))}: fill it with"
            " python -m training.views"
        )
    loaded = {
        part: [Features(**load_checkpoint(f)) for f in sorted(parts[part].glob("view_*.pt"))]
        for part in ("train", "test")
    }
    return Bank(loaded["train"], loaded["test"][0], segments)


def train(bank: Bank, recipe: Trial, seed: int) -> list[nn.Module]:
    """Heads after the last epoch, in eval mode."""
    torch.manual_seed(seed)
    classes = bank.train[0].streams.shape[2]
    heads = nn.ModuleList(
        Head(recipe.head, squeeze.shape[1], classes, bank.segments)
        for squeeze in bank.train[0].squeezes
    )
    optimizer = make_exit_optimizer(heads, BUDGET.lr, BUDGET.wd)
    for epoch in range(BUDGET.epochs):
        view = bank.train[epoch % len(bank.train)]
        set_lr(optimizer, step_lr(BUDGET.lr, BUDGET.lr_steps, epoch))
        for rows in torch.randperm(len(view.labels)).split(BUDGET.batch_size):
            own = [head(s) for head, s in zip(heads, view.exit_inputs(CPU, rows))]
            targets = recipe.teacher(epoch, view.streams[rows], view.labels[rows], own)
            optimizer.zero_grad()
            sum(map(F.cross_entropy, own, targets)).backward()
            optimizer.step()
    return list(heads.eval())


@torch.no_grad()
def correct(heads: list[nn.Module], features: Features) -> np.ndarray:
    """(n, exits) 1.0 where an exit is right."""
    logits = [head(squeeze) for head, squeeze in zip(heads, features.exit_inputs(CPU))]
    return torch.stack([x.argmax(1) == features.labels for x in logits], 1).numpy().astype(float)


def rows_of(recipe: str, right: dict, base: dict, banks: dict[str, Bank]) -> list[dict]:
    """CSV rows of a recipe, per split and over all; right and base: per split (seeds, n, exits)."""
    rows = []
    for split in banks:
        rows += _rows(recipe, split, [split], right, base, banks)
    return rows + _rows(recipe, "all", list(banks), right, base, banks)


def _rows(
    recipe: str, name: str, splits: list[str], right: dict, base: dict, banks: dict[str, Bank]
) -> list[dict]:
    units = [groups_of(banks[split].test.names) for split in splits]
    gain = paired_difference([right[split] - base[split] for split in splits], units)
    runs = 100 * np.concatenate([right[split].mean(1) for split in splits])  # (runs, exits)
    spread = runs.std(0, ddof=1) if len(runs) > 1 else np.full(runs.shape[1], np.nan)
    return [
        {
            **{"recipe": recipe, "split": name, "exit": f"exit{k + 1}"},
            **{"top1_pct": runs[:, k].mean(), "std_over_runs_pct": spread[k]},
            "difference_pct": gain.mean[k],
            **{"low_pct": gain.low[k], "high_pct": gain.high[k]},
            **{"runs": len(runs), "num_videos": sum(map(len, units)), "command": command_line()},
        }
        for k in range(runs.shape[1])
    ]


def row_text(row: dict) -> str:
    top1 = f"{row['top1_pct']:5.1f} ± {row['std_over_runs_pct']:4.1f}"
    return f"{top1} ({row['difference_pct']:+5.1f} [{row['low_pct']:+.1f}, {row['high_pct']:+.1f}])"


def print_teachers(split: str, bank: Bank) -> None:
    """Top-1 of the teachers themselves, on the views that they teach on and on test videos."""
    for part, views in {"training views": bank.train, "test": [bank.test]}.items():
        streams, labels = (torch.cat([getattr(v, k) for v in views]) for k in ("streams", "labels"))
        logits = {**dict(zip(STREAMS, streams.unbind(1))), "fused": streams.sum(1)}
        top1 = {name: 100 * (x.argmax(1) == labels).float().mean() for name, x in logits.items()}
        print(f"{split} {part}:", ", ".join(f"{name} {x:.1f}" for name, x in top1.items()))


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("views", type=Path, help="folder of the banks")
    parser.add_argument("--splits", nargs="+", default=["split1", "split2", "split3"])
    parser.add_argument("--digests", nargs="+", help="weights digest of each split's backbone")
    parser.add_argument("--seeds", type=non_negative_int, nargs="+", default=[1, 736, 4711])
    parser.add_argument("--recipes", nargs="+", default=list(TRIALS), choices=TRIALS)
    parser.add_argument("--out", type=Path, help="CSV file to write")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    torch.set_num_threads(1)
    digests = args.digests or [None] * len(args.splits)
    if len(digests) != len(args.splits):
        parser.error(f"--digests names {len(digests)} backbones of {len(args.splits)} --splits")
    with refusing(parser):
        check_out(args.out)
        banks = {split: read_bank(args.views, split, d) for split, d in zip(args.splits, digests)}
    for split, bank in banks.items():
        print_teachers(split, bank)
    rows, base = [], {}
    for name in args.recipes:
        right = {
            split: np.stack(
                [correct(train(bank, TRIALS[name], seed), bank.test) for seed in args.seeds]
            )
            for split, bank in banks.items()
        }
        base = base or right
        found = rows_of(name, right, base, banks)
        rows += [{**row, "baseline": args.recipes[0]} for row in found]
        cells = [row_text(row) for row in found if row["split"] == "all"]
        print(f"{name:36}", "  ".join(cells), flush=True)
    if args.out:
        write_rows(args.out, COLUMNS, rows)
    print_result({"recipes": str(args.out) if args.out else None, "rows": len(rows)})


if __name__ == "__main__":
    run(main, get_args_parser())
