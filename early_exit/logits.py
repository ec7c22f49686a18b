"""Logits files: what a trained network says about every video, keyed by the video's name.

One file holds one run (data, split, seed, method). On disk it is a plain dict of tensors and Python
values, read with `weights_only=True`, so a file from a stranger cannot run code:

    {"meta": {...}, "class_names": [C strings],
     "outputs": [K strings: "exit1", "exit2", .., "iframe", "mv", "residual"],
     "parts": {"train" | "train_views" | "heldout" | "test":
               {"names": [N strings], "labels": (N,) int64, "logits": (V, N, K, C) float32,
                "segments": (V, N, T, K, C) float16}}}

V counts views. On `train_views` they are augmentations, each a sample of its own; elsewhere they
are the clips x crops of one video, and the video's logits are their mean (`samples`). `segments`
is there where save_logits.py was asked for it: the outputs of each segment alone, in the order of
`dataset_team.sampling.reading_order`; `logits` are their mean, computed before the rounding.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from early_exit.groups import groups_of
from early_exit.wise import num_exits
from models import STREAMS
from training.tensor_file import load_tensors, save_tensors

LOGITS_NAME = "logits.pt"
PARTS = ("train", "train_views", "heldout", "test")
# What the scripts and tables need to know of where the logits come from.
REQUIRED_META = (
    "data",
    "split",
    "seed",
    "method",
    "protocol",
    "command",
    "model",
    "crop_size",
    "exits",
)


class LogitsError(ValueError):
    """A logits file or its content is not what its format says."""


class Part(NamedTuple):
    """Logits of one part of the data: names (N strings), labels (N,), logits (V, N, K, C).

    groups: the recording of each video; None where the names tell. segments (V, N, T, K, C): the
    logits of each segment alone, in reading order; None where they were not kept.
    """

    names: list[str]
    labels: np.ndarray
    logits: np.ndarray
    groups: list[str] | None = None
    segments: np.ndarray | None = None

    def recordings(self) -> list[str]:
        """The group of each video: as given, or read from the videos' names."""
        return groups_of(self.names) if self.groups is None else list(self.groups)

    def select(self, names: Sequence[str]) -> Part:
        """The rows of the videos `names`, in that order: `b.select(a.names)` joins b to a.

        Raises LogitsError when a name is not in this part.
        """
        row = {name: number for number, name in enumerate(self.names)}
        missing = [name for name in names if name not in row]
        if missing:
            raise LogitsError(
                f"{len(missing)} of {len(names)} videos have no logits here, "
                f"the first is {missing[0]!r}: write the logits again from the same lists"
            )
        rows = [row[name] for name in names]
        groups = None if self.groups is None else [self.groups[n] for n in rows]
        segments = None if self.segments is None else self.segments[:, rows]
        return Part(list(names), self.labels[rows], self.logits[:, rows], groups, segments)


@dataclass
class LogitsFile:
    """One run's logits. `parts` takes NumPy arrays or CPU tensors and holds NumPy arrays.

    meta: plain values, REQUIRED_META among them (`model`: the dict that TeamNet(**model) takes).
    outputs: the K outputs: exits by rising number ("exit1", "exit2", ..), then STREAMS. Logits of
    another network (`early_exit.outside`) have their own names, the last of the full network.
    gmacs: of such logits, the cost of leaving at each output; None for TEAM-Net, whose cost is
    counted, see `MACs.team_net.exit_gmacs`.
    Raises LogitsError when anything does not fit together.
    """

    meta: dict
    outputs: list[str]
    class_names: list[str]
    parts: dict[str, Part]
    gmacs: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_meta(self.meta)
        self.outputs = list(self.outputs)
        self.class_names = list(self.class_names)
        if self.gmacs is None:
            _check_outputs(self.outputs, self.meta["exits"])
        if not num_exits(self.outputs) and self.num_segments is None:
            raise LogitsError("there is neither an exit nor a segment's logits to leave at")
        if not self.parts:
            raise LogitsError("there is no part; expected at least one of " + ", ".join(PARTS))
        for name in self.parts:
            if name not in PARTS:
                raise LogitsError(f"unknown part {name!r}; parts are {', '.join(PARTS)}")
        self.parts = {
            name: _checked_part(name, part, len(self.outputs), len(self.class_names))
            for name, part in self.parts.items()
        }

    @property
    def num_segments(self) -> int | None:
        """T of the logits per segment; None where no part has them."""
        found = {
            np.shape(part.segments)[2] for part in self.parts.values() if np.ndim(part.segments) > 2
        }
        if len(found) > 1:
            raise LogitsError(f"the parts have different numbers of segments: {sorted(found)}")
        return found.pop() if found else None

    @property
    def exits(self) -> list[str]:
        """Names of the exits, first to last."""
        return self.outputs[: num_exits(self.outputs)]

    def part(self, name: str) -> Part:
        """One part; raises LogitsError naming those present when it is not there."""
        if name not in self.parts:
            raise LogitsError(
                f"these logits have no part {name!r}, only {', '.join(self.parts)}: "
                "write them again with save_logits.py including that part"
            )
        return self.parts[name]

    def samples(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(n, K, C) logits and (n,) labels of a part, one row per decision to be made.

        On `train_views` each augmented view is a row; elsewhere a video is one, its views averaged.
        """
        part = self.part(name)
        views, videos, outputs, classes = part.logits.shape
        if name == "train_views":
            rows = part.logits.reshape(views * videos, outputs, classes)
            return rows, np.tile(part.labels, views)
        return part.logits.mean(axis=0), part.labels

    def groups(self, name: str) -> list[str]:
        """The recording of each video of a part: as given, or read from the videos' names."""
        return self.part(name).recordings()

    def save(self, path: str | os.PathLike) -> None:
        """Write the file whole or not at all."""
        content = {
            "meta": self.meta,
            "outputs": self.outputs,
            "class_names": self.class_names,
            "parts": {name: _plain_part(part) for name, part in self.parts.items()},
        }
        save_tensors(path, content)

    @classmethod
    def load(cls, path: str | os.PathLike) -> LogitsFile:
        """Read a file; raises FileNotFoundError, or LogitsError naming the file and its fault."""
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path}: no such logits file; save_logits.py writes them")
        try:
            content = load_tensors(path)
        except ValueError as error:
            raise LogitsError(f"{path}: not a logits file of save_logits.py ({error})") from error
        try:
            return cls._from_content(content)
        except LogitsError as error:
            raise LogitsError(f"{path}: {error}") from error

    @classmethod
    def _from_content(cls, content: object) -> LogitsFile:
        _check_keys("the file", content, {"meta", "outputs", "class_names", "parts"})
        if not isinstance(content["parts"], dict):
            raise LogitsError("'parts' is not a dict of parts")
        for name, part in content["parts"].items():
            _check_keys(f"part {name!r}", part, {"names", "labels", "logits"}, {"segments"})
        for key in ("outputs", "class_names"):
            if not _is_list_of_strings(content[key]):
                raise LogitsError(f"{key!r} is not a list of strings")
        parts = {name: Part(**part) for name, part in content["parts"].items()}
        return cls(content["meta"], content["outputs"], content["class_names"], parts)


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, in hex: ties a result to the logits it was made from."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _plain_part(part: Part) -> dict:
    arrays = {"labels": part.labels, "logits": part.logits, "segments": part.segments}
    tensors = {key: torch.from_numpy(x) for key, x in arrays.items() if x is not None}
    return {"names": part.names, **tensors}


def _check_keys(
    what: str, content: object, expected: set[str], optional: Set[str] = frozenset()
) -> None:
    if not isinstance(content, dict):
        raise LogitsError(f"{what} holds a {type(content).__name__}, expected a dict")
    if set(content) - optional != expected:
        raise LogitsError(f"{what} has the keys {sorted(content, key=str)}, not {sorted(expected)}")


def _is_list_of_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_meta(meta: object) -> None:
    if not isinstance(meta, dict):
        raise LogitsError(f"meta is a {type(meta).__name__}, expected a dict of plain values")
    missing = [key for key in REQUIRED_META if key not in meta]
    if missing:
        raise LogitsError(f"meta lacks {', '.join(missing)}")
    if not _is_plain(meta):
        raise LogitsError("meta may only hold plain values (str, numbers, None, lists, dicts)")


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    # Subclasses such as np.float64 pickle as code that weights_only loading refuses.
    return value is None or type(value) in (str, bool, int, float)


def _check_outputs(outputs: list[str], exits: Sequence[int]) -> None:
    numbers = isinstance(exits, (list, tuple)) and all(type(exit_) is int for exit_ in exits)
    if not (numbers and min(exits, default=1) >= 1 and list(exits) == sorted(set(exits))):
        raise LogitsError(f"meta's exits are {exits}, expected a list of rising numbers from 1")
    expected = [f"exit{number}" for number in exits] + list(STREAMS)
    if outputs != expected:
        raise LogitsError(f"outputs are {outputs}, but meta's exits call for {expected}")


def _checked_part(name: str, part: Part, outputs: int, classes: int) -> Part:
    """The part as NumPy arrays of the format's dtypes; raises LogitsError when it is malformed."""
    where = f"part {name!r}"
    try:
        names, labels, logits = list(part.names), np.asarray(part.labels), np.asarray(part.logits)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LogitsError(f"{where} does not hold names, labels and logits: {error}") from error
    if not names:
        raise LogitsError(f"{where} holds no video: leave the part out instead")
    if not _is_list_of_strings(names):
        raise LogitsError(f"{where}: names must be strings")
    video, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise LogitsError(f"{where}: {video!r} appears {count} times, each video may appear once")
    if (
        logits.ndim != 4
        or logits.shape[0] < 1
        or logits.shape[1:] != (len(names), outputs, classes)
    ):
        raise LogitsError(
            f"{where}: logits have the shape {logits.shape}, expected "
            f"(views, {len(names)} names, {outputs} outputs, {classes} classes)"
        )
    if logits.dtype.kind != "f":
        raise LogitsError(f"{where}: logits are {logits.dtype}, expected floats")
    finite = np.isfinite(logits).all(axis=(0, 2, 3))
    if not finite.all():
        raise LogitsError(f"{where}: logits of {names[int(np.argmin(finite))]!r} are not finite")
    if labels.shape != (len(names),) or labels.dtype.kind not in "iu":
        raise LogitsError(
            f"{where}: labels are {labels.dtype} of shape {labels.shape}, "
            f"expected integers of shape ({len(names)},)"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise LogitsError(
            f"{where}: labels reach from {labels.min()} to {labels.max()}, "
            f"but there are {classes} classes"
        )
    segments = part.segments
    if segments is not None:
        segments = _checked_segments(where, np.asarray(segments), logits.shape, names)
    logits = np.ascontiguousarray(logits, dtype=np.float32)
    return Part(names, labels.astype(np.int64), logits, part.groups, segments)


def _checked_segments(
    where: str, segments: np.ndarray, shape: tuple[int, ...], names: Sequence[str]
) -> np.ndarray:
    views, number, outputs, classes = shape
    good = segments.ndim == 5 and segments.shape[2] >= 1 and segments.dtype.kind == "f"
    if not good or (*segments.shape[:2], *segments.shape[3:]) != shape:
        raise LogitsError(
            f"{where}: segments are {segments.dtype} of shape {segments.shape}, expected floats of"
            f" shape ({views} views, {number} names, segments, {outputs} outputs, {classes}"
            " classes)"
        )
    finite = np.isfinite(segments).all(axis=(0, 2, 3, 4))
    if not finite.all():
        name = names[int(np.argmin(finite))]
        raise LogitsError(f"{where}: segments of {name!r} are not finite")
    return np.ascontiguousarray(segments)
