"""Gather probes on I-frames (train_i_frame_probe.py) that read other numbers of frames.

    python -m study.probes runs/probes/*/ucf101/i_frame_probe/split1_seed1 \\
        --out results/ucf101/probes.csv

RUN: their run folders. study.frontier reads probes.csv in the folder of a study.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from coviar.command import run
from coviar.files import check_out, read_json
from study.collect import NotFinished, backbone_rows
from study.columns import RUN
from study.run_tables import write_rows
from study.summary import each_once
from training.options import make_parser, refusing
from training.provenance import command_line, print_result
from training.recipes import PROBE

NAME = "probes.csv"
COLUMNS = [*RUN, "frames", "top1_pct", "gmacs", "num_videos", "command"]


def probe_row(folder: Path) -> dict:
    """The row of one run. Raises ValueError for another run, or one that has not ended."""
    if folder.resolve().parent.name != PROBE:
        raise ValueError(f"{folder}: no run folder of train_i_frame_probe.py")
    try:
        (row,) = backbone_rows(folder)["backbones.csv"]
    except NotFinished as reason:
        raise ValueError(f"{folder}: {reason}") from reason
    frames = read_json(folder / "args.json", "train the probe again")["num_segments"]
    return {**{name: row[name] for name in COLUMNS if name in row}, "frames": frames}


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", required=True, type=Path, help=f"CSV file: {NAME} of a study")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        check_out(args.out)
        each_once(args.runs)
        rows = [probe_row(folder) for folder in args.runs]
        write_rows(args.out, COLUMNS, [{**row, "command": command_line()} for row in rows])
    print_result({"out": str(args.out), "probes": len(rows)})


if __name__ == "__main__":
    run(main, get_args_parser())
