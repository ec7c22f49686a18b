"""Read a study's CSV files, and average them over seeds and splits.

A study is a folder written by `python -m study.collect`. Averages are over runs, that is over all
seeds and splits of one method, and the spread is the sample standard deviation. Only numbers on
test videos are averaged, and only within a setting: data set, protocol, cost of the exits, and goal
of the calibration.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataset_team.csv_rows import read_csv_text
from early_exit.wise import FULL
from study.columns import ALL, RUN, STUDY_COLUMNS, TEXTS, TIMES

# In the order in which tables and figures show them.
METHOD_LABELS = {
    "team_ce": "CE",
    "prog_kd": "PKD",
    "prog_kd_anti": "anti-curriculum PKD",
    "i_frame": "I-frame teacher",
}
COMBINATION_LABELS = {"vanilla": "vanilla", "constant": "constant", "wise": "WISE"}
# Empty where nobody left, where an older run does not tell, or where nobody measured.
MISSING = dict.fromkeys(("top1_pct", "gmacs", *TIMES), [""])
# Shares that leave are shown for one policy: the paper's weights with the paper's rule.
SHOWN = {"combination": "wise", "rule": "common"}
REQUIRED = {*RUN, "part", "combination", "exit", "point", "output", "share_pct", "num_videos"}
REQUIRED |= {"threshold", "beta", "left", "correct"}
NUMBERS = {
    **{"seed": "int64", "num_videos": "int64", "left": "int64", "correct": "int64"},
    **dict.fromkeys(("top1_pct", "share_pct", "gmacs", *TIMES, "threshold", "beta"), "float64"),
}
COUNTS = [name for name, kind in NUMBERS.items() if kind == "int64"]
BACKBONE_MEANS = ["gmacs", "top1_pct", "std_over_backbones_pct", "backbones"]


@dataclass(frozen=True)
class Study:
    """A study's tables, or those of one of its settings. Columns: see study.columns.

    runs: those of exits; how the backbones were made is only in runs.csv itself.
    """

    name: str
    runs: pd.DataFrame
    exits: pd.DataFrame
    trade_off: pd.DataFrame
    policies: pd.DataFrame
    weights: pd.DataFrame
    decisions: pd.DataFrame
    backbones: pd.DataFrame

    def settings(self) -> list[Study]:
        """Studies of one setting each, whose runs may be averaged and compared; at least one."""
        keys = _setting_keys(self)
        found = []
        for _, runs in keys.groupby("setting", sort=False):
            tables = {
                name: getattr(self, name).merge(runs[RUN], on=RUN)
                for name in ("runs", "exits", "trade_off", "policies", "weights", "decisions")
            }
            below = ["data", "split"]
            tables["backbones"] = self.backbones.merge(runs[below].drop_duplicates(), on=below)
            found.append(Study(self.name, **tables))
        return found

    @property
    def data(self) -> str:
        return self.exits["data"].iloc[0]

    @property
    def points(self) -> list[str]:
        """Decision points in order: exit1, .., full."""
        return list(dict.fromkeys(self.exits["exit"]))

    @property
    def methods(self) -> list[str]:
        """In the order of METHOD_LABELS; others come last."""
        found = set(self.exits["method"])
        return [name for name in METHOD_LABELS if name in found] + sorted(found - {*METHOD_LABELS})

    @property
    def costs(self) -> dict[str, float]:
        """gmacs per video of leaving at each decision point."""
        return self.exits.groupby("exit", sort=False)["gmacs"].first().to_dict()

    def protocol(self) -> str:
        """Protocol, test videos and runs in one sentence each, for captions."""
        with_wise = self.runs["wise_protocol"].iloc[0]
        videos = ", ".join(map(str, sorted(self.exits["num_videos"].unique())))
        splits = ", ".join(sorted(self.exits["split"].unique()))
        seeds = ", ".join(map(str, sorted(self.exits["seed"].unique())))
        runs = sorted(self.runs.groupby("method").size().unique())
        per_method = " to ".join(map(str, dict.fromkeys((runs[0], runs[-1]))))
        return (
            f"Protocol: {with_wise}. Test videos: {videos}. Splits: {splits}; seeds: {seeds}; "
            f"n = {per_method} runs per method."
        )

    def calibration(self) -> str:
        """What the calibrated thresholds were chosen for, and on what."""
        row = self.policies.iloc[0]
        return f"{row['goal']}, chosen on {row['select_on']} videos"


def read_table(
    path: str | os.PathLike,
    texts: Sequence[str],
    script: str,
    required: Collection[str] = (),
    may_be_empty: bool = False,
) -> pd.DataFrame:
    """A CSV file that `script` wrote. Its columns `texts` are text even where they look like a
    number or a missing value ("null"); the others are numbers, an empty cell is NaN.

    Raises as `read_csv_text`.
    """
    found = read_csv_text(path, script, required, None, texts=texts, may_be_empty=may_be_empty)
    missing = {name: [""] for name in found.header if name not in texts}
    kinds = dict.fromkeys(texts, str)
    text = io.StringIO(found.text)
    return pd.read_csv(text, dtype=kinds, keep_default_na=False, na_values=missing)


def each_once(folders: Sequence[Path]) -> None:
    """Raise ValueError where one folder, or one exits.csv, is there twice: it would count twice."""
    known: dict[object, Path] = {}
    for folder in folders:
        exits = folder / "exits.csv"
        for what in (folder.resolve(), exits.read_bytes() if exits.is_file() else folder):
            other = known.setdefault(what, folder)
            if other is not folder:
                raise ValueError(f"{folder} holds what {other} holds: name each backbone once")


def read_of_study(
    folder: Path,
    name: str,
    script: str = "study.collect",
    required: Collection[str] = ("data", "split", "method", "top1_pct"),
    may_be_empty: bool = False,
) -> pd.DataFrame:
    """A table that `script` wrote into a study's folder, which need not be whole.

    Raises FileNotFoundError, and as `read_table`.
    """
    if not (folder / name).is_file():
        raise FileNotFoundError(f"{folder / name} is missing; {script} writes it")
    return read_table(folder / name, TEXTS, script, required, may_be_empty)


def read_exits(folder: Path) -> pd.DataFrame:
    """Test top-1 of each run's exits, logits summed as published, of a study's folder.

    Raises as `read_of_study`, and ValueError where there is none, and where the runs of a method
    were not made alike.
    """
    exits = read_of_study(folder, "exits.csv")
    if list(exits) != STUDY_COLUMNS["exits.csv"]:
        raise ValueError(
            f"{folder}/exits.csv: python -m study.collect writes it anew, with the right columns"
        )
    exits = where(exits, part="test", combination="vanilla")
    if exits.empty:
        raise ValueError(f"{folder}/exits.csv has no test rows")
    runs = read_of_study(folder, "runs.csv", required=[*RUN, "protocol"])
    exits = exits.merge(runs[[*RUN, "protocol"]], on=RUN, how="left")
    for (data, method), own in exits.groupby(["data", "method"], sort=False):
        if len({how_made(found) for _, found in own.groupby(RUN)}) > 1:
            raise ValueError(
                f"{folder}: the runs of {data} {method} have other exits, GMACs or protocols;"
                " collect those that were made alike into a folder of their own"
            )
    return exits


def how_made(exits: pd.DataFrame) -> frozenset:
    """What exits that are averaged or compared have in common: which they are, their GMACs, and
    the protocol. exits: rows of `read_exits`."""
    return frozenset(zip(exits["exit"], exits["gmacs"].fillna(-1).round(6), exits["protocol"]))


def seed_means(rows: pd.DataFrame, way: Sequence[str]) -> pd.DataFrame:
    """gmacs and top1_pct by data, split and the columns `way`: means over the seeds."""
    groups = rows.groupby(["data", "split", *way], as_index=False, sort=False)
    return groups[["gmacs", "top1_pct"]].mean()


def backbone_means(rows: pd.DataFrame, way: Sequence[str]) -> pd.DataFrame:
    """Columns data, `way` and BACKBONE_MEANS: over backbones, a row for each way to a label.

    rows: of columns study, data, gmacs, top1_pct and `way`, one for each backbone. Raises
    ValueError for several data sets, and where a way costs other GMACs in one than in another.
    """
    if rows["data"].nunique() > 1:
        raise ValueError(f"several data sets: {', '.join(rows['data'].unique())}; one at a time")
    groups = rows.groupby(["data", *way], sort=False)
    for key, own in groups:
        other = own[(own["gmacs"] - own["gmacs"].iloc[0]).abs() > 1e-6]
        if len(other):
            first, second = own["study"].iloc[0], other["study"].iloc[0]
            raise ValueError(
                f"{' '.join(key)} costs other GMACs in {second} than in {first}: average studies"
                " of one network and protocol"
            )
    found = groups.agg(
        gmacs=("gmacs", "mean"),
        top1_pct=("top1_pct", "mean"),
        std_over_backbones_pct=("top1_pct", "std"),
        backbones=("top1_pct", "size"),
    )
    return found.reset_index()


def read_study(folder: str | os.PathLike) -> Study:
    """The CSV files of a study, test videos only; raises FileNotFoundError or ValueError."""
    folder, tables = Path(folder), {}
    script = f"python -m study.collect RUNS --out {folder}"
    again = f"{script} writes"
    for field in dataclasses.fields(Study)[1:]:
        path = folder / f"{field.name}.csv"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; {again} the whole study")
        expected = STUDY_COLUMNS[path.name]
        required = [column for column in expected if column in REQUIRED]
        found = read_csv_text(path, script, required, NUMBERS, whole=COUNTS, may_be_empty=True)
        header = found.header
        untimed = [column for column in expected if column not in TIMES]  # of earlier versions
        if header not in (expected, untimed):
            raise ValueError(
                f"{path}: expected the columns {','.join(expected)}, found {','.join(header)};"
                f" {again} the study anew"
            )
        # Names are text even where they look like numbers, or like a missing value ("null").
        kinds = {name: NUMBERS.get(name, "str") for name in header}
        if field.name == "decisions":
            kinds["confidence"] = "float64"
        table = pd.read_csv(
            io.StringIO(found.text), dtype=kinds, keep_default_na=False, na_values=MISSING
        )
        for column in TIMES if TIMES[0] in expected else ():
            if column not in table:
                table[column] = np.nan
        tables[field.name] = table[table["part"] == "test"] if "part" in table else table
        if field.name != "backbones" and tables[field.name].empty:
            raise ValueError(f"{path} holds no results on test videos")
    known = tables["exits"][RUN].drop_duplicates()
    tables["runs"] = known.merge(tables["runs"], on=RUN)
    if len(tables["runs"]) != len(known):
        raise ValueError(
            f"{folder / 'runs.csv'} does not hold each run of exits.csv once; {again} both"
        )
    return Study(
        folder.name if folder.name != "results" else folder.resolve().parent.name, **tables
    )


def find_studies(results: str | os.PathLike) -> list[Path]:
    """Folders of studies: `results` itself, or those right below it that have all their files.

    A study that is kept without its largest table, decisions.csv, is none to draw.
    """
    results = Path(results)
    below = [path.parent for path in results.glob("*/exits.csv")]
    whole = [folder for folder in below if all((folder / name).is_file() for name in STUDY_COLUMNS)]
    return sorted([*(path.parent for path in results.glob("exits.csv")), *whole])


def where(table: pd.DataFrame, **equal: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    for column, value in equal.items():
        table = table[table[column] == value]
    return table


def mean_std(table: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """mean, std (sample; NaN of one) and n of a column over the runs in each group."""
    grouped = table.groupby(list(by), sort=False)[column]
    return grouped.agg(mean="mean", std="std", n="count").reset_index()


def mean_curves(study: Study) -> pd.DataFrame:
    """method, combination, threshold, gmacs, top1_pct: the sweep, averaged at equal thresholds."""
    by = ["method", "combination", "threshold"]
    return (
        where(study.trade_off, exit=ALL).groupby(by, as_index=False)[["gmacs", "top1_pct"]].mean()
    )


def mean_sweep(study: Study, method: str, combination: str) -> tuple[pd.DataFrame, pd.Series]:
    """By threshold, averaged over runs: share_pct leaving at each decision point, and top1_pct."""
    own = where(study.trade_off, method=method, combination=combination)
    share = own[own["exit"] != ALL].pivot_table("share_pct", "threshold", "exit")
    top1 = where(own, exit=ALL).groupby("threshold")["top1_pct"].mean()
    return share[study.points], top1


def full_top1(study: Study) -> float:
    """Mean top-1 of the network without exits."""
    return where(study.exits, exit=FULL, combination="vanilla")["top1_pct"].mean()


def method_gains(study: Study, method: str, baseline: str, combination: str) -> pd.DataFrame:
    """top1_pct of one method minus another's, per exit, paired over equal splits and seeds.

    Columns split, seed, exit, gain (percentage points); empty when no pair of runs is there.
    """
    table = where(study.exits, combination=combination)
    keys = ["split", "seed", "exit"]
    return _gains(where(table, method=method), where(table, method=baseline), keys)


def combination_gains(study: Study, combination: str, baseline: str) -> pd.DataFrame:
    """top1_pct of one combination minus another's of the same run: method, split, seed, exit, gain.

    Exit 1 has nothing to combine, so its gain is 0.
    """
    keys = ["method", "split", "seed", "exit"]
    table = study.exits
    return _gains(where(table, combination=combination), where(table, combination=baseline), keys)


def _gains(rows: pd.DataFrame, baseline: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    both = rows.merge(baseline, on=keys, suffixes=("", "_baseline"))
    return both[keys].assign(gain=both["top1_pct"] - both["top1_pct_baseline"])


def label(method: str) -> str:
    return METHOD_LABELS.get(method, method)


def _setting_keys(study: Study) -> pd.DataFrame:
    """RUN and `setting`, a tuple of everything that must be equal in runs that are averaged."""

    def distinct(table: pd.DataFrame, *columns: str) -> pd.Series:
        return table.groupby(RUN, sort=False)[list(columns)].apply(
            lambda rows: tuple(rows.drop_duplicates().itertuples(index=False, name=None))
        )

    parts = [
        distinct(study.runs, "protocol", "wise_protocol"),
        distinct(study.exits, "exit", "gmacs"),
        distinct(study.policies, "goal", "select_on", "confidence"),
        distinct(study.trade_off, "threshold"),
    ]
    table = pd.concat(parts, axis=1).reset_index()
    values = table[["data", *range(len(parts))]].itertuples(index=False, name=None)
    return table[RUN].assign(setting=list(values))
