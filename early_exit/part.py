"""The logits of one part of a data set, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from early_exit.groups import groups_of

PARTS = ("train", "train_views", "heldout", "test")
# Sums of smaller logits, over views, segments and outputs, are finite in float32.
LARGEST = 1e30


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


def is_list_of_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def checked_part(name: str, part: Part, outputs: int, classes: int) -> Part:
    """The part as NumPy arrays of the format's dtypes; raises LogitsError when it is malformed."""
    where = f"part {name!r}"
    try:
        names, labels, logits = list(part.names), np.asarray(part.labels), np.asarray(part.logits)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LogitsError(f"{where} does not hold names, labels and logits: {error}") from error
    if not names:
        raise LogitsError(f"{where} holds no video: leave the part out instead")
    if not is_list_of_strings(names):
        raise LogitsError(f"{where}: names must be strings")
    if part.groups is not None and not (
        is_list_of_strings(part.groups) and len(part.groups) == len(names)
    ):
        raise LogitsError(f"{where}: groups must be {len(names)} strings, one a video")
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
    _check_finite(f"{where}: logits", logits, names)
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
    _check_finite(f"{where}: segments", segments, names)
    return np.ascontiguousarray(segments)


def _check_finite(what: str, values: np.ndarray, names: Sequence[str]) -> None:
    """values (V, N, ...)."""
    # Not `>`, which is false for NaN.
    good = (np.abs(values) <= min(LARGEST, float(np.finfo(values.dtype).max))).swapaxes(0, 1)
    good = good.reshape(len(names), -1).all(axis=1)
    if not good.all():
        name = names[int(np.argmin(good))]
        raise LogitsError(
            f"{what} of {name!r} are not finite numbers up to {LARGEST:g}; -1e9 rules a class out"
        )
