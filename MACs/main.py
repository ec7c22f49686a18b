"""What every rival in the comparison costs, counted.

    python MACs/main.py --data ucf101 --out results/macs.csv
    python MACs/main.py --detail
    python MACs/main.py --early-exit results/ucf101_7/policies.csv
    python MACs/main.py --times results/latency.csv

Each rival's network is built from its paper and counted for one pass over one view of a video, then
for all views (clips x crops) of its protocol, and for all videos of the three test splits. `gmacs`
are 1e9 MACs of convolutions and matrix products; `gmacs_1024` are MACs / 1024**3, the PKD + WISE
paper's unit; `gmacs_1024_as_published` adds normalisation, activations and pooling, as the
published count did, and `to_published_pct` compares that.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import sys
from collections.abc import Collection
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # run from anywhere

from coviar.command import run
from coviar.files import check_out, whole_file
from dataset_team.registry import DATASETS
from MACs import coviar_net, cv_c3d, dmc_net, latency, mfcd_net, mimo, team_net, wu
from MACs.rival import PAPER_UNIT, Rival
from study import mean_costs
from training.options import make_parser, refusing

COUNTED = (team_net, coviar_net, wu, mfcd_net, cv_c3d, dmc_net, mimo)
TEST_VIDEOS = {"ucf101": 11213, "hmdb51": 4590}  # of the three splits together


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--data", choices=TEST_VIDEOS, default="ucf101", help="classes and videos")
    parser.add_argument("--detail", action="store_true", help="print the steps of each rival")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--out", metavar="CSV", help="write the table as CSV, too")
    parser.add_argument(
        "--early-exit",
        metavar="CSV",
        help="a run's or a study's policies.csv: print the mean cost of its policies over runs",
    )
    parser.add_argument(
        "--times",
        metavar="CSV",
        help="a table of `python -m benchmarks.early_exit --out`: adds measured milliseconds",
    )
    return parser


def table_row(rival: Rival, data: str) -> dict:
    """One rival's columns; None where nothing was published."""
    in_paper_unit = rival.macs / PAPER_UNIT
    as_published = (rival.macs + rival.pointwise) / PAPER_UNIT
    per_video = rival.macs * rival.views / 1e9
    published = rival.published
    return {
        "method": rival.name,
        "data": data,
        "gmacs": round(rival.macs / 1e9, 3),
        "gmacs_1024": round(in_paper_unit, 3),
        "gmacs_1024_as_published": round(as_published, 3),
        "published_1024": published,
        "to_published_pct": published and round(100 * (as_published / published - 1), 2),
        "clips_x_crops": f"{rival.clips} x {rival.crops}",
        "gmacs_per_video": round(per_video, 3),
        "gmacs_1024_per_video": round(in_paper_unit * rival.views, 3),
        "tmacs_three_test_splits": round(per_video * TEST_VIDEOS[data] / 1e3, 1),
        "params_millions": round(rival.params / 1e6, 2),
        "source": rival.source,
        "note": rival.note,
    }


def add_times(rows: list[dict], times: dict[str, dict]) -> None:
    """Measured columns in the rows of TEAM-Net; None in the others, which were not timed."""
    by_method = {team_net.row_name(point): measured for point, measured in times.items()}
    empty = dict.fromkeys(times["full"])
    for row in rows:
        row.update(by_method.get(row["method"], empty))


def write_csv(path: str, rows: list[dict], command: str) -> None:
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "command"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "command": command} for row in rows)


def print_table(rows: list[dict], hidden: Collection[str] = ()) -> None:
    """The rows under their column names, each column as wide as it needs to be."""
    names = [name for name in rows[0] if name not in hidden]
    cells = [names, *([_text(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for first, *others in cells:
        aligned = [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        print("  ".join([first.ljust(widths[0]), *aligned]))
    print()


def _text(value: object) -> str:
    return "" if value is None else str(value)


def print_steps(rival: Rival) -> None:
    print(f"\n{rival.name}")
    for step, macs in rival.steps.items():
        print(f"  {step:34} {macs / 1e9:10.4f} gmacs  {100 * macs / rival.macs:6.2f} %")


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        check_out(args.out)
        times = latency.columns(args.times) if args.times else None
        means = (
            mean_costs.over_runs(mean_costs.read_policies(args.early_exit))
            if args.early_exit
            else []
        )
    num_classes = DATASETS[args.data].num_classes
    found = [rival for module in COUNTED for rival in module.rivals(num_classes)]
    rows = [table_row(rival, args.data) for rival in found]
    if times:
        add_times(rows, times)
    if args.out:
        write_csv(args.out, rows, shlex.join(["python", "MACs/main.py", *sys.argv[1:]]))
    if args.json:
        steps = {rival.name: rival.steps for rival in found} if args.detail else {}
        print(json.dumps({"methods": rows, "steps": steps, "early_exit": means}))
        return
    print_table(rows, hidden=("data", "source", "note"))
    for row in rows:
        print(f"{row['method']}: {row['source']}" + (f"; {row['note']}" if row["note"] else ""))
    if args.detail:
        for rival in found:
            print_steps(rival)
    for protocol in dict.fromkeys(row["protocol"] for row in means):
        print(f"\nMean cost per video of early exiting, every video counted. Protocol: {protocol}")
        print_table([r for r in means if r["protocol"] == protocol], hidden=("protocol",))


if __name__ == "__main__":
    run(main, get_args_parser())
