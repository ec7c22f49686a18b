"""Do the errors of a network stay within one of two sets of classes? They would if the sets differ
in something else than what they show, for example in the encoder that their videos went through.

    python -m study.confusions runs/ucf101_13/prog_kd/split*_seed1 --first 7 --out confusions.csv
    python -m study.confusions results/*/confusions.csv --first 7 --out confusions.md

RUN: folders with logits.pt of save_logits.py, one of each backbone, or files that this command
wrote, whose runs may be gone. The first set is the classes 0 .. N - 1. For each stream and their
sum: how often the wrong class of a test video is in the set of the right one, and how often that
would be if all wrong classes were equally likely. Classes also resemble each other by what they
show; the I-frame stream is there to compare with. The table of shares is printed, and is the file
where that ends in .md; a CSV file has the errors of each recording.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from coviar.command import run
from coviar.files import check_out
from early_exit.logits import LOGITS_NAME, LogitsFile
from early_exit.wise import FULL
from models import STREAMS
from study.columns import BACKBONE
from study.paired import Units, over_backbones
from study.run_tables import read_rows
from study.tables import write_rows_or_table
from training.options import make_parser, positive_int, refusing
from training.provenance import command_line, print_result

# errors of a recording; how many of them are within the set, and would be if all were as likely
COLUMNS = [*BACKBONE, "first", "output", "recording", "errors", "within", "even", "command"]


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder, or a CSV file")
    parser.add_argument("--first", type=positive_int, required=True, metavar="N")
    parser.add_argument("--out", type=Path, required=True, help="FILE.csv or FILE.md")
    return parser


def same_set(
    labels: np.ndarray, predicted: np.ndarray, first: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of the n errors: whether the wrong class is in the set of the right one, and the chance of
    that if all wrong classes were equally likely; (n,) float64 each."""
    wrong = labels != predicted
    labels, predicted = labels[wrong], predicted[wrong]
    size = np.where(labels < first, first, classes - first)
    return ((labels < first) == (predicted < first)).astype(float), (size - 1) / (classes - 1)


def confusion_rows(paths: Sequence[Path], first: int) -> list[dict]:
    """The rows of all backbones, as in COLUMNS but for the command of new ones.

    Raises ValueError for several data sets, for a backbone that is there twice, where a set has
    less than two classes, so that an error could not stay in it, and for a file of another kind or
    of other sets.
    """
    rows, known = [], set()
    for path in paths:
        found = _read(path, first) if path.suffix == ".csv" else list(_rows_of(path, first))
        backbones = {tuple(row[name] for name in BACKBONE) for row in found}
        for backbone in backbones & known:
            raise ValueError(f"{path}: {' '.join(backbone)} is there twice")
        known |= backbones
        rows += found
    data = list(dict.fromkeys(row["data"] for row in rows))
    if len(data) > 1:
        raise ValueError(f"the runs are of {data[0]} and of {data[1]}: name those of one data set")
    return rows


def _read(path: Path, first: int) -> list[dict]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; study.confusions writes it")
    required = [name for name in COLUMNS if name not in ("backbone_digest", "recording")]
    numbers = "errors", "within", "even"
    rows = read_rows(path, COLUMNS, "study.confusions", required, numbers, is_input=True)
    if any(row["first"] != str(first) for row in rows):
        raise ValueError(f"{path} was written with another --first than {first}")
    return rows


def _rows_of(run: Path, first: int) -> Iterator[dict]:
    file = LogitsFile.load(run / LOGITS_NAME)
    data, classes = file.meta["data"], len(file.class_names)
    if not 2 <= first <= classes - 2:
        raise ValueError(f"--first {first}: {data} has {classes} classes, and a set needs two")
    digest = file.meta.get("backbone_digest", "")
    about = {"data": data, "split": file.meta["split"], "backbone_digest": digest, "first": first}
    logits, labels = file.samples("test")
    for output in (*STREAMS, FULL):
        columns = [file.outputs.index(name) for name in (STREAMS if output == FULL else [output])]
        predicted = logits[:, columns].sum(1).argmax(1)
        groups = [name for name, wrong in zip(file.groups("test"), labels != predicted) if wrong]
        errors = pd.DataFrame(same_set(labels, predicted, first, classes), ["within", "even"]).T
        of_recordings = errors.groupby(np.array(groups, dtype=object))
        for recording, own in of_recordings if groups else ():
            counts = {"errors": len(own), **own.sum().to_dict()}
            yield {**about, "output": output, "recording": recording, **counts}


def summary(rows: Sequence[dict]) -> pd.DataFrame:
    """For each stream and the sum: means over the backbones that err, in percent, and the interval
    of the difference."""
    table = pd.DataFrame(rows).astype({"errors": int, "within": float, "even": float})
    found = {}
    for output, own in table.groupby("output", sort=False):
        backbones = dict(list(own.groupby(BACKBONE)))
        beyond = over_backbones(
            [split for _, split, _ in backbones],
            [_units(part) for part in backbones.values()],
        )
        shares = [
            part[["within", "even"]].sum() / part["errors"].sum() for part in backbones.values()
        ]
        found[output] = {
            "errors": own["errors"].sum(),
            **(100 * pd.concat(shares, axis=1).mean(axis=1)).add_suffix("_pct"),
            **{"difference": beyond.mean[0], "low": beyond.low[0], "high": beyond.high[0]},
            "backbones": len(backbones),
        }
    return pd.DataFrame.from_dict(found, orient="index")


def _units(errors: pd.DataFrame) -> Units:
    """Of one backbone: how many more errors than if even stay in the set, of each recording."""
    beyond = (errors["within"] - errors["even"]).to_numpy()[:, None]
    return Units(errors["recording"].to_numpy(), beyond, errors["errors"].to_numpy())


def to_lines(table: pd.DataFrame) -> list[list[str]]:
    lines = [["stream", "errors", "within the set, %", "if even, %", "difference", "backbones"]]
    for output, row in table.iterrows():
        interval = f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
        shares = f"{row['within_pct']:.1f}", f"{row['even_pct']:.1f}"
        lines.append([output, f"{row['errors']:g}", *shares, interval, f"{row['backbones']:g}"])
    return lines


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        check_out(args.out)
        rows = confusion_rows(args.runs, args.first)
        if not rows:
            raise ValueError("the runs have no errors")
        lines = to_lines(summary(rows))
        rows = [{"command": command_line(), **row} for row in rows]
        write_rows_or_table(args.out, COLUMNS, rows, lines)
    print_result({"out": str(args.out), "rows": len(rows)})


if __name__ == "__main__":
    run(main, get_args_parser())
