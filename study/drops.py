"""What thresholds save for a drop of top-1 that the user allows, over backbones.

    python -m study.drops runs/ucf101/prog_kd/split1_seed* --drops 1 2 5 \\
        --route streams_then_time --timings results/timings.csv --out results/split1/drops.csv
    python -m study.drops results/split*/drops.csv --out results/drops.md

RUN: folders with logits.pt of save_logits.py and wise.json, or files that this command wrote, whose
runs may be gone. One threshold common to all points is chosen on held-out videos, and reported on
test videos, in two ways: with --guarantee (docs/promises.md), and without, by counting what
held-out videos lose. The points are the exits on all segments, their logits summed as published or
weighed by WISE, and those of a --route, summed. Where no threshold keeps the promise the full
network is kept, and nothing is saved. Seeds of the exits of a backbone are averaged; ± is the
standard deviation over backbones. This table is printed, and is the file where that ends in .md; a
CSV file has the rows. Milliseconds are compared with one pass over all segments; read one by one
they take longer, so a route may lose time where it saves GMACs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from coviar.command import run
from coviar.files import check_out
from early_exit.logits import LOGITS_NAME
from early_exit.policy import Policy
from early_exit.promise import Wish
from early_exit.wise import fit_temperature, vanilla_weights
from study.columns import ALL, RUN, TIMES
from study.policies import load_run_tables, make_policy, make_promise, open_logits, tables_along
from study.run_tables import RunTables, read_rows
from study.tables import write_rows_or_table
from training.options import (
    add_route_options,
    make_parser,
    non_negative_float,
    open_fraction,
    refusing,
)
from training.provenance import command_line, print_result

DEPTH = "depth"
STREAMS_ALONE = "streams"
PROMISED, COUNTED = "promised", "counted"
CASE = ["data", "method", "points", "combination", "max_drop", "chosen"]
SAVED = ["gmacs_saved_pct", "ms_saved_pct"]
COLUMNS = [*RUN, *CASE[2:], "guarantee", "kept_full", "full_top1_pct", "top1_pct", *SAVED]
COLUMNS += ["num_heldout", "num_test", "backbone", "command"]
REQUIRED = [name for name in COLUMNS if name not in ("guarantee", "ms_saved_pct", "backbone")]
NUMBERS = ["max_drop", "kept_full", *(name for name in COLUMNS if name.endswith("_pct"))]


def drop_rows(
    path: Path,
    route: Sequence[str] | None,
    evidence: str,
    drops: Sequence[float],
    guarantee: float,
    timings: Path | None,
) -> Iterator[dict]:
    """Rows of one run, on test videos. Raises as `open_logits` and `load_run_tables`."""
    full_ms = None  # of one pass over all segments, without exits on the way
    for words in [None, route] if route else [None]:
        logits, _ = open_logits(path / LOGITS_NAME, None, words, evidence)
        tables = (
            tables_along(logits, vanilla_weights(logits.outputs), timings)
            if words
            else load_run_tables(path / LOGITS_NAME, logits, timings=timings)
        )
        if tables.times is not None and words is None:
            full_ms = tables.times.total()[-1]
        about = {
            **{key: logits.meta[key] for key in RUN},
            "points": " ".join(words) if words else DEPTH,
            "num_heldout": len(logits.part("heldout").labels),
            "backbone": logits.meta.get("backbone_digest", ""),
            "uses_exits": any(name.startswith("exit") for name in logits.outputs),
        }
        for combination in ("vanilla",) if words else ("vanilla", "wise"):
            for drop in drops:
                case = {**about, "combination": combination, "max_drop": drop}
                promised, counted = _policies(tables, combination, drop, guarantee)
                promised = {"guarantee": guarantee, **_outcome(tables, promised, full_ms)}
                yield {**case, "chosen": PROMISED, **promised}
                yield {**case, "chosen": COUNTED, **_outcome(tables, counted, full_ms)}


def without_repeats(rows: Iterable[dict]) -> Iterator[dict]:
    """Leave out what a backbone does without its exits where an earlier row of it says so: a route
    over streams and segments is the same for all methods and seeds, and its method is `streams`."""
    seen = set()
    for row in rows:
        if not row.pop("uses_exits"):
            row["method"] = STREAMS_ALONE
            key = (row["split"], row["backbone"], *(row[name] for name in CASE))
            if key in seen:
                continue
            seen.add(key)
        yield row


def read_drops(path: Path) -> list[dict]:
    """The rows that this command wrote. Raises FileNotFoundError, and ValueError otherwise."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; study.drops writes it")
    rows = read_rows(path, COLUMNS, "study.drops", REQUIRED, NUMBERS, is_input=True)
    return [{**row, **{name: float(row[name] or "nan") for name in NUMBERS}} for row in rows]


def check_once(rows: Sequence[dict]) -> None:
    """Raise ValueError where a run is named twice."""
    known = set()
    for row in rows:
        key = tuple(str(row.get(name, "")) for name in (*RUN, "backbone", *CASE, "guarantee"))
        if key in known:
            raise ValueError(f"{' '.join(key[:4])} is there twice: name each run once")
        known.add(key)


def _policies(
    tables: RunTables, combination: str, drop: float, guarantee: float
) -> tuple[Policy, Policy]:
    """One that promises the drop, and one whose drop was counted."""
    how = {"select_on": "heldout", "confidence": "max"}
    wish = Wish("drop", drop / 100, guarantee)
    promised = make_promise(tables, combination, "common", wish=wish, temperature="fit", **how)
    heldout = tables.combined("heldout", combination)[0]
    temperature = fit_temperature(heldout, tables.logits.part("heldout").labels)
    counted = make_policy(
        tables, combination, "common", max_drop=drop, temperature=temperature, **how
    )
    return promised, counted


def _outcome(tables: RunTables, policy: Policy, full_ms: float | None) -> dict:
    """What the policy does on test videos, against the full network without exits, which takes
    full_ms for a view."""
    right = tables.combined("test", "vanilla")[1][:, -1]
    (row,) = (
        row for row in tables.policy_rows(policy) if (row["part"], row["exit"]) == ("test", ALL)
    )
    costs = {"gmacs_saved_pct": (row["gmacs"], tables.costs("test")[-1])}
    if full_ms is not None:
        full = full_ms * len(tables.logits.part("test").logits)
        costs["ms_saved_pct"] = (sum(row[key] for key in TIMES), full)
    return {
        "kept_full": int(all(threshold >= 1 for threshold in policy.thresholds)),
        **{"full_top1_pct": 100 * right.mean(), "top1_pct": row["top1_pct"]},
        "num_test": len(right),
        **{name: 100 * (1 - spent / full) for name, (spent, full) in costs.items()},
    }


def summary(rows: Sequence[dict]) -> pd.DataFrame:
    """A row of each case: means and standard deviations over backbones, seeds averaged."""
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    promised = table["chosen"] == PROMISED
    guarantees = table.loc[promised, "guarantee"].astype(float).map("{:g}".format)
    table.loc[promised, "chosen"] += " " + guarantees
    table["drop_pct"] = table["full_top1_pct"] - table["top1_pct"]
    values = ["drop_pct", "kept_full", *SAVED]
    of_backbones = table.groupby([*CASE, "split", "backbone"], sort=False)[values].mean()
    found = of_backbones.groupby(CASE, sort=False)
    means = found.mean().join(found.std(ddof=1).add_suffix("_std"))
    means = means.join(found.count().add_suffix("_of"))
    return means.assign(backbones=found.size()).reset_index()


def to_lines(table: pd.DataFrame) -> list[list[str]]:
    lines = [["data", "method", "points", "combination", "allowed", "threshold", "drop"]]
    lines[0] += ["GMACs saved, %", "ms saved, %", "full kept, %", "backbones"]
    for row in table.to_dict("records"):
        cells = [_cell(row, name) for name in ("drop_pct", *SAVED)]
        case = [f"{row[name]:g}" if name == "max_drop" else row[name] for name in CASE]
        lines.append([*case, *cells, f"{100 * row['kept_full']:.0f}", str(row["backbones"])])
    return lines


def _cell(row: Mapping, name: str) -> str:
    """The mean and the standard deviation, and of how many backbones if not of all."""
    mean, std, number = (row[name + ending] for ending in ("", "_std", "_of"))
    if number == 0:
        return ""
    text = f"{mean + 0.0:.1f}".replace("-0.0", "0.0")
    text = text if np.isnan(std) else f"{text} ± {std:.1f}"
    return text if number == row["backbones"] else f"{text} (of {number})"


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder, or a CSV file")
    parser.add_argument(
        "--drops",
        type=non_negative_float,
        nargs="+",
        default=[1.0, 2.0, 5.0],
        metavar="PCT",
        help="points of top-1 below the full network's that are allowed (1 2 5)",
    )
    parser.add_argument(
        "--guarantee", type=open_fraction, default=0.9, help="probability of the promise (0.9)"
    )
    parser.add_argument(
        "--timings", type=Path, help="table of benchmarks.timings, for milliseconds"
    )
    parser.add_argument("--out", type=Path, required=True, help="FILE.csv or FILE.md")
    add_route_options(parser)
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.timings is not None and not args.timings.is_file():
        parser.error(f"--timings {args.timings}: no such file; benchmarks.timings makes it")
    how = args.route, args.evidence, args.drops, args.guarantee, args.timings
    folders = [path for path in args.runs if path.suffix != ".csv"]
    with refusing(parser):
        check_out(args.out)
        rows = [row for path in args.runs if path.suffix == ".csv" for row in read_drops(path)]
        found = without_repeats(row for path in folders for row in drop_rows(path, *how))
        rows += [{**row, "command": command_line()} for row in found]
        check_once(rows)
        write_rows_or_table(args.out, COLUMNS, rows, to_lines(summary(rows)))
    print_result({"out": str(args.out), "runs": len(args.runs)})


if __name__ == "__main__":
    run(main, get_args_parser())
