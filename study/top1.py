"""Top-1 of every method at every exit: means over backbones.

    python -m study.top1 results/ucf101_13/split*/backbone* --out results/ucf101_13/top1.md

STUDY: folders of study.collect of one data set, each with a backbone of one or more splits. Test
videos, logits summed as published, seeds of the exits of a backbone averaged; ± is the sample
standard deviation over backbones (all splits of all folders). The baselines are in backbones.csv:
the probe on I-frames and, at `full`, the whole network and its single streams. The table is
printed, and is the file where that ends in .md; a CSV file has the rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from coviar.command import run
from coviar.files import check_out
from early_exit.wise import FULL
from models import STREAMS
from study.summary import (
    BACKBONE_MEANS,
    backbone_means,
    each_once,
    read_exits,
    read_of_study,
    seed_means,
    where,
)
from study.tables import spread, write_rows_or_table
from training.options import make_parser, refusing
from training.provenance import command_line, print_result
from training.recipes import PROBE

WAY = ["method", "exit"]
COLUMNS = ["data", *WAY, *BACKBONE_MEANS, "command"]
_BACKBONE = ["study", "split"]


def read_top1(folder: Path) -> pd.DataFrame:
    """Rows of study, data, split, method, exit, gmacs and top1_pct: means over seeds.

    The method of a stream is its name, after that of its network where a study has several. Raises
    as `read_exits` and `read_of_study`.
    """
    baselines = read_of_study(folder, "backbones.csv", may_be_empty=True)
    alone = baselines["output"].isin(STREAMS)
    probe = (baselines["method"] == PROBE) & (baselines["output"] == "fused")
    networks = baselines.loc[alone, "method"].nunique()
    names = baselines["output"]
    baselines.loc[alone, "method"] = baselines["method"] + " " + names if networks > 1 else names
    baselines.loc[alone, "gmacs"] = float("nan")  # theirs are of the whole network
    rows = pd.concat([baselines[probe | alone].assign(exit=FULL), read_exits(folder)])
    return seed_means(rows, WAY).assign(study=str(folder))


def to_lines(rows: pd.DataFrame) -> list[list[str]]:
    """Header and rows: a method a line, its exits in order, and how many backbones it has."""
    exits = [name for name in dict.fromkeys(rows["exit"]) if name != FULL] + [FULL]
    lines = [["method", *exits, "GMACs", "backbones"]]
    for method, own in rows.groupby("method", sort=False):
        cells = [spread(where(own, exit=name)["top1_pct"], 1) for name in exits]
        costs = own.groupby("exit")["gmacs"].mean().reindex(exits).dropna()
        numbers = len(own.drop_duplicates(_BACKBONE))
        lines.append([method, *cells, ", ".join(map("{:.2f}".format, costs)), str(numbers)])
    return lines


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY")
    parser.add_argument("--out", required=True, type=Path, help="FILE.csv or FILE.md")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        check_out(args.out)
        each_once(args.studies)
        rows = pd.concat([read_top1(folder) for folder in args.studies])
        means = backbone_means(rows, WAY).assign(command=command_line())
        write_rows_or_table(args.out, COLUMNS, means.to_dict("records"), to_lines(rows))
    print_result({"out": str(args.out), "backbones": len(rows.drop_duplicates(_BACKBONE))})


if __name__ == "__main__":
    run(main, get_args_parser())
