"""Measured milliseconds beside MACs: decoding is not free, and an exit is not its MACs ratio."""

from __future__ import annotations

import json
import os

PUBLISHED_NETWORK = {"arch": "resnet50", "crop_size": 224, "num_segments": 8, "exits": [1, 2, 3]}


def columns(exit_path: str | os.PathLike, load_path: str | os.PathLike) -> dict[str, dict]:
    """Columns for TEAM-Net's rows, {exit or "full": {column: value}}, per video of one view.

    The files hold the JSON lines of `python -m benchmarks.early_exit` (with batch size 1) and
    `python -m benchmarks.loader`, made on one machine. Shares are of the full network without
    exits. Raises ValueError when a file is something else or of another network.
    """
    times, loading = _read(exit_path, "batch_1"), _read(load_path, "sample_ms")
    wrong = {k: times.get(k) for k, v in PUBLISHED_NETWORK.items() if times.get(k) != v}
    if wrong:
        raise ValueError(f"{exit_path} timed another network: {wrong}, not {PUBLISHED_NETWORK}")
    batch = times["batch_1"]
    full_ms = batch["full"]["ms"]
    found = {}
    for point in [f"exit{k}" for k in PUBLISHED_NETWORK["exits"]] + ["full"]:
        found[point] = {
            "network_ms": batch[point]["ms"],
            "network_ms_share_pct": round(100 * batch[point]["ms"] / full_ms, 2),
            "load_ms": round(loading["sample_ms"], 2),
            "load_ms_share_pct": round(100 * loading["sample_ms"] / full_ms, 2),
        }
    return found


def _read(path: str | os.PathLike, key: str) -> dict:
    try:
        with open(path) as file:
            content = json.load(file)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected the JSON line of a benchmark ({error})") from error
    if key not in content:
        raise ValueError(f"{path}: no {key!r}, so not the benchmark that is asked for here")
    return content
