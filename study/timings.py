"""Measured milliseconds of leaving at each decision point, in tables of `benchmarks.timings`.

One row per network, precision, number of threads, machine, and decision point of a row of points.
decode_ms and network_ms: from the first byte of a video to leaving there, one clip and one crop.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from early_exit.logits import LogitsFile
from early_exit.wise import decision_points
from MACs.latency import read_times

NETWORK = ["arch", "motion_arch", "fusion", "num_segments", "crop_size"]
SETUP = ["precision", "clock", "threads", "machine"]
# points: all decision points in order; point: the one where the clip leaves.
COLUMNS = [*NETWORK, "points", "point", "decode_ms", "network_ms", *SETUP, "num_videos", "command"]
KEY = [*NETWORK, *SETUP, "points"]


class Times(NamedTuple):
    """(D,) milliseconds of leaving at each decision point."""

    decode_ms: np.ndarray
    network_ms: np.ndarray

    def total(self) -> np.ndarray:
        """(D,) of both, made rising: a point that seems cheaper than an earlier one is noise."""
        return np.maximum.accumulate(self.decode_ms + self.network_ms)


def network_of(config: dict, crop_size: int) -> dict[str, str]:
    """The columns NETWORK of a `TeamNet.config`."""
    values = {**config, "fusion": config.get("fusion", "team"), "crop_size": crop_size}
    return {key: str(values[key]) for key in NETWORK}


def load_times(path: Path, logits: LogitsFile) -> Times:
    """The times of leaving at the decision points of the logits.

    Raises ValueError when the file is damaged or something else, or holds no times of this network
    with these points, or holds those of several machines.
    """
    if not logits.meta["model"]:
        raise ValueError(
            f"--timings {path} has times of this repository's networks, and the logits are of"
            " another one; put its costs into `gmacs` of the .npz and use --budget-gmacs"
        )
    points = decision_points(logits.outputs)
    wanted = network_of(logits.meta["model"], logits.meta["crop_size"])
    wanted["points"] = " ".join(points)
    setups: dict[tuple, dict[str, dict]] = {}
    for row in read_times(path, [*KEY, "point"], Times._fields, "benchmarks.timings"):
        if wanted.items() <= row.items():
            setups.setdefault(tuple(row[key] for key in SETUP), {})[row["point"]] = row
    about = ", ".join(f"{key} {value}" for key, value in wanted.items())
    if not setups:
        remedy = "python -m benchmarks.timings --run RUN"
        raise ValueError(f"{path} has no times of {about}: {remedy} measures them")
    if len(setups) > 1:
        found = "; ".join(", ".join(map(str, setup)) for setup in setups)
        raise ValueError(f"{path} has times of several machines ({found}): keep the rows of one")
    rows = next(iter(setups.values()))
    missing = [point for point in points if point not in rows]
    if missing:
        raise ValueError(f"{path} has no row for the point {missing[0]} of {about}")
    return Times(*(np.array([float(rows[p][key]) for p in points]) for key in Times._fields))
