"""A study's numbers as tables, in Markdown and LaTeX: mean and spread over seeds and splits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from coviar.files import whole_file
from early_exit.wise import FULL
from study.columns import ALL, TIMES
from study.run_tables import write_rows
from study.summary import (
    COMBINATION_LABELS,
    SHOWN,
    Study,
    combination_gains,
    label,
    method_gains,
    where,
)
from training.provenance import command_line


def exit_table(study: Study) -> list[list[str]]:
    """Header and rows: per method and exit top-1 by combination, GMACs, share that leaves there."""
    table = [["method", "exit", *COMBINATION_LABELS.values(), "GMACs", "leave there %"]]
    shown = where(study.policies, **SHOWN)
    for method in study.methods:
        for point in study.points:
            here = where(study.exits, method=method, exit=point)
            top1 = [
                spread(here.loc[here["combination"] == combination, "top1_pct"])
                for combination in COMBINATION_LABELS
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
    everyone = where(study.policies, exit=ALL)
    timed = everyone[TIMES].notna().all(axis=None)
    table = [["method", "combination", "thresholds", "top-1", "GMACs", "% of full"]]
    table[0] += [*(["decode ms", "network ms"] if timed else []), "goal reached"]
    for method in study.methods:
        for combination, name in COMBINATION_LABELS.items():
            of_both = where(everyone, method=method, combination=combination)
            for rule, rows in of_both.groupby("rule", sort=False):
                reached = (rows["reached"] == "True").sum()
                part = 100 * rows["gmacs"].mean() / study.costs[FULL]
                row = [label(method), name, rule.replace("_", " "), spread(rows["top1_pct"])]
                row += [spread(rows["gmacs"]), f"{part:.1f}"]
                row += [spread(rows[column], 1) for column in TIMES if timed]
                row.append(f"{reached} of {len(rows)}")
                table.append(row)
    return table


def savings_table(study: Study) -> list[list[str]]:
    """Header and rows: the least cost, in percent of the full network's, at which top-1 is no more
    than 0, 1 and 2 points below the full network's, with one threshold for all exits.

    The threshold is each run's best on the test videos, which nobody knows beforehand: calibrated
    ones (`policy_table`) do worse. A run without such a threshold counts as 100.
    """
    drops = (0, 1, 2)
    table = [["method", "combination", *(f"{drop} points" for drop in drops)]]
    run, everyone = ["split", "seed"], where(study.trade_off, exit=ALL)
    for method in study.methods:
        full = where(study.exits, method=method, combination="vanilla", exit=FULL)
        wanted = full.set_index(run)["top1_pct"]
        for combination, name in COMBINATION_LABELS.items():
            curve = where(everyone, method=method, combination=combination)
            curve = curve.join(wanted.rename("wanted"), on=run)
            row = [label(method), name]
            for drop in drops:
                good = curve[curve["wanted"] - curve["top1_pct"] <= drop]
                least = 100 * good.groupby(run)["gmacs"].min() / study.costs[FULL]
                row.append(spread(least.reindex(wanted.index).fillna(100), 1))
            table.append(row)
    return table


def gain_table(study: Study) -> list[list[str]]:
    """Header and rows: paired gains per exit, of PKD over CE and of WISE over vanilla."""
    table = [["gain in points", "exits", *study.points]]
    for combination, name in COMBINATION_LABELS.items():
        gains = method_gains(study, "prog_kd", "team_ce", combination)
        if len(gains):
            table.append(["PKD over CE", name, *_spread_by_exit(gains, study.points)])
    gains = combination_gains(study, "wise", "vanilla")
    for method in study.methods:
        own = gains[gains["method"] == method]
        table.append(["WISE over vanilla", label(method), *_spread_by_exit(own, study.points)])
    return table


def backbone_table(study: Study) -> list[list[str]]:
    """Header and rows: test top-1 of the backbones, stream by stream, and their cost."""
    outputs = list(dict.fromkeys(study.backbones["output"]))
    table = [["network", "runs", *outputs, "GMACs"]]
    for method, rows in study.backbones.groupby("method"):
        found = [rows.loc[rows["output"] == output, "top1_pct"] for output in outputs]
        gmacs = spread(rows["gmacs"].drop_duplicates().dropna())
        table.append([method, str(len(found[0])), *(spread(top1, 1) for top1 in found), gmacs])
    return table


# Each with the words of its caption.
TABLES = {
    "accuracy": (accuracy_table, "Test top-1 in percent when every video is decided at one exit"),
    "exits": (
        exit_table,
        "Test top-1 in percent when every video is decided at one exit, and the share that leaves "
        "there with WISE and one calibrated threshold",
    ),
    "policies": (policy_table, "Test top-1 in percent and cost with calibrated thresholds"),
    "savings": (
        savings_table,
        "Least cost, in percent of the full network's, within 0, 1 and 2 points of its top-1, with "
        "thresholds chosen on the test videos themselves: a bound, not a result",
    ),
    "gains": (gain_table, "Gain in test top-1, percentage points, paired by split and seed"),
}


def table_caption(study: Study, name: str) -> str:
    """Caption of one of TABLES: what it shows, spread, goal of the calibration, protocol, n."""
    goal = f", for {study.calibration()}" if name in ("exits", "policies") else ""
    return (
        f"{study.data}. {TABLES[name][1]}{goal}; mean ± sample standard deviation over runs "
        f"(seeds and splits); GMACs are 1e9 per video. {study.protocol()}"
    )


def spread(values: pd.Series, digits: int = 2) -> str:
    """`mean ± std` of the numbers, the mean alone of one, nothing of none."""
    if not len(values):
        return ""
    if len(values) == 1:
        return f"{values.iloc[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"


def write_table(path: Path, text: str) -> None:
    """Markdown, with the command that made it below."""
    with whole_file(path) as temporary:
        temporary.write_text(f"{text}\n\n    {command_line()}\n", encoding="utf-8")


def write_rows_or_table(
    path: Path, columns: Sequence[str], rows: Sequence[Mapping], lines: Sequence[Sequence[str]]
) -> None:
    """Print the lines as Markdown, and write them where the file ends in .md, else the rows."""
    text = to_markdown(lines)
    print(text)
    if path.suffix == ".md":
        write_table(path, text)
    else:
        write_rows(path, columns, rows)


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
            temporary.write_text(text, encoding="utf-8")
    return paths


def as_text(study: Study) -> str:
    """The study as Markdown: a section for each setting, and a note where there are several."""
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


def _spread_by_exit(gains: pd.DataFrame, points: Sequence[str]) -> list[str]:
    return [spread(gains.loc[gains["exit"] == point, "gain"], 1) for point in points]


def _tex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash "), ("&", r"\&"), ("%", r"\%"), ("_", r"\_")):
        text = text.replace(plain, escaped)
    return text.replace("#", r"\#").replace("±", r"$\pm$")
