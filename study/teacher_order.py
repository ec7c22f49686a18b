"""Does the flatness of streams predict which order of teachers distils best?

    python -m study.teacher_order results/ucf101_7 results/jhmdb_21 --out results/orders.csv

STUDY: a folder with exits.csv of study.collect and, of the same backbones, flatness*.csv of
study.flatness. Each data set and split in it is one backbone. Its exits are trained in all six
orders, by methods of their names: mv_residual_iframe, mv_iframe_residual ... (docs/teacher_order.md
has the command).

Each measure of flatness gives an order of a backbone's streams, flattest first. top1_pct gives one,
weakest first: of the part that flatness was measured on and, where STUDY has points.csv of
study.over_time for streams that are only summed, of held-out videos, all segments read. `published`
is motion vectors, residuals, I-frames. The CSV file has a row for each
backbone, measure and exit, and for the mean of the exits: the rank among the six orders by test
top-1 (a mean over seeds, without WISE), and the gain over the mean of the other five, in points.
Means over backbones are printed. A measure that predicts nothing has the rank 3.5 and gains 0.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from coviar.command import run
from coviar.files import check_out
from early_exit.wise import FULL
from models import STREAMS
from study import flatness
from study.columns import TEXTS
from study.run_tables import read_rows, write_rows
from study.summary import each_once, how_made, read_exits, read_table, where
from study.tables import spread, to_markdown
from training.options import make_parser, refusing
from training.provenance import command_line, print_result

PUBLISHED_ORDER = ("mv", "residual", "iframe")
# The orders of teachers, by the name of the method that trains exits so.
ORDERS = {"_".join(order): order for order in itertools.permutations(PUBLISHED_ORDER)}
# Of all measures less is earlier: flatter, or weaker.
MEASURES = ("top1_pct", "random", "worst", "hessian_trace", "relative_trace")
MEAN = "mean"  # in the column exit: of the exits
_MEASURED_BY = ["measure", "part", "radius"]
COLUMNS = [
    *("study", "data", "split", "backbone_digest", *_MEASURED_BY, "exit", "order"),
    *("top1_pct", "others_top1_pct", "gain_pct", "rank", "seeds", "command"),
]
_BACKBONE = ["data", "split"]


def read_tables(study: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test top-1 of the exits of all six orders, and the rows of flatness.

    Raises as `read_exits`, and ValueError where a backbone lacks flatness or an order, where the
    orders have other seeds, exits, GMACs or protocols, or where flatness is of several backbones of
    one split.
    """
    exits = read_exits(study)
    exits = exits[exits["method"].isin(ORDERS) & (exits["exit"] != FULL)]
    files = sorted(study.glob("flatness*.csv"))
    if not files:
        raise FileNotFoundError(f"{study} has no flatness*.csv; study.flatness writes it")
    required = [name for name in flatness.COLUMNS if name not in ("radius", "draws", "std_error")]
    how = flatness.COLUMNS, "study.flatness", required, ["value"]
    found = [row for file in files for row in read_rows(file, *how, is_input=True)]
    flat = pd.DataFrame(found, columns=flatness.COLUMNS).astype({"value": float})
    flat = pd.concat([flat, *_heldout_top1(study / "points.csv", flat)], ignore_index=True)
    measured, trained = (set(map(tuple, table[_BACKBONE].values)) for table in (flat, exits))
    for backbone in sorted(measured | trained):
        own = dict(zip(_BACKBONE, backbone))
        name = " ".join([str(study), *backbone])
        _check(name, where(exits, **own), where(flat, **own))
    return exits, flat


def _heldout_top1(path: Path, flat: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Rows as flatness has them, of the streams on all segments, for each backbone of `flat` whose
    held-out top-1 study.over_time counted and study.flatness did not."""
    if not path.is_file():
        return
    required = [*_BACKBONE, "part", "evidence", "point", "top1_pct"]
    points = read_table(path, TEXTS, "study.over_time", required)
    points = where(points, part="heldout", evidence="logits")
    points[["stream", "segments"]] = points["point"].str.extract(r"^(.*)@(\d+)$").to_numpy()
    points = points[points["stream"].isin(STREAMS)].astype({"segments": int})
    for backbone, own in flat.groupby(_BACKBONE, sort=False):
        alone = where(points, **dict(zip(_BACKBONE, backbone)))
        alone = alone[alone["segments"] == alone["segments"].max()]
        if set(alone["stream"]) == set(STREAMS) and where(own, part="heldout").empty:
            top1 = alone.groupby("stream")["top1_pct"].mean()
            rows = own.drop_duplicates("stream").set_index("stream", drop=False)
            about = {"measure": "top1_pct", "part": "heldout", "radius": "", "draws": ""}
            yield rows.assign(**about, value=top1, std_error="").reset_index(drop=True)


def _check(name: str, exits: pd.DataFrame, flat: pd.DataFrame) -> None:
    """Raise ValueError, naming the backbone, where rows are missing or are of several backbones."""
    if flat.empty:
        raise ValueError(f"{name}: no flatness; python -m study.flatness measures it")
    if flat.duplicated([*_MEASURED_BY, "stream"]).any():
        raise ValueError(f"{name}: flatness of several backbones; a study has one of each split")
    if (flat.groupby("part")["stream"].nunique() < len(STREAMS)).any():
        raise ValueError(f"{name}: flatness of some streams only; the same command goes on")
    seeds = exits.groupby("method")["seed"].agg(lambda found: tuple(sorted(set(found))))
    missing = [method for method in ORDERS if method not in seeds]
    if missing:
        raise ValueError(f"{name}: exits.csv lacks the orders {', '.join(missing)}")
    if seeds.nunique() > 1:
        raise ValueError(f"{name}: the orders have exits of different seeds: {dict(seeds)}")
    if len({how_made(found) for _, found in exits.groupby("method")}) > 1:
        raise ValueError(f"{name}: the orders have other exits, GMACs or protocols")


def exit_top1(exits: pd.DataFrame) -> pd.DataFrame:
    """Top-1 by method (rows) and exit, MEAN last (columns) of one backbone: means over seeds."""
    table = exits.pivot_table("top1_pct", "method", "exit").loc[list(ORDERS)]
    return table.assign(**{MEAN: table.mean(axis=1)})


def order_by(value_of: dict[str, float]) -> str:
    """The order of rising values; of equal ones the first of PUBLISHED_ORDER is earlier."""
    return "_".join(sorted(PUBLISHED_ORDER, key=value_of.__getitem__))


def orders_of(flat: pd.DataFrame) -> Iterator[tuple[dict, str]]:
    """(measure, part, radius) and the order by it, of one backbone's rows of flatness."""
    yield dict.fromkeys(_MEASURED_BY, "") | {"measure": "published"}, "_".join(PUBLISHED_ORDER)
    for measure in MEASURES:
        for key, rows in where(flat, measure=measure).groupby(_MEASURED_BY, sort=False):
            yield dict(zip(_MEASURED_BY, key)), order_by(dict(zip(rows["stream"], rows["value"])))


def order_rows(exits: pd.DataFrame, flat: pd.DataFrame) -> Iterator[dict]:
    """A row for each measure and exit of one backbone. Rank 1 is the best; equal ones share it."""
    top1 = exit_top1(exits)
    ranks = top1.round(9).rank(ascending=False)
    for about, order in orders_of(flat):
        others = top1.drop(order).mean()
        for exit_ in top1:
            yield {
                **about,
                **{"exit": exit_, "order": order, "top1_pct": top1.loc[order, exit_]},
                **{"others_top1_pct": others[exit_], "rank": ranks.loc[order, exit_]},
                "gain_pct": top1.loc[order, exit_] - others[exit_],
            }


def study_rows(study: Path) -> list[dict]:
    """The rows of all backbones in a study's folder; raises as `read_tables`."""
    exits, flat = read_tables(study)
    rows = []
    for backbone, found in flat.groupby(_BACKBONE, sort=False):
        own = where(exits, **dict(zip(_BACKBONE, backbone)))
        about = {
            **{"study": study.name, **dict(zip(_BACKBONE, backbone))},
            **{"backbone_digest": found["backbone_digest"].iloc[0], "command": command_line()},
            "seeds": own["seed"].nunique(),
        }
        rows += [{**about, **row} for row in order_rows(own, found)]
    return rows


def rows_of(studies: Sequence[Path]) -> list[dict]:
    """The rows of all studies; raises as `study_rows`, and where a backbone is in two of them."""
    rows, known = [], {}
    for study in studies:
        for row in study_rows(study):
            backbone = tuple(row[name] for name in (*_BACKBONE, "backbone_digest"))
            other = known.setdefault(backbone, study)
            if other is not study:
                names = " ".join(backbone)
                raise ValueError(f"{names} is in {other} and in {study}: name each once")
            rows.append(row)
    return rows


def summary_table(rows: Sequence[dict]) -> list[list[str]]:
    """Header and rows: per measure the mean gain at each exit and the rank, over backbones."""
    table = pd.DataFrame(rows)
    exits = list(dict.fromkeys(table["exit"]))
    heads = [f"gain, {name}" if name == MEAN else f"gain at {name}" for name in exits]
    lines = [[*_MEASURED_BY, "backbones", *heads, "rank", "best order"]]
    for key, found in table.groupby(_MEASURED_BY, sort=False):
        gains = [spread(where(found, exit=name)["gain_pct"]) for name in exits]
        ranks = where(found, exit=MEAN)["rank"]
        best = f"{(ranks == 1).sum()} of {len(ranks)}"
        lines.append([*key, str(len(ranks)), *gains, spread(ranks), best])
    return lines


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY")
    parser.add_argument("--out", type=Path, required=True, help="CSV file")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        check_out(args.out)
        each_once(args.studies)
        rows = rows_of(args.studies)
        write_rows(args.out, COLUMNS, rows)
    print(to_markdown(summary_table(rows)))
    print("± is the sample standard deviation over backbones; gains in points of test top-1.")
    backbones = {row["backbone_digest"] for row in rows}
    print_result({"out": str(args.out), "backbones": len(backbones)})


if __name__ == "__main__":
    run(main, get_args_parser())
