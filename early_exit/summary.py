"""What a study says: its CSV files read, averaged over seeds and splits, and put into tables.

A study is a folder written by `python -m early_exit.collect`. Averages run over runs, that is over
all seeds and splits of one method; the spread is their sample standard deviation. Only numbers of
test videos are averaged, and only those made in one setting: data set, protocol, cost of the exits
and goal of the calibration.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from coviar.files import whole_file

ALL, FULL = "all", "full"
RUN = ["data", "split", "seed", "method"]
# In the order in which tables and figures show them.
METHODS = {
    "team_ce": "CE",
    "prog_kd": "PKD",
    "prog_kd_anti": "anti-curriculum PKD",
    "i_frame": "I-frame teacher",
}
COMBINATIONS = {"vanilla": "vanilla", "constant": "constant", "wise": "WISE"}
# Who leaves where is shown for one policy: the paper's weights with the paper's rule.
SHOWN = {"combination": "wise", "rule": "common"}
NUMBERS = {
    **{"seed": "int64", "num_videos": "int64", "left": "int64", "correct": "int64"},
    **dict.fromkeys(
        ("top1_pct", "share_pct", "gmacs", "threshold", "beta", "temperature"), "float64"
    ),
}


@dataclass(frozen=True)
class Study:
    """A study's tables, or those of one of its settings. Columns: see early_exit.collect."""

    name: str
    exits: pd.DataFrame
    trade_off: pd.DataFrame
    policies: pd.DataFrame
    weights: pd.DataFrame
    decisions: pd.DataFrame
    backbones: pd.DataFrame

    def settings(self) -> list[Study]:
        """The parts of the study whose runs may be averaged and compared, at least one."""
        keys = _setting_keys(self)
        found = []
        for _, runs in keys.groupby("setting", sort=False):
            tables = {
                name: getattr(self, name).merge(runs[RUN], on=RUN)
                for name in ("exits", "trade_off", "policies", "weights", "decisions")
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
        """In the order of METHODS, one's own last."""
        found = set(self.exits["method"])
        return [name for name in METHODS if name in found] + sorted(found - METHODS.keys())

    @property
    def costs(self) -> dict[str, float]:
        """gmacs per video of leaving at each decision point."""
        return self.exits.groupby("exit", sort=False)["gmacs"].first().to_dict()

    @property
    def runs(self) -> pd.DataFrame:
        return self.exits[RUN].drop_duplicates()

    def protocol(self) -> str:
        """Protocol, test videos and runs in one sentence each, for captions."""
        with_wise = self.exits.loc[self.exits["combination"] == "wise", "protocol"].iloc[0]
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


def read_study(folder: str | os.PathLike) -> Study:
    """The CSV files of a study, test videos only; raises FileNotFoundError or ValueError."""
    folder, tables = Path(folder), {}
    for field in dataclasses.fields(Study)[1:]:
        path = folder / f"{field.name}.csv"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; python -m early_exit.collect writes it")
        header = pd.read_csv(path, nrows=0).columns
        # Names are text even where they look like numbers, or like a missing value ("null").
        kinds = {name: NUMBERS.get(name, "str") for name in header}
        if field.name == "decisions":
            kinds["confidence"] = "float64"
        table = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values={"top1_pct": [""]})
        tables[field.name] = table[table["part"] == "test"] if "part" in table else table
        if field.name != "backbones" and tables[field.name].empty:
            raise ValueError(f"{path} holds no results on test videos")
    return Study(
        folder.name if folder.name != "results" else folder.resolve().parent.name, **tables
    )


def find_studies(results: str | os.PathLike) -> list[Path]:
    """Folders of studies: `results` itself, or those right below it."""
    results = Path(results)
    return sorted(
        path.parent for path in [*results.glob("exits.csv"), *results.glob("*/exits.csv")]
    )


def where(table: pd.DataFrame, **equal: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    for column, value in equal.items():
        table = table[table[column] == value]
    return table


def mean_std(table: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """mean, std (sample; NaN of one) and n of a column over the runs in each group."""
    grouped = table.groupby(list(by), sort=False)[column]
    return grouped.agg(mean="mean", std="std", n="count").reset_index()


def method_gains(study: Study, method: str, baseline: str, combination: str) -> pd.DataFrame:
    """top1_pct of one method minus another's, per exit, paired over equal splits and seeds.

    Columns split, seed, exit, gain (percentage points); empty when no pair of runs is there.
    """
    table = study.exits[study.exits["combination"] == combination]
    keys = ["split", "seed", "exit"]
    both = table[table["method"] == method].merge(
        table[table["method"] == baseline], on=keys, suffixes=("", "_baseline")
    )
    return both[keys].assign(gain=both["top1_pct"] - both["top1_pct_baseline"])


def combination_gains(study: Study, combination: str, baseline: str) -> pd.DataFrame:
    """top1_pct of one combination minus another's of the same run: method, split, seed, exit, gain.

    Exit 1 has nothing to combine, so its gain is 0.
    """
    keys = ["method", "split", "seed", "exit"]
    table = study.exits
    both = table[table["combination"] == combination].merge(
        table[table["combination"] == baseline], on=keys, suffixes=("", "_baseline")
    )
    return both[keys].assign(gain=both["top1_pct"] - both["top1_pct_baseline"])


def exit_table(study: Study) -> list[list[str]]:
    """Header and rows: per method and exit top-1 by combination, GMACs, who leaves there."""
    table = [["method", "exit", *COMBINATIONS.values(), "GMACs", "leave there %"]]
    shown = where(study.policies, **SHOWN)
    for method in study.methods:
        for point in study.points:
            here = where(study.exits, method=method, exit=point)
            top1 = [
                spread(here.loc[here["combination"] == combination, "top1_pct"])
                for combination in COMBINATIONS
            ]
            leaving = spread(where(shown, method=method, exit=point)["share_pct"])
            table.append([label(method), point, *top1, f"{study.costs[point]:.3f}", leaving])
    return table


def accuracy_table(study: Study) -> list[list[str]]:
    """Header and rows: vanilla top-1 of each method at each exit, with the exits' GMACs."""
    table = [["method", *study.points]]
    table.append(["GMACs", *(f"{cost:.2f}" for cost in study.costs.values())])
    vanilla = where(study.exits, combination="vanilla")
    for method in study.methods:
        values = (where(vanilla, method=method, exit=point) for point in study.points)
        table.append([label(method), *(spread(found["top1_pct"], 1) for found in values)])
    return table


def policy_table(study: Study) -> list[list[str]]:
    """Header and rows: per method, combination and rule, what the calibrated thresholds give."""
    table = [["method", "combination", "thresholds", "top-1", "GMACs", "% of full", "goal reached"]]
    everyone = where(study.policies, exit=ALL)
    for method in study.methods:
        for combination, name in COMBINATIONS.items():
            of_both = where(everyone, method=method, combination=combination)
            for rule, rows in of_both.groupby("rule", sort=False):
                reached = (rows["reached"] == "True").sum()
                part = 100 * rows["gmacs"].mean() / study.costs[FULL]
                row = [label(method), name, rule.replace("_", " "), spread(rows["top1_pct"])]
                row += [spread(rows["gmacs"]), f"{part:.1f}", f"{reached} of {len(rows)}"]
                table.append(row)
    return table


def gain_table(study: Study) -> list[list[str]]:
    """Header and rows: paired gains per exit, of PKD over CE and of WISE over vanilla."""
    table = [["gain in points", "exits", *study.points]]
    for combination, name in COMBINATIONS.items():
        gains = method_gains(study, "prog_kd", "team_ce", combination)
        if len(gains):
            table.append(["PKD over CE", name, *_spread_by_exit(gains, study.points)])
    gains = combination_gains(study, "wise", "vanilla")
    for method in study.methods:
        own = gains[gains["method"] == method]
        table.append(["WISE over vanilla", label(method), *_spread_by_exit(own, study.points)])
    return table


def backbone_table(study: Study) -> list[list[str]]:
    """Header and rows: test top-1 of the backbones, stream by stream."""
    outputs = list(dict.fromkeys(study.backbones["output"]))
    by_output = dict(iter(study.backbones.groupby("output")["top1_pct"]))
    cells = [spread(by_output[output], 1) for output in outputs]
    return [["backbone", *outputs], [f"n = {len(study.backbones) // len(outputs)}", *cells]]


# Each with what its caption says of it.
TABLES = {
    "accuracy": (accuracy_table, "Test top-1 in percent when every video is decided at one exit"),
    "exits": (
        exit_table,
        "Test top-1 in percent when every video is decided at one exit, and who leaves there with "
        "WISE and one calibrated threshold",
    ),
    "policies": (policy_table, "Test top-1 in percent and cost with calibrated thresholds"),
    "gains": (gain_table, "Gain in test top-1, percentage points, paired by split and seed"),
}


def table_caption(study: Study, name: str) -> str:
    """Caption of one of TABLES: what it shows, spread, goal of the calibration, protocol, n."""
    goal = f", for {study.calibration()}" if name in ("exits", "policies") else ""
    return (
        f"{study.data}. {TABLES[name][1]}{goal}; mean ± standard deviation over runs (seeds and "
        f"splits); GMACs are 1e9 per video. {study.protocol()}"
    )


def spread(values: pd.Series, digits: int = 2) -> str:
    """`mean ± std` of the numbers, the mean alone of one, nothing of none."""
    if not len(values):
        return ""
    if len(values) == 1:
        return f"{values.iloc[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"


def label(method: str) -> str:
    return METHODS.get(method, method)


def to_markdown(table: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up in a terminal."""
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |" for row in table
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def to_latex(table: Sequence[Sequence[str]], caption: str) -> str:
    r"""A LaTeX table (\usepackage{booktabs}): the first column left, the others right."""
    header, *rows = ([_tex(cell) for cell in row] for row in table)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def save_table(
    table: Sequence[Sequence[str]], caption: str, folder: str | os.PathLike, name: str
) -> list[Path]:
    """Write `name`.md and `name`.tex; returns their paths."""
    texts = {".md": f"{to_markdown(table)}\n\n{caption}\n", ".tex": to_latex(table, caption)}
    paths = [Path(folder) / f"{name}{ending}" for ending in texts]
    for path, text in zip(paths, texts.values()):
        with whole_file(path) as temporary:
            temporary.write_text(text)
    return paths


def as_text(study: Study) -> str:
    """The study as Markdown: a section for each setting, and a word where there are several."""
    settings = study.settings()
    lines = []
    for data in dict.fromkeys(part.data for part in settings):
        number = sum(part.data == data for part in settings)
        if number > 1:
            lines += [
                f"**{data} holds runs of {number} settings (protocol, costs or goal), which are "
                "not comparable: each has a section of its own.**",
                "",
            ]
    return "\n".join([*lines, *map(_section, settings)])


def _section(study: Study) -> str:
    lines = [f"## {study.data}", "", study.protocol()]
    if len(study.backbones):
        lines += ["", to_markdown(backbone_table(study))]
    lines += [
        "",
        "GMACs are 1e9 multiply-accumulates per video, counting every video, right or wrong;",
        "± is the sample standard deviation over runs (seeds and splits).",
        "",
        "Top-1 in percent when every video is decided at one exit. Last column: share of the",
        f"videos that leave there with WISE and one threshold for all exits "
        f"({study.calibration()}).",
        "",
        to_markdown(exit_table(study)),
        "",
        f"Early exiting with calibrated thresholds ({study.calibration()}), on the test videos:",
        "",
        to_markdown(policy_table(study)),
        "",
    ]
    return "\n".join(lines)


def _setting_keys(study: Study) -> pd.DataFrame:
    """RUN and `setting`, a tuple of everything that must be equal in runs that are averaged."""

    def distinct(table: pd.DataFrame, *columns: str) -> pd.Series:
        return table.groupby(RUN, sort=False)[list(columns)].apply(
            lambda rows: tuple(rows.drop_duplicates().itertuples(index=False, name=None))
        )

    parts = [
        distinct(study.exits, "combination", "protocol"),
        distinct(study.exits, "exit", "gmacs"),
        distinct(study.policies, "goal", "select_on", "confidence"),
        distinct(study.trade_off, "threshold"),
    ]
    table = pd.concat(parts, axis=1).reset_index()
    values = table[["data", *range(len(parts))]].itertuples(index=False, name=None)
    return table[RUN].assign(setting=list(values))


def _spread_by_exit(gains: pd.DataFrame, points: Sequence[str]) -> list[str]:
    return [spread(gains.loc[gains["exit"] == point, "gain"], 1) for point in points]


def _tex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash "), ("&", r"\&"), ("%", r"\%"), ("_", r"\_")):
        text = text.replace(plain, escaped)
    return text.replace("#", r"\#").replace("±", r"$\pm$")
