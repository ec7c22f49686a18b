"""Logits of any early-exit network, from an .npz file, as the object that our own files give.

    logits      (n, exits, classes) floats, the last exit is the full network; or
                (n, segments, exits, classes), of each segment alone, in the order of reading
    labels      (n,) integers
    names       (n,) strings, each once
    groups      (n,) strings or integers, optional: the recording a video was cut from
    gmacs       (exits,) rising, optional: 1e9 multiply-accumulates of leaving at each exit; with
                segments, of one segment
    exit_names  (exits,) strings, optional; none is "all", only the last may be "full"

Without `groups`, names like those of UCF-101 or HMDB-51 tell the group; any other video is a group
of its own. Without `gmacs` an exit costs its number.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataset_team.list_file import plain_path, without_extension
from early_exit.logits import LogitsFile
from early_exit.part import LogitsError, Part
from models import ALL, FULL, STREAMS

SUFFIX = ".npz"
REQUIRED = ("logits", "labels", "names")
OPTIONAL = ("groups", "gmacs", "exit_names")
OUTSIDE = "outside"  # the method in their meta


def load_any(path: Path, test_path: Path | None = None) -> LogitsFile:
    """An .npz file as `load_outside` reads it, or a file of save_logits.py."""
    if path.suffix == SUFFIX:
        return load_outside(path, test_path)
    if test_path is not None:
        raise LogitsError(f"{path} holds its test videos itself; {test_path} has no place there")
    return LogitsFile.load(path)


def results_folder(path: Path) -> Path:
    """The folder of results made from a logits file: that of logits.pt, scores/ for scores.npz."""
    return path.with_suffix("") if path.suffix == SUFFIX else path.parent


def load_outside(path: str | os.PathLike, test_path: str | os.PathLike | None = None) -> LogitsFile:
    """The videos of `path` as the part "heldout" and, where given, those of `test_path` as "test".

    Raises FileNotFoundError, or LogitsError naming the file and its fault: arrays that are missing,
    do not fit each other or are not finite; two files of different exits or classes; videos or
    groups that are in both.
    """
    paths = {"heldout": Path(path)}
    if test_path is not None:
        paths["test"] = Path(test_path)
    read = {name: _read(one) for name, one in paths.items()}
    try:
        if test_path is not None:
            _check_apart(read["heldout"], read["test"])
        first = read["heldout"]
        return LogitsFile(
            _meta(paths["heldout"], first["logits"].shape[-2]),
            first["exit_names"],
            [str(number) for number in range(first["logits"].shape[-1])],
            {name: _part(arrays) for name, arrays in read.items()},
            first["gmacs"],
        )
    except LogitsError as error:
        raise LogitsError(f"{' and '.join(map(str, paths.values()))}: {error}") from error


def _part(arrays: dict) -> Part:
    logits, segments = arrays["logits"], None
    if logits.ndim == 4:
        segments = logits[None]
        with np.errstate(over="ignore", invalid="ignore"):  # the part is checked
            logits = logits.mean(1, dtype=np.result_type(logits, np.float32))
    return Part(arrays["names"], arrays["labels"], logits[None], arrays["groups"], segments)


def _meta(path: Path, exits: int) -> dict:
    return {
        **{"data": path.stem, "split": "", "seed": 0, "method": OUTSIDE},
        **{"protocol": "outside logits, a video is one row", "command": "", "model": {}},
        **{"crop_size": 0, "exits": list(range(1, exits))},
    }


def _read(path: Path) -> dict:
    """The arrays of one file, checked, with defaults for what may be absent."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of logits")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (AttributeError, EOFError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise LogitsError(f"{path}: not an .npz file of plain arrays ({error})") from error
    try:
        return _checked(arrays)
    except LogitsError as error:
        raise LogitsError(f"{path}: {error}") from error


def _checked(arrays: dict) -> dict:
    missing = [key for key in REQUIRED if key not in arrays]
    unknown = sorted(set(arrays) - {*REQUIRED, *OPTIONAL})
    if missing or unknown:
        wrong = f"lacks {', '.join(missing)}" if missing else f"holds {', '.join(unknown)} as well"
        known = f"{', '.join(REQUIRED)}, and may hold {', '.join(OPTIONAL)}"
        raise LogitsError(f"the file {wrong}; it needs {known}")
    logits, labels, names = (arrays[key] for key in REQUIRED)
    if logits.ndim not in (3, 4) or logits.dtype.kind != "f":
        raise LogitsError(
            f"logits are {logits.dtype} of shape {logits.shape}, expected floats of shape "
            "(videos, exits, classes), or (videos, segments, exits, classes)"
        )
    number, *segments, exits, classes = logits.shape
    if exits < 2 and not segments:
        raise LogitsError("one exit only: nobody can leave before the full network")
    if classes < 2:
        raise LogitsError("one class only: there is nothing to decide")
    if names.dtype.kind != "U" or names.shape != (number,):
        raise LogitsError(
            f"names do not match the logits: {names.dtype} of shape {names.shape}, expected "
            f"{number} strings"
        )
    if labels.shape != (number,) or labels.dtype.kind not in "iu":
        raise LogitsError(
            f"labels do not match the logits: {labels.dtype} of shape {labels.shape}, expected "
            f"{number} integers"
        )
    if number > 1 and len(np.unique(labels)) == 1:
        raise LogitsError(f"one class only: every label is {labels[0]}, so accuracy says nothing")
    return {
        **{"logits": logits, "labels": labels, "names": names.tolist()},
        "groups": _groups(arrays.get("groups"), number),
        "gmacs": tuple(cost * (segments or [1])[0] for cost in _gmacs(arrays.get("gmacs"), exits)),
        "exit_names": _exit_names(arrays.get("exit_names"), exits),
    }


def _groups(groups: np.ndarray | None, number: int) -> list[str] | None:
    if groups is None:
        return None
    if groups.shape != (number,) or groups.dtype.kind not in "Uiu":
        raise LogitsError(
            f"groups do not match the logits: {groups.dtype} of shape {groups.shape}, expected "
            f"{number} strings or integers"
        )
    return [str(group) for group in groups.tolist()]


def _gmacs(gmacs: np.ndarray | None, exits: int) -> tuple[float, ...]:
    if gmacs is None:
        return tuple(map(float, range(1, exits + 1)))
    if gmacs.shape != (exits,) or gmacs.dtype.kind not in "fiu":
        raise LogitsError(
            f"gmacs are {gmacs.dtype} of shape {gmacs.shape}, expected {exits} floats"
        )
    good = np.isfinite(gmacs).all() and gmacs[0] >= 0 and (np.diff(gmacs) > 0).all()
    if not good:
        raise LogitsError(f"gmacs are {gmacs.tolist()}: a later exit costs more than those before")
    return tuple(map(float, gmacs))


def _exit_names(names: np.ndarray | None, exits: int) -> list[str]:
    if names is None:
        return [*(f"exit{number}" for number in range(1, exits)), "full"]
    if names.shape != (exits,) or names.dtype.kind != "U" or len(set(names.tolist())) < exits:
        raise LogitsError(f"exit_names are {names.tolist()}, expected {exits} different strings")
    meaning = {ALL: "every video, wherever it leaves", FULL: "the full network, which is last"}
    for name in names.tolist():
        if name in meaning and (name, name) != (names[-1], FULL):
            raise LogitsError(f"an exit is named {name!r}, which means {meaning[name]}: rename it")
    if tuple(names.tolist()[-len(STREAMS) :]) == STREAMS:
        raise LogitsError(f"exit_names end with {', '.join(STREAMS)}, names that mean TEAM-Net's")
    return names.tolist()


def _check_apart(heldout: dict, test: dict) -> None:
    for key in ("exit_names", "gmacs"):
        if heldout[key] != test[key]:
            raise LogitsError(f"{key} differ: {heldout[key]} and {test[key]}")
    if heldout["logits"].shape[1:] != test["logits"].shape[1:]:
        raise LogitsError("the numbers of classes, or of segments, differ")
    if (heldout["groups"] is None) != (test["groups"] is None):
        raise LogitsError(
            "only one of them has groups, so recordings cannot be told apart: give both or none"
        )
    both = sorted(_videos(heldout["names"]) & _videos(test["names"]))
    if both:
        raise LogitsError(f"{len(both)} videos are in both files, the first is {both[0]!r}")
    crossing = sorted(set(_part(heldout).recordings()) & set(_part(test).recordings()))
    if crossing:
        raise LogitsError(
            f"{len(crossing)} groups have videos in both files, the first is {crossing[0]!r}: move "
            "whole groups to one side"
        )


def _videos(names: Sequence[str]) -> set[str]:
    """The names, however they are spelled and whatever their extension."""
    return {without_extension(plain_path(name)) for name in names}
