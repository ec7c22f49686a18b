"""Measured milliseconds to show beside MACs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from dataset_team.csv_rows import read_csv_text
from models import PUBLISHED_NETWORK

POINTS = ("exit1", "exit2", "exit3", "full")
# The columns, as text, of the published network's rows.
PUBLISHED = {
    **{k: str(PUBLISHED_NETWORK[k]) for k in ("arch", "motion_arch", "num_segments", "crop_size")},
    "batch_size": "1",
}
# What may differ between measurements of one network.
SETUP = ("precision", "threads", "machine")


def columns(path: str | os.PathLike) -> dict[str, dict]:
    """Columns for TEAM-Net's rows, {exit or "full": {column: value}}, per video of one view.

    The file is a CSV of `python -m benchmarks.early_exit --out`, one row per way out; rows with
    exit "load" are loading one clip. Shares are of the full network without exits. Of several
    precisions, numbers of threads and machines, the one with the fastest full network is taken.
    Raises ValueError when the file is something else, or did not time the published network.
    """
    setups: dict[tuple, dict[str, float]] = {}
    about = [*PUBLISHED, *SETUP, "exit"]
    for row in read_times(path, about, ["latency_ms"], "benchmarks.early_exit"):
        if PUBLISHED.items() <= row.items():
            setup = tuple(row[column] for column in SETUP)
            setups.setdefault(setup, {})[row["exit"]] = float(row["latency_ms"])
    complete = {setup: ms for setup, ms in setups.items() if {*POINTS} <= ms.keys()}
    if not complete:
        network = ", ".join(f"{key} {value}" for key, value in PUBLISHED.items())
        raise ValueError(
            f"{path} holds no times of the published network ({network}) for all of "
            f"{', '.join(POINTS)}: python -m benchmarks.early_exit --out {path}"
        )
    (precision, threads, machine), ms = min(complete.items(), key=lambda item: item[1]["full"])
    timed = f"{precision}, {threads} threads, {machine}"
    return {point: {**_shares(ms, point), "timed": timed} for point in POINTS}


def _shares(ms: Mapping[str, float], point: str) -> dict:
    load = ms.get("load")
    return {
        "network_ms": ms[point],
        "network_ms_share_pct": round(100 * ms[point] / ms["full"], 2),
        "load_ms": load,
        "load_ms_share_pct": load and round(100 * load / ms["full"], 2),
    }


def read_times(
    path: str | os.PathLike, about: Sequence[str], times: Collection[str], module: str
) -> list[dict[str, str]]:
    """The rows of a table of `python -m MODULE --out`. about: columns that say what was timed;
    times: columns of milliseconds. Raises ValueError as `read_csv_text`, with the line, and for
    times that are not above 0.
    """
    script = f"python -m {module} --out {path}"
    found = read_csv_text(path, script, [*about, *times], times)
    for line, row in zip(found.lines, found.rows):
        for name in times:
            if float(row[name]) <= 0:
                raise ValueError(
                    f"{path}, line {line}: {name} is {row[name]}, and times are above 0;"
                    f" {script} writes it again"
                )
    return found.rows
