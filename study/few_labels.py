"""When does distillation help exits? With few labels, wrong ones, and beside unlabelled videos.

    python -m study.few_labels --data-name ucf101 --data-root data/ucf101 --split split1 \\
        --train-list lists/train_pool1.txt --unlabelled lists/train_pool2.txt \\
        --test-list lists/test.txt --pretrained runs/pools/best.pt --out results/few_labels

The backbone has learned from the labels of the first list (`dataset_team.lists pools` makes two).
Its exits are trained anew in each of these cases, with the budget of PKD (training/recipes.txt):

    1, 2, 4, 8 or all labelled clips a class    by their labels alone; or by a teacher, the sum of
                                                the streams or the curriculum, beside the
                                                unlabelled videos
    20, 40, 60 % of wrong labels                by the labels; a teacher does not read them

Every case takes as many steps as one of both lists: what has fewer clips repeats them. Clips, wrong
labels and heads depend on the seed; all cases see the same ones. The last epoch is kept, test
videos choose nothing. Rows are added to cases.csv (per case and exit, means over seeds) and to
recordings.csv (per case and recording of the test list, for study.label_gain); a case whose rows
are there is not trained again. settings.json beside them says with which seeds, lists and so on.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from coviar.command import run
from coviar.files import read_json, write_json
from early_exit.groups import groups_of, stated_groups
from models.team_net_ic import TeamNetIC
from study.columns import BACKBONE
from study.run_tables import read_rows, write_rows
from training import options, train_options
from training.distillation import Schedule
from training.engine import set_lr, step_lr
from training.exits import ExitRecipe, average_views, make_exit_optimizer, train_heads_one_epoch
from training.features import Features
from training.frozen import Frozen
from training.provenance import command_line, print_result
from training.recipes import ANY, RECIPES
from training.script import check_data, open_frozen

BUDGET = RECIPES["train_prog_kd"][ANY]
LABELS = "labels"
TEACHERS = {"fused": "fused", "prog_kd": BUDGET.schedule}
ALL = "all"
CASE = ["teacher", "per_class", "wrong_pct", "unlabelled"]
CASES = [*BACKBONE, *CASE, "exit", "top1_pct", "std_over_seeds_pct", "seeds", "num_videos"]
CASES += ["labelled", "backbone", "command"]
MAY_BE_EMPTY = ["std_over_seeds_pct"]
# What every row depends on beside the recipe, as options or resolved from them.
SETTINGS = ["lists", "heldout", "select_on", "exits", "ic_pool", "views", "precision", "data_seed"]
SETTINGS += ["no_flip", "independent_crops", "clips", "crops", "on_bad_video", "bank_dtype"]
SETTINGS += ["on_the_fly"]
RECORDINGS = [*BACKBONE, *CASE, "recording", "num_videos"]  # and a column of each exit


@dataclass(frozen=True)
class Case:
    """What exits learn from. teacher: `labels`, or of TEACHERS. per_class: labelled clips a class,
    or `all`. wrong_pct: of the labels. unlabelled: whether the second list is there."""

    teacher: str
    per_class: int | str
    wrong_pct: float
    unlabelled: bool

    @property
    def key(self) -> dict:
        """As in the CSV files."""
        values = self.teacher, self.per_class, f"{self.wrong_pct:g}", int(self.unlabelled)
        return dict(zip(CASE, map(str, values)))

    def features(self, train: Features, unlabelled: Features, seed: int) -> Features:
        """The clips of an epoch, as many as both lists have."""
        total = len(train.labels) + len(unlabelled.labels)
        labels = wrong_labels(train, self.wrong_pct, seed)
        clips = _rows(train, choose_clips(train.labels, self.per_class, seed), labels)
        if self.unlabelled:
            clips = clips.joined(unlabelled)
        return _rows(clips, np.resize(np.arange(len(clips.labels)), total), clips.labels)


def all_cases(per_class: Sequence[int], wrong_pct: Sequence[float]) -> Iterator[Case]:
    for number in [*per_class, ALL]:
        yield Case(LABELS, number, 0, False)
        yield from (Case(teacher, number, 0, True) for teacher in TEACHERS)
    yield from (Case(LABELS, ALL, pct, False) for pct in wrong_pct)
    yield from (Case(teacher, ALL, 0, False) for teacher in TEACHERS)


def choose_clips(labels: torch.Tensor, per_class: int | str, seed: int) -> np.ndarray:
    """Rows of so many clips of each class, or of all it has; with more, the same and others."""
    if per_class == ALL:
        return np.arange(len(labels))
    order = np.random.default_rng([seed, 0]).permutation(len(labels))
    classes = labels.numpy()[order]
    return np.sort(np.concatenate([order[classes == c][:per_class] for c in np.unique(classes)]))


def wrong_labels(features: Features, wrong_pct: float, seed: int) -> torch.Tensor:
    """The labels, of which this share has changed to another class, all others being as likely."""
    labels, classes = features.labels.clone(), features.streams.shape[2]
    rng = np.random.default_rng([seed, 1])
    order, shift = rng.permutation(len(labels)), rng.integers(1, classes, len(labels))
    chosen = order[: round(wrong_pct / 100 * len(labels))]
    labels[chosen] = (labels[chosen] + torch.from_numpy(shift[chosen])) % classes
    return labels


def _rows(features: Features, rows: np.ndarray, labels: torch.Tensor) -> Features:
    rows = torch.from_numpy(rows)
    squeezes = tuple(squeeze[rows] for squeeze in features.squeezes)
    names = [features.names[row] for row in rows.tolist()]
    return Features(squeezes, features.streams[rows], labels[rows], names)


def train(frozen: Frozen, views: Sequence[Features], teacher: str, recipe: ExitRecipe) -> TeamNetIC:
    """Exits after the last epoch on these views, taken in turn."""
    torch.manual_seed(recipe.random_seed)
    net = TeamNetIC(frozen.backbone, recipe.exits, recipe.ic_pool).train()
    net.heads.to(frozen.device)
    optimizer = make_exit_optimizer(net.heads, recipe.lr, recipe.wd)
    teachers = Schedule(TEACHERS.get(teacher, teacher), recipe.epochs)
    for epoch in range(recipe.epochs):
        set_lr(optimizer, step_lr(recipe.lr, recipe.lr_steps, epoch))
        features = views[epoch % len(views)]
        train_heads_one_epoch(net, features, teachers[epoch], optimizer, recipe, epoch)
    return net


@torch.no_grad()
def right(net: TeamNetIC, test: Features) -> np.ndarray:
    """(n, exits) 1.0 where an exit is right."""
    device = next(net.heads.parameters()).device
    logits = net.heads_from(test.exit_inputs(device))
    correct = [exit_logits.argmax(1).cpu() == test.labels for exit_logits in logits]
    return torch.stack(correct, 1).numpy().astype(float)


def add_cases(args: argparse.Namespace) -> int:
    """Train the cases that the tables lack; returns how many."""
    check_data(args)
    names = [f"exit{k}" for k in sorted(set(args.exits))]
    paths = {args.out / "cases.csv": CASES, args.out / "recordings.csv": [*RECORDINGS, *names]}
    script = "study.few_labels with these exits"
    tables = [
        read_rows(
            path,
            columns,
            script,
            [name for name in columns if name not in MAY_BE_EMPTY],
            ["num_videos"],
        )
        for path, columns in paths.items()
    ]
    frozen = open_frozen(args)
    _check_settings(args, bool(tables[0]))
    about = dict(zip(BACKBONE, (args.data_name, args.split, frozen.digest)))
    whole = whole_cases(*tables, names)
    keys = {case: _key({**about, **case.key}) for case in all_cases(args.per_class, args.wrong_pct)}
    missing = [case for case, key in keys.items() if key not in whole]
    if not missing:
        return 0
    again = {keys[case] for case in missing}  # half of their rows may be there
    tables = [[row for row in rows if _key(row) not in again] for rows in tables]
    banks = [frozen.views("train"), frozen.views("unlabelled")]
    for bank in banks:
        bank.prepare(args.views)
    views = [[bank[view] for view in range(args.views)] for bank in banks]
    test = average_views(frozen.views("test"))
    recordings = stated_groups(frozen.splits.test.records) or groups_of(test.names)
    units, unit_of = np.unique(np.asarray(recordings), return_inverse=True)
    for case in tqdm(missing, desc="cases", disable=None):
        found = []
        for seed in args.seeds:
            recipe = make_recipe(args, seed)
            seen = [case.features(*pair, seed) for pair in zip(*views)]
            found.append(right(train(frozen, seen, case.teacher, recipe), test))
        found = np.stack(found)  # (seeds, n, exits)
        labelled = len(choose_clips(views[0][0].labels, case.per_class, args.seeds[0]))
        common = {**about, **case.key}
        tables[0] += case_rows(found, names, common, labelled, frozen.path)
        sums = np.zeros((len(units), len(names)))
        np.add.at(sums, unit_of, found.mean(0))
        for unit, row in enumerate(sums):
            own = {"recording": units[unit], "num_videos": int((unit_of == unit).sum())}
            tables[1].append({**common, **own, **dict(zip(names, row.tolist()))})
        for (path, columns), rows in reversed(list(zip(paths.items(), tables))):
            write_rows(path, columns, rows)
    return len(missing)


def whole_cases(
    cases: Sequence[Mapping], recordings: Sequence[Mapping], exits: Sequence[str]
) -> set[tuple]:
    """The keys of those that have each of these exits once in the rows of cases.csv, and all their
    test videos in those of recordings.csv."""
    counted, videos = defaultdict(list), Counter()
    for row in cases:
        counted[_key(row)].append((row["exit"], float(row["num_videos"])))
    for row in recordings:
        videos[_key(row)] += float(row["num_videos"])
    return {
        key
        for key, found in counted.items()
        if sorted(found) == [(name, videos[key]) for name in sorted(exits)]
    }


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    """Of which case of which backbone it is."""
    return tuple(row[name] for name in (*BACKBONE, *CASE))


def _check_settings(args: argparse.Namespace, holds_rows: bool) -> None:
    """Keep what decides about every row in settings.json; raise ValueError where the rows that are
    there were made with other settings."""
    path = args.out / "settings.json"
    names = ("seeds", *SETTINGS)
    settings = json.loads(json.dumps({name: getattr(args, name) for name in names}))
    if not path.is_file():
        if holds_rows:
            print(f"note: {args.out} does not say with which settings; that is not checked")
        write_json(path, settings)
        return
    before = read_json(path, "remove it where --out holds no rows, or take another --out")
    changed = [f"{name} {before.get(name)}" for name in names if settings[name] != before.get(name)]
    if changed:
        raise ValueError(
            f"{path}: the rows beside it were made with other settings ({'; '.join(changed)}):"
            " use those, or another --out"
        )


def case_rows(
    found: np.ndarray, names: Sequence[str], common: dict, labelled: int, backbone: Path
) -> Iterator[dict]:
    """The rows of a case in cases.csv; found: (seeds, n, exits)."""
    top1 = 100 * found.mean(1)
    for number, name in enumerate(names):
        yield {
            **{**common, "exit": name, "top1_pct": float(top1[:, number].mean())},
            "std_over_seeds_pct": float(top1[:, number].std(ddof=1)) if len(top1) > 1 else "",
            **{"seeds": len(top1), "num_videos": found.shape[1], "labelled": labelled},
            **{"backbone": str(backbone), "command": command_line()},
        }


def make_recipe(args: argparse.Namespace, seed: int) -> ExitRecipe:
    return ExitRecipe(
        exits=sorted(set(args.exits)),
        lr=BUDGET.lr,
        epochs=BUDGET.epochs,
        batch_size=BUDGET.batch_size,
        lr_steps=BUDGET.lr_steps,
        wd=BUDGET.wd,
        temperature=1.0,
        views=args.views,
        eval_freq=BUDGET.epochs,
        random_seed=seed,
        tensorboard=False,
        ic_pool=args.ic_pool,
    )


def get_args_parser() -> argparse.ArgumentParser:
    parser = options.make_parser(__doc__)
    options.add_data_options(parser)
    train_options.add_exit_options(parser)
    group = parser.add_argument_group("cases")
    train_options.add_unlabelled_option(group, required=True)
    group.add_argument(
        "--per-class",
        type=options.positive_int,
        nargs="+",
        default=[1, 2, 4, 8],
        help="labelled clips (1 2 4 8, and all)",
    )
    group.add_argument(
        "--wrong-pct",
        type=options.percentage,
        nargs="+",
        default=[20, 40, 60],
        help="of the labels (20 40 60)",
    )
    group = parser.add_argument_group("run")
    group.add_argument(
        "--seeds", type=options.non_negative_int, nargs="+", default=[1, 736, 4711], metavar="S"
    )
    group.add_argument("--out", type=Path, required=True, help="folder; rows are added")
    options.add_location_options(group)
    options.add_device_options(group)
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with options.refusing(parser):
        if args.views == 0:
            raise ValueError("--views 0: these exits learn from the bank")
        for name in ("seeds", "per_class", "wrong_pct"):
            given = getattr(args, name)
            if len(set(given)) < len(given):
                words = " ".join(map(str, given))
                raise ValueError(f"--{name.replace('_', '-')} {words}: name each once")
        trained = add_cases(args)
    print_result({"out": str(args.out), "trained": trained})


if __name__ == "__main__":
    run(main, get_args_parser())
