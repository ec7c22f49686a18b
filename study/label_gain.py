"""What teachers gain over labels, by the number of labels: the cases of study.few_labels compared.

    python -m study.label_gain results/few_labels/*/split*/backbone* \\
        --out results/few_labels/gains.csv --figures figures

FOLDER: of study.few_labels, with one backbone or several. Every case of a teacher is compared with
the labels it stands beside: beside unlabelled videos with as many labelled clips a class; on the
first list alone with each share of wrong labels, and with none. The difference is of the mean top-1
of the exits, paired by video, seeds averaged; its interval is a bootstrap over backbones, then over
recordings of their test videos (study.paired). One row for each data set, teacher and comparison,
and Markdown tables on standard output; with --figures the figure few_labels too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coviar.command import run
from coviar.files import check_out
from study import drawing
from study.columns import BACKBONE
from study.few_labels import ALL, CASE, LABELS, RECORDINGS, TEACHERS, all_cases
from study.paired import Units, check_same_videos, over_backbones
from study.run_tables import write_rows
from study.summary import read_table
from study.tables import to_markdown
from training.options import make_parser, refusing
from training.provenance import command_line, print_result

COLUMNS = ["data", "teacher", *CASE[1:], "top1_pct", "labels_top1_pct", "difference_pct"]
COLUMNS += ["low_pct", "high_pct", "std_over_backbones_pct", "std_over_splits_pct"]
COLUMNS += ["backbones", "command"]
# Of the figure: what stands beside the labelled clips, what is varied and its words; teachers.
PANELS = (("1", "per_class", "labelled clips a class"), ("0", "wrong_pct", "wrong labels (%)"))
NAMES = {LABELS: "labels", "fused": "sum of streams", "prog_kd": "PKD's curriculum"}


def read_recordings(folder: Path) -> pd.DataFrame:
    """recordings.csv with a column `right`: the share of right answers, a mean over the exits.

    Raises FileNotFoundError, and ValueError for another file.
    """
    path = folder / "recordings.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; python -m study.few_labels writes it")
    texts = [*BACKBONE, *CASE, "recording"]
    table = read_table(path, texts, "study.few_labels", [*BACKBONE, *CASE, "num_videos"])
    exits = [name for name in table if name not in RECORDINGS]
    if list(table) != [*RECORDINGS, *exits] or not exits:
        raise ValueError(f"{path} is no file of study.few_labels")
    return table.assign(right=table[exits].mean(axis=1) / table["num_videos"])


def pairs(table: pd.DataFrame) -> Iterator[tuple[dict, dict]]:
    """A case of a teacher, and the one of labels that it is compared with, as in CASE."""
    cases = table[CASE].drop_duplicates().to_dict("records")
    for case in cases:
        for other in cases:
            beside = case["unlabelled"] == "1" and other["wrong_pct"] == "0"
            alone = case["unlabelled"] == "0" and other["per_class"] == ALL
            same = case["per_class"] == other["per_class"] and (beside or alone)
            if case["teacher"] in TEACHERS and other["teacher"] == LABELS and same:
                yield case, other


def of_case(table: pd.DataFrame, case: dict) -> dict[tuple, pd.DataFrame]:
    """The rows of a case by backbone, recordings as index."""
    rows = table[(table[CASE] == pd.Series(case)).all(axis=1)]
    return {key: found.set_index("recording") for key, found in rows.groupby(BACKBONE)}


def read_all(folders: Sequence[Path]) -> pd.DataFrame:
    """The tables of all folders, and of each row its folder. Raises as `read_recordings`, and
    ValueError where a backbone is in two of them, or twice in one, where they have other exits, and
    where a backbone lacks a case, or a case test videos."""
    tables = list(map(read_recordings, folders))
    for folder, own in zip(folders, tables):
        if list(own) != list(tables[0]):
            raise ValueError(f"{folder}: {_exits(own)}, but {folders[0]}: {_exits(tables[0])}")
    tables = [own.assign(folder=str(folder)) for folder, own in zip(folders, tables)]
    table = pd.concat(tables, ignore_index=True)
    repeated = table[table.duplicated([*BACKBONE, *CASE, "recording"])]
    if len(repeated):
        raise ValueError(f"{' '.join(repeated.iloc[0][BACKBONE])} is there twice: name it once")
    _check_cases(table)
    _check_videos(table)
    return table


def _check_cases(table: pd.DataFrame) -> None:
    """Raise ValueError where a backbone lacks a case that study.few_labels trains with all numbers
    of labels and shares of wrong ones of its data set."""
    for _, of_data in table.groupby("data"):
        numbers = [number for number in of_data["per_class"].unique() if number != ALL]
        shares = [float(share) for share in of_data["wrong_pct"].unique() if share != "0"]
        for _, own in of_data.groupby(BACKBONE):
            there = set(map(tuple, own[CASE].to_numpy()))
            for case in all_cases(numbers, shares):
                if tuple(case.key.values()) not in there:
                    raise _lacks(own, f"the case {_words(case.key)}", case.key)


def _check_videos(table: pd.DataFrame) -> None:
    """Raise ValueError where a case lacks test videos that another of its backbone has."""
    for _, own in table.groupby(BACKBONE):
        videos = own.pivot(index="recording", columns=CASE, values="num_videos")
        lacks = videos.ne(videos.max(axis=1), axis=0).any()
        if lacks.any():
            case = dict(zip(CASE, lacks.idxmax()))
            raise _lacks(own, f"test videos of {_words(case)}", case)


def _lacks(backbone: pd.DataFrame, what: str, case: dict) -> ValueError:
    rows = backbone[(backbone[CASE] == pd.Series(case)).all(axis=1)]
    row = (rows if len(rows) else backbone).iloc[0]
    return ValueError(
        f"{row['folder']}: {' '.join(row[BACKBONE])} lacks {what}: remove the rows of this case"
        " from cases.csv there, and python -m study.few_labels makes it again"
    )


def _words(case: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in case.items())


def _exits(table: pd.DataFrame) -> str:
    return ", ".join(name for name in table if name not in (*RECORDINGS, "right"))


def gains(data: str, table: pd.DataFrame) -> Iterator[dict]:
    """The rows of one data set. Raises ValueError where a backbone lacks one of two cases,
    and as `check_same_videos`."""
    for case, other in pairs(table):
        first, second = of_case(table, case), of_case(table, other)
        if first.keys() != second.keys():
            raise ValueError(f"{data}: {case} and {other} are of different backbones")
        units, shares = [], []
        for key in first:
            both = first[key].join(second[key]["right"].rename("right_labels"))
            videos = both["num_videos"].to_numpy()
            shares.append([np.average(both[c], weights=videos) for c in ("right", "right_labels")])
            gain = (both["right"] - both["right_labels"]).to_numpy() * videos
            units.append(Units(both.index.to_numpy(), gain[:, None], videos))
        check_same_videos(list(first), units)
        found = over_backbones([split for _, split, _ in first], units)
        top1, labels = 100 * np.mean(shares, axis=0)
        yield {
            **{"data": data, **case, "wrong_pct": other["wrong_pct"]},
            **{"top1_pct": top1, "labels_top1_pct": labels, "difference_pct": found.mean[0]},
            **{"low_pct": found.low[0], "high_pct": found.high[0]},
            "std_over_backbones_pct": found.std_over_runs[0],
            "std_over_splits_pct": found.std_over_splits[0],
            **{"backbones": len(first), "command": command_line()},
        }


def tables(rows: Sequence[dict]) -> Iterator[str]:
    for unlabelled, words in (("1", "beside unlabelled videos"), ("0", "on labelled videos alone")):
        lines = [["data", "labelled a class", "wrong %", "teacher", "labels", "teacher's", "gain"]]
        for row in rows:
            if row["unlabelled"] == unlabelled:
                interval = f"[{row['low_pct']:+.1f}, {row['high_pct']:+.1f}]"
                numbers = f"{row['labels_top1_pct']:.1f}", f"{row['top1_pct']:.1f}"
                gain = f"{row['difference_pct']:+.1f} {interval} (n = {row['backbones']})"
                name = [row["data"], row["per_class"], row["wrong_pct"], row["teacher"]]
                lines.append([*name, *numbers, gain])
        yield f"Top-1 %, mean of the exits, {words}\n\n{to_markdown(lines)}"


@drawing.styled
def draw(rows: pd.DataFrame) -> Figure:
    """Mean top-1 of the exits against the number and the quality of labels, a row a data set.

    rows: of the CSV file. Bars are the interval of the gain, at the teacher's mean.
    """
    rows = rows.astype({name: str for name in CASE})
    looks = drawing.marks(list(NAMES.values()))
    names = list(dict.fromkeys(rows["data"]))
    size = drawing.ONE_COLUMN, 1.3 + 1.4 * len(names)
    figure, axes = drawing.new_figure(*size, len(names), 2, sharey="row")
    for data, line in zip(names, axes):
        for axis, (unlabelled, varied, _) in zip(line, PANELS):
            part = rows[(rows["data"] == data) & (rows["unlabelled"] == unlabelled)]
            labels = part.drop_duplicates(varied)  # the same beside every teacher
            places = {value: x for x, value in enumerate(labels[varied])}
            axis.plot(range(len(labels)), labels["labels_top1_pct"], **looks[NAMES[LABELS]])
            for teacher, found in part.groupby("teacher", sort=False):
                gain, low, high = (found[f"{name}_pct"] for name in ("difference", "low", "high"))
                axis.errorbar(
                    found[varied].map(places), found["top1_pct"], (gain - low, high - gain),
                    elinewidth=0.5, **looks[NAMES[teacher]],
                )  # fmt: skip
            axis.set_xticks(range(len(places)), list(places))
            axis.set_title(
                f"{data}, {'with unlabelled' if unlabelled == '1' else 'labelled'} clips"
            )
            drawing.grid(axis)
        line[0].set_ylabel(drawing.TOP1)
    for axis, (*_, words) in zip(axes[-1], PANELS):
        axis.set_xlabel(words)
    drawing.add_legend(figure, looks, columns=3)
    numbers = " or ".join(map(str, sorted(set(rows["backbones"]))))
    drawing.add_caption(
        figure,
        f"Exits taught by labels or by the backbone's streams, means over the exits and "
        f"{numbers} backbones; bars are 95 % intervals of the gain over labels.",
    )
    return figure


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True, help="CSV file")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="draws there")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    paths = []
    with refusing(parser):
        check_out(args.out)
        by_data = read_all(args.folders).groupby("data", sort=False)
        rows = [row for data, table in by_data for row in gains(data, table)]
        figure = draw(pd.DataFrame(rows)) if args.figures else None
        print("\n\n".join(tables(rows)))
        write_rows(args.out, COLUMNS, rows)
        if figure:
            paths = drawing.save(figure, args.figures, "few_labels")
    print_result({"out": str(args.out), "rows": len(rows), "figures": [str(p) for p in paths]})


if __name__ == "__main__":
    run(main, get_args_parser())
