"""What a user would pick: top-1 against GMACs of exits, segments, single streams and the probe.

    python -m study.frontier results/ucf101_13/split*/backbone* \\
        --method prog_kd --out results/ucf101_13/frontier.csv --figures figures/ucf101_13

STUDY: folders of study.collect of one data set, each with a backbone of one or more splits, with
points.csv of study.over_time and, for probes on fewer frames, probes.csv of study.probes. Writes
the mean and the standard deviation over the backbones (all splits of all folders) of every way to a
label:

    depth     exit1, .. full on all segments, of --method, seeds averaged, logits summed
    segments  full@1, .. the whole network on the first segments in reading order
    streams   a stream alone on all segments (or on the first), where streams are summed
    probe     the linear probe on I-frames (train_i_frame_probe.py), also on fewer of them

and draws them, with bars of the standard deviation.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from coviar.command import run
from coviar.files import check_out
from early_exit.wise import FULL
from models import STREAMS
from study import drawing, probes
from study.run_tables import write_rows
from study.summary import (
    BACKBONE_MEANS,
    backbone_means,
    each_once,
    read_exits,
    read_of_study,
    seed_means,
    where,
)
from study.tables import to_markdown
from training.options import folder_name, make_parser, refusing
from training.provenance import command_line, print_result
from training.recipes import PROBE

FAMILIES = {
    "depth": "exits, all segments",
    "segments": "all exits passed, first segments",
    "streams": "one stream alone",
    "probe": "linear probe on I-frames",
}
WAY = ["family", "way"]
COLUMNS = ["data", *WAY, *BACKBONE_MEANS, "method", "command"]


def read_ways(folder: Path, method: str) -> pd.DataFrame:
    """Rows of study, data, split, family, way, gmacs and top1_pct.

    Raises as `read_exits`, and ValueError where the method is missing.
    """

    exits = where(read_exits(folder), method=method)
    if exits.empty:
        raise ValueError(f"{folder}/exits.csv has no test rows of {method}")
    points = read_of_study(folder, "points.csv", "study.over_time")
    points = where(points, part="test", evidence="logits", method=method)
    depths = points["point"].str.split("@").str[0]
    baselines = read_of_study(folder, "backbones.csv", may_be_empty=True)
    parts = [
        _family("depth", exits, "exit"),
        _family("segments", points[depths == FULL], "point"),
        _family("streams", points[depths.isin(STREAMS)], "point"),
        _family("probe", where(baselines, method=PROBE), "method"),
    ]
    if (folder / probes.NAME).is_file():
        probed = read_of_study(folder, probes.NAME, "study.probes")
        names = probed["method"] + "@" + probed["frames"].astype(str)
        parts.append(_family("probe", probed.assign(method=names), "method"))
    ways = pd.concat(parts)
    uncounted = ways.loc[ways["gmacs"].isna(), "way"]
    if len(uncounted):
        raise ValueError(f"{folder} has no GMACs of {uncounted.iloc[0]}: collect its run again")
    return ways.assign(study=str(folder))


def _family(name: str, rows: pd.DataFrame, way: str) -> pd.DataFrame:
    return seed_means(rows.assign(family=name, way=rows[way]), WAY)


@drawing.styled
def draw(rows: pd.DataFrame) -> Figure:
    """Top-1 against GMACs, a line for each family, bars of the standard deviation.

    rows: of `backbone_means`, or of the CSV file of one data set.
    """
    looks = drawing.marks([FAMILIES[name] for name in FAMILIES if name in set(rows["family"])])
    figure, axes = drawing.new_figure(drawing.ONE_COLUMN, 2.8, 1, 1)
    axis = axes[0, 0]
    for name, words in FAMILIES.items():
        part = rows[rows["family"] == name].sort_values("gmacs")
        if part.empty:
            continue
        look = {**looks[words], **({} if name in ("depth", "segments") else {"linestyle": ""})}
        bars = {"yerr": part["std_over_backbones_pct"].fillna(0), "elinewidth": 0.5, "capsize": 1}
        axis.errorbar(part["gmacs"], part["top1_pct"], **bars, **look)
    axis.set_xlabel("GMACs a video")
    axis.set_ylabel(drawing.TOP1)
    drawing.grid(axis)
    drawing.add_legend(figure, looks, columns=2)
    numbers = " or ".join(map(str, sorted(set(rows["backbones"]))))
    drawing.add_caption(
        figure,
        f"{rows['data'].iloc[0]}: means over {numbers} backbones;",
        "bars are the sample standard deviation.",
    )
    return figure


def _top1(row: tuple) -> str:
    mean, std = f"{row.top1_pct:.1f}", row.std_over_backbones_pct
    return mean if row.backbones == 1 else f"{mean} ± {std:.1f}"


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY")
    parser.add_argument(
        "--method", type=folder_name, default="prog_kd", help="whose exits (prog_kd)"
    )
    parser.add_argument("--out", required=True, type=Path, help="CSV file")
    parser.add_argument("--figures", required=True, type=Path, metavar="FOLDER")
    return parser


def write(studies: Sequence[Path], method: str, out: Path, figures: Path) -> list[Path]:
    """Table and figure; returns the figure's files. Raises as `read_ways`, `each_once` and
    `backbone_means`."""
    each_once(studies)
    rows = backbone_means(pd.concat([read_ways(folder, method) for folder in studies]), WAY)
    about = {"method": method, "command": command_line()}
    figure = draw(rows)
    write_rows(out, COLUMNS, [{**row, **about} for row in rows.to_dict("records")])
    header = ["family", "way", "GMACs", "top-1 %", "n"]
    lines = [
        [row.family, row.way, f"{row.gmacs:.2f}", _top1(row), str(row.backbones)]
        for row in rows.itertuples()
    ]
    print(to_markdown([header, *lines]))
    return drawing.save(figure, figures, "frontier")


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        check_out(args.out)
        figures = write(args.studies, args.method, args.out, args.figures)
    print_result({"out": str(args.out), "figures": [str(path) for path in figures]})


if __name__ == "__main__":
    run(main, get_args_parser())
