"""Do the errors of a network stay within one of two sets of classes? They would if the sets differ
in something else than what they show, for example in the encoder that their videos went through.

    python -m study.confusions runs/backbone*/ucf101_13/prog_kd/split*_seed1 --first 7 \\
        --out results/ucf101_13/confusions.csv

RUN: folders with logits.pt of save_logits.py, one of each backbone. The first set is the classes
0 .. N - 1. For each stream and their sum: how often the wrong class of a test video is in the set
of the right one, and how often that would be if all wrong classes were equally likely. Classes also
resemble each other by what they show; the I-frame stream is there to compare with.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from coviar.command import run
from early_exit.logits import LOGITS_NAME, LogitsFile
from early_exit.wise import FULL
from models import STREAMS
from study.paired import over_backbones
from study.run_tables import write_rows
from study.tables import to_markdown
from training.options import make_parser, positive_int, refusing
from training.provenance import command_line, print_result

COLUMNS = ["data", "output", "errors", "within_pct", "even_pct", "difference", "low", "high"]
COLUMNS += ["num_videos", "backbones", "command"]


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--first", type=positive_int, required=True, metavar="N")
    parser.add_argument("--out", type=Path, required=True, help="CSV file")
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


def confusion_rows(files: Sequence[LogitsFile], first: int) -> Iterator[dict]:
    """A row of each stream and one of their sum.

    Raises ValueError for files of several data sets, and where a set has less than two classes, so
    that an error could not stay in it.
    """
    (data, classes), *others = dict.fromkeys((f.meta["data"], len(f.class_names)) for f in files)
    if others:
        raise ValueError(
            f"the runs are of {data} and of {others[0][0]}: name those of one data set"
        )
    if not 2 <= first <= classes - 2:
        raise ValueError(f"--first {first}: {data} has {classes} classes, and a set needs two")
    videos = sum(len(file.part("test").names) for file in files)
    for output in (*STREAMS, FULL):
        errors = [_errors(file, output, first) for file in files]
        row = {"data": data, "output": output, "num_videos": videos, "backbones": len(files)}
        yield {**row, **_summary([found for found in errors if found[2]])}


def _errors(file: LogitsFile, output: str, first: int) -> tuple[np.ndarray, np.ndarray, list]:
    """What `same_set` says of the errors on test videos, and the recording of each."""
    logits, labels = file.samples("test")
    columns = [file.outputs.index(name) for name in (STREAMS if output == FULL else [output])]
    predicted = logits[:, columns].sum(1).argmax(1)
    groups = [name for name, wrong in zip(file.groups("test"), labels != predicted) if wrong]
    return (*same_set(labels, predicted, first, len(file.class_names)), groups)


def _summary(errors: Sequence[tuple]) -> dict:
    """Means over the backbones that err, and the interval of the difference."""
    if not errors:
        return {"errors": 0}
    beyond = [(within - even)[None, :, None] for within, even, _ in errors]
    found = over_backbones(beyond, [groups for *_, groups in errors])
    return {
        "errors": sum(len(groups) for *_, groups in errors),
        "within_pct": 100 * float(np.mean([within.mean() for within, *_ in errors])),
        "even_pct": 100 * float(np.mean([even.mean() for _, even, _ in errors])),
        "difference": float(found.mean[0]),
        "low": float(found.low[0]),
        "high": float(found.high[0]),
    }


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        files = [LogitsFile.load(run / LOGITS_NAME) for run in args.runs]
        rows = list(confusion_rows(files, args.first))
    lines = [["stream", "errors", "within the set, %", "if even, %", "difference"]]
    for row in rows:
        if row["errors"]:
            interval = f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
            shares = f"{row['within_pct']:.1f}", f"{row['even_pct']:.1f}"
            lines.append([row["output"], str(row["errors"]), *shares, interval])
    print(to_markdown(lines))
    write_rows(args.out, COLUMNS, [{**row, "command": command_line()} for row in rows])
    print_result({"out": str(args.out), "backbones": len(files)})


if __name__ == "__main__":
    run(main, get_args_parser())
