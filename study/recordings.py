"""How many test videos of each recording are right: what intervals over backbones are made from.

A table has a row for each recording and class of the test videos of one backbone, and behind
RECORDING a column "METHOD/COMBINATION POINT" for each decision point of each side: how often it was
right, over videos and seeds. It is small and outlives the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from early_exit.logits import LogitsFile
from study.columns import BACKBONE
from study.run_tables import write_rows
from study.sides import Side, load_runs
from study.summary import read_table

RECORDING = [*BACKBONE, "class_name", "recording", "num_videos", "seeds", "protocol"]


def load(paths: Sequence[Path], sides: Sequence[str]) -> pd.DataFrame:
    """The table of all backbones: of the runs in folders, and of files that `write` wrote.

    sides: METHOD/COMBINATION; of files all are taken. Raises FileNotFoundError, and ValueError for
    another file, a backbone that is named twice, and what `count` refuses.
    """
    folders = [path for path in paths if path.suffix != ".csv"]
    tables = [_read(path) for path in paths if path.suffix == ".csv"]
    if folders:
        tables.append(count(folders, sides))
    table = pd.concat(tables, ignore_index=True)
    repeated = table[table.duplicated(RECORDING[:5])]
    if len(repeated):
        names = " ".join(repeated.iloc[0][BACKBONE])
        raise ValueError(f"{names} is there twice: name each backbone once")
    return table


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; study.compare --recordings writes it")
    texts = [*BACKBONE, "class_name", "recording", "protocol"]
    required = ["data", "split", "num_videos", "seeds", "protocol"]  # names may be empty, sides too
    table = read_table(path, texts, "study.compare --recordings", required)
    if list(table)[: len(RECORDING)] != RECORDING:
        raise ValueError(f"{path} is no file of study.compare --recordings")
    return table


def write(path: Path, table: pd.DataFrame) -> None:
    """As CSV, whole or not at all."""
    write_rows(path, list(table), table.to_dict("records"))


def count(folders: Sequence[Path], sides: Sequence[str]) -> pd.DataFrame:
    """The table of the runs below the folders.

    Raises ValueError as `load_runs`, and where a backbone lacks a side or its sides have other
    seeds or test videos.
    """
    by_backbone: dict[tuple, dict[str, list[LogitsFile]]] = {}
    for method, runs in load_runs(folders, by_backbone=True).items():
        for (data, split, _, digest), logits in sorted(runs.items()):
            of_methods = by_backbone.setdefault((data, split, digest), {})
            of_methods.setdefault(method, []).append(logits)
    tables = [
        _of_backbone(" ".join(backbone), files, sides).assign(**dict(zip(BACKBONE, backbone)))
        for backbone, files in sorted(by_backbone.items())
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[[*RECORDING, *(name for name in table if name not in RECORDING)]]


def _of_backbone(
    name: str, files: dict[str, list[LogitsFile]], sides: Sequence[str]
) -> pd.DataFrame:
    videos, seeds, protocols = [], {}, set()
    for words in sides:
        side = Side.parse(words)
        if side.method not in files:
            raise ValueError(f"{name} has no logits of {side.method!r}, only of {', '.join(files)}")
        own = files[side.method]
        seeds[words] = [logits.meta["seed"] for logits in own]
        protocols |= {logits.meta["protocol"] for logits in own}
        videos.append(sum(_right(words, side, logits) for logits in own))
    table = pd.concat(videos, axis=1)
    first, *others = seeds
    for other in others:
        if seeds[other] != seeds[first]:
            raise ValueError(
                f"{name}: {first} has the seeds {seeds[first]}, {other} {seeds[other]}"
            )
    if table.isna().any(axis=None):
        raise ValueError(f"{name}: not all sides were tested on the same videos")
    groups = table.astype(int).groupby(level=["class_name", "recording"])
    about = {"num_videos": groups.size(), "seeds": len(seeds[first])}
    return groups.sum().assign(**about, protocol="; ".join(sorted(protocols))).reset_index()


def _right(words: str, side: Side, logits: LogitsFile) -> pd.DataFrame:
    """(n, D) whether the side is right, by class, recording and name of the test videos."""
    part, points = logits.part("test"), side.points(logits)
    classes = [logits.class_names[label] for label in part.labels]
    index = pd.MultiIndex.from_arrays(
        [classes, part.recordings(), part.names], names=["class_name", "recording", "video"]
    )
    columns = [f"{words} {point}" for point in points]
    return pd.DataFrame(side.right(logits, part.names, points), index, columns).sort_index()


def common_points(table: pd.DataFrame, first: str, second: str) -> list[str]:
    """The decision points that both sides have, of all backbones.

    Raises ValueError where a side is not in the table, or not of every backbone.
    """
    found = []
    for side in (first, second):
        columns = [name for name in table if name.startswith(f"{side} ")]
        if not columns:
            sides = dict.fromkeys(name.rpartition(" ")[0] for name in list(table)[len(RECORDING) :])
            raise ValueError(f"no logits of {side!r}, only of {', '.join(sides)}")
        if table[columns].isna().any(axis=None):
            row = table[table[columns].isna().any(axis=1)].iloc[0]
            raise ValueError(f"{' '.join(row[BACKBONE])} has not all exits of {side}")
        found.append([name.rpartition(" ")[2] for name in columns])
    return [point for point in found[0] if point in found[1]]
