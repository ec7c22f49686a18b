"""Mean cost of early exiting, from the shares of videos that leave at each exit.

Every video counts with the cost of the exit it left at, whether its label there was right or
wrong (the published script took exits with a wrong label as free).
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable
from pathlib import Path

from dataset_team.csv_rows import read_csv_text
from MACs.rival import PAPER_UNIT
from study.columns import ALL, RUN

REPEATS = ("split", "seed")  # a mean is over these
POLICY_COLUMNS = ("data", "method", "part", "combination", "rule", "goal", "protocol")


def read_policies(path: str | os.PathLike) -> list[dict]:
    """One row per run and policy of a policies.csv: top-1 and mean gmacs per video, in both units.

    The file is one run's, or a study's (`python -m study.collect`) with many, whose protocols are
    in the runs.csv beside it. Raises ValueError as `read_csv_text`, and when
    a policy's shares do not add up to all videos.
    """
    policies: dict[tuple, dict] = {}
    found = read_csv_text(path, "team_net_wise_all_acc.py")
    of_study = "protocol" not in found.header
    protocols = _protocols(Path(path).with_name("runs.csv")) if of_study else {}
    for line, row in zip(found.lines, found.rows):
        try:
            if of_study:
                protocol = protocols[tuple(row[column] for column in RUN)]
                row["protocol"] = protocol[row["combination"] == "wise"]
            key = tuple(row[column] for column in (*REPEATS, *POLICY_COLUMNS))
            policy = policies.setdefault(key, {"share_pct": 0.0, "gmacs": 0.0})
            if row["exit"] == ALL:
                policy["top1_pct"] = float(row["top1_pct"])
            else:
                share = float(row["share_pct"])
                policy["share_pct"] += share
                policy["gmacs"] += share / 100 * float(row["gmacs"])
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{path}, line {line}: not a row of a policies.csv as "
                f"team_net_wise_all_acc.py writes it ({error!r})"
            ) from error
    return [_mean(path, key, policy) for key, policy in policies.items()]


def over_runs(policies: Iterable[dict]) -> list[dict]:
    """One row per policy: means over its runs (seeds and splits), and the spread of gmacs.

    gmacs_std is the sample standard deviation, None of a single run.
    """
    groups: dict[tuple, list[dict]] = {}
    for policy in policies:
        groups.setdefault(tuple(policy[column] for column in POLICY_COLUMNS), []).append(policy)
    rows = []
    for key, runs in groups.items():
        mean = {
            column: round(statistics.mean(run[column] for run in runs), 3)
            for column in ("top1_pct", "gmacs", "gmacs_1024")
        }
        several = len(runs) > 1
        std = round(statistics.stdev(run["gmacs"] for run in runs), 3) if several else None
        rows.append({**dict(zip(POLICY_COLUMNS, key)), "runs": len(runs), **mean, "gmacs_std": std})
    return rows


def _protocols(path: Path) -> dict[tuple, tuple[str, str]]:
    """By RUN the protocol and the one of combination "wise"; empty where the file is not there."""
    if not path.is_file():
        return {}
    rows = read_csv_text(path, "study.collect", [*RUN, "protocol"]).rows
    return {
        tuple(row[column] for column in RUN): (row["protocol"], row.get("wise_protocol", ""))
        for row in rows
    }


def _mean(path: str | os.PathLike, key: tuple, policy: dict) -> dict:
    name = dict(zip((*REPEATS, *POLICY_COLUMNS), key))
    if "top1_pct" not in policy:
        raise ValueError(f"{path}: no row with exit all of {name}")
    if abs(policy["share_pct"] - 100) > 0.01:  # shares are rounded in the file
        raise ValueError(
            f"{path}: the exits of {name} hold {policy['share_pct']:.2f} % of the videos, not 100"
        )
    return {
        **name,
        "top1_pct": policy["top1_pct"],
        "gmacs": round(policy["gmacs"], 3),
        "gmacs_1024": round(policy["gmacs"] * 1e9 / PAPER_UNIT, 3),
    }
