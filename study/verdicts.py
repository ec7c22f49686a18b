"""What is decided: paired differences that have one sign on all data sets.

    python -m study.verdicts results/ucf101_13/comparisons/wise.csv \\
        results/jhmdb_21/comparisons/wise.csv --gains results/few_labels/gains.csv \\
        --out verdicts.md

COMPARISONS: files of study.compare --resample backbone; --gains: files of study.label_gain;
`multirunner/second_edition.sh --tables` names all. By the rule of results/PROTOCOL.md a difference
is decided when its interval leaves out 0, with one sign, on all data sets of the files, at least
two. Else it is not decided, and an effect of the half width of the interval is what so many
backbones could have seen. Sides are equal where every interval is [0, 0], as at `full` of exits on
one backbone. The table is printed, without what is equal, and is
the file where that ends in .md; a CSV file has a row for each comparison, exit and data set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from coviar.command import run
from coviar.files import check_out
from study import compare, label_gain
from study.few_labels import ALL, CASE
from study.summary import read_table
from study.tables import write_rows_or_table
from training.options import make_parser, refusing
from training.provenance import command_line, print_result

DECIDED, NOT_DECIDED, EQUAL = "decided", "not decided", "equal"
_NUMBERS = ["difference_pct", "low_pct", "high_pct"]
_CLAIM = ["comparison", "exit"]
COLUMNS = [*_CLAIM, "data", *_NUMBERS, "half_width_pct", "std_over_splits_pct", "backbones"]
COLUMNS += ["verdict", "command"]


def read_comparisons(path: Path) -> pd.DataFrame:
    """The rows of study.compare: comparison, exit, data, the difference and its interval in points,
    std_over_splits_pct (NaN of one split), backbones. Raises ValueError where backbones were not
    drawn."""
    names = ["data", "first", "second", "exit", "resample"]
    texts = [*names, "against", "protocol", "command"]
    required = [*names, *_NUMBERS, "runs", "confidence_pct"]
    table = read_table(path, texts, "study.compare", required)
    if set(table["resample"]) != {compare.BACKBONE}:
        raise ValueError(f"{path} does not draw backbones: give study.compare --resample backbone")
    if set(table["confidence_pct"]) != {compare.CONFIDENCE_PCT}:
        raise ValueError(
            f"{path} has other intervals than of {compare.CONFIDENCE_PCT:g} %, by which verdicts"
            " are given: make it again without --confidence-pct"
        )
    name = table["first"] + " - " + table["second"]
    by_class = table["protocol"].str.contains(compare.OF_CLASSES, regex=False)
    name = name.where(~by_class, name + compare.OF_CLASSES)
    return table.assign(comparison=name, backbones=table["runs"])


def read_gains(path: Path) -> pd.DataFrame:
    """The rows of study.label_gain, likewise; its one exit is the mean of all."""
    required = [name for name in label_gain.COLUMNS if not name.startswith("std_over")]
    table = read_table(path, ["data", *CASE, "command"], "study.label_gain", required)
    return table.assign(comparison=table.apply(_words, axis=1), exit="mean")


def _words(row: pd.Series) -> str:
    labels = row["per_class"] if row["per_class"] == ALL else f"{row['per_class']} a class"
    wrong = "" if row["wrong_pct"] == "0" else f", {row['wrong_pct']} % wrong"
    beside = ", unlabelled videos beside" if row["unlabelled"] == "1" else ""
    return f"{row['teacher']} - labels, {labels}{wrong}{beside}"


def verdict(rows: pd.DataFrame) -> str:
    """Of one comparison at one exit: decided if every interval lies on the same side of 0."""
    if not rows[_NUMBERS].any(axis=None):
        return EQUAL
    above, below = (rows["low_pct"] > 0).all(), (rows["high_pct"] < 0).all()
    return DECIDED if above or below else NOT_DECIDED


def judge(table: pd.DataFrame) -> pd.DataFrame:
    """The rows, by comparison and exit, with half_width_pct and verdict.

    Raises ValueError for one data set only, a comparison that one lacks, and one that is there
    twice.
    """
    names = list(dict.fromkeys(table["data"]))
    if len(names) < 2:
        raise ValueError(f"all rows are of {names[0]}: a difference is decided on two data sets")
    twice = table[table.duplicated([*_CLAIM, "data"])]
    if len(twice):
        raise ValueError(f"{' '.join(twice.iloc[0][[*_CLAIM, 'data']])} is there twice")
    judged = []
    for claim, rows in table.groupby(_CLAIM, sort=False):
        lacking = [name for name in names if name not in set(rows["data"])]
        if lacking:
            raise ValueError(f"{' '.join(claim)} is not there for {', '.join(lacking)}")
        judged.append(rows.assign(verdict=verdict(rows)))
    found = pd.concat(judged, ignore_index=True)
    return found.assign(half_width_pct=(found["high_pct"] - found["low_pct"]) / 2)


def to_lines(judged: pd.DataFrame) -> list[list[str]]:
    """Header and rows: a comparison at an exit a line, but for those that are equal."""
    names = list(dict.fromkeys(judged["data"]))
    lines = [["first - second", "exit", *names, "n", "verdict", "could have seen"]]
    differing = judged[judged["verdict"] != EQUAL]
    for claim, rows in differing.groupby(_CLAIM, sort=False):
        by_data = rows.set_index("data").loc[names]
        cells = [
            f"{row.difference_pct:+.1f} [{row.low_pct:.1f}, {row.high_pct:.1f}]"
            for row in by_data.itertuples()
        ]
        numbers = ", ".join(f"{number:.0f}" for number in by_data["backbones"])
        seen = ", ".join(f"{width:.1f}" for width in by_data["half_width_pct"])
        lines.append([*claim, *cells, numbers, rows["verdict"].iloc[0], seen])
    return lines


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("comparisons", nargs="*", type=Path, metavar="COMPARISONS")
    parser.add_argument("--gains", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--out", required=True, type=Path, help="FILE.csv or FILE.md")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        check_out(args.out)
        if not args.comparisons and not args.gains:
            raise ValueError("name COMPARISONS or --gains")
        tables = [*map(read_comparisons, args.comparisons), *map(read_gains, args.gains)]
        judged = judge(pd.concat(tables, ignore_index=True)).assign(command=command_line())
        rows = judged.reindex(columns=COLUMNS).to_dict("records")
        write_rows_or_table(args.out, COLUMNS, rows, to_lines(judged))
    verdicts = judged.drop_duplicates(_CLAIM)["verdict"]
    print_result({"out": str(args.out), **verdicts.value_counts().to_dict()})


if __name__ == "__main__":
    run(main, get_args_parser())
