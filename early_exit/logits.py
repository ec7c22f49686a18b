"""Logits files: what a trained network says about every video, keyed by the video's name.

One file holds one run (data, split, seed, method). On disk it is a plain dict of tensors and Python
values, read with `weights_only=True`, so a file from a stranger cannot run code:

    {"meta": {...}, "class_names": [C strings],
     "outputs": [K strings: "exit1", "exit2", .., "iframe", "mv", "residual"],
     "parts": {"train" | "train_views" | "heldout" | "test":
               {"names": [N strings], "groups": [N strings],
                "labels": (N,) int64, "logits": (V, N, K, C) float32,
                "segments": (V, N, T, K, C) float16}}}

V counts views. On `train_views` each view is augmented and a sample of its own. On `heldout` and
`test` the views are the clips x crops of one video, and the video's logits are their mean
(`samples`); `train` has one view. `groups` are
the recordings, where a file beside the lists names them; else the names tell. `segments`,
written by `save_logits.py --per-segment`, are the outputs of each segment alone, in the order of
`dataset_team.sampling.reading_order`. `logits` are their mean, computed before the rounding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from early_exit.part import PARTS, LogitsError, Part, checked_part, is_list_of_strings
from early_exit.wise import num_exits, output_names
from training.tensor_file import BEST, load_tensors, save_tensors, weights_digest

LOGITS_NAME = "logits.pt"
# What scripts and tables must know about the origin of the logits.
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


class StaleLogits(LogitsError):
    """Logits of exits that have been trained anew since."""


@dataclass
class LogitsFile:
    """One run's logits. `parts` takes NumPy arrays or CPU tensors and holds NumPy arrays.

    meta: plain values, REQUIRED_META among them (`model`: the dict that TeamNet(**model) takes).
    `backbone_digest` and `exits_digest`, if there, are `weights_digest` of what made the logits.
    outputs: the K outputs: exits by rising number ("exit1", "exit2", ..), then STREAMS. Logits of
    another network (`early_exit.outside`) have names of their own, the full network's last.
    gmacs: what leaving at each output of another network costs. None for TEAM-Net, whose cost
    `MACs.team_net.exit_gmacs` counts. Raises LogitsError when these do not fit together.
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
            name: checked_part(name, part, len(self.outputs), len(self.class_names))
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
        """One part. Raises LogitsError, naming the parts there are, when it is missing."""
        if name not in self.parts:
            raise LogitsError(
                f"these logits have no part {name!r}, only {', '.join(self.parts)}: "
                "write them again with save_logits.py including that part"
            )
        return self.parts[name]

    def samples(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(n, K, C) logits and (n,) labels of a part, one row per decision.

        On `train_views` each augmented view is a row. Elsewhere a row is a video, the mean of its
        views.
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
        """Read a file; raises FileNotFoundError, or LogitsError naming the file and its fault.

        Raises StaleLogits if the checkpoint beside it holds other exits than the logits are of.
        """
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path}: no such logits file; save_logits.py writes them")
        try:
            content = load_tensors(path)
        except ValueError as error:
            raise LogitsError(f"{path}: not a logits file of save_logits.py ({error})") from error
        try:
            found = cls._from_content(content)
        except LogitsError as error:
            raise LogitsError(f"{path}: {error}") from error
        _check_exits(found.meta.get("exits_digest"), Path(path))
        return found

    @classmethod
    def _from_content(cls, content: object) -> LogitsFile:
        _check_keys("the file", content, {"meta", "outputs", "class_names", "parts"})
        if not isinstance(content["parts"], dict):
            raise LogitsError("'parts' is not a dict of parts")
        for name, part in content["parts"].items():
            _check_keys(
                f"part {name!r}", part, {"names", "labels", "logits"}, {"segments", "groups"}
            )
        for key in ("outputs", "class_names"):
            if not is_list_of_strings(content[key]):
                raise LogitsError(f"{key!r} is not a list of strings")
        parts = {name: Part(**part) for name, part in content["parts"].items()}
        return cls(content["meta"], content["outputs"], content["class_names"], parts)


def _plain_part(part: Part) -> dict:
    arrays = {"labels": part.labels, "logits": part.logits, "segments": part.segments}
    tensors = {key: torch.from_numpy(x) for key, x in arrays.items() if x is not None}
    groups = {} if part.groups is None else {"groups": part.groups}
    return {"names": part.names, **groups, **tensors}


def _check_exits(digest: str | None, path: Path) -> None:
    best = path.parent / BEST
    if digest is None or not best.is_file():
        return
    heads = load_tensors(best).get("heads")
    if heads is not None and weights_digest(heads) != digest:
        raise StaleLogits(
            f"{path}: these are logits of other exits than {best} holds now (digest {digest}, not"
            f" {weights_digest(heads)}): run save_logits.py again"
        )


def _check_keys(
    what: str, content: object, expected: set[str], optional: Set[str] = frozenset()
) -> None:
    if not isinstance(content, dict):
        raise LogitsError(f"{what} holds a {type(content).__name__}, expected a dict")
    if set(content) - optional != expected:
        raise LogitsError(f"{what} has the keys {sorted(content, key=str)}, not {sorted(expected)}")


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
    expected = output_names(exits)
    if outputs != expected:
        raise LogitsError(f"outputs are {outputs}, but meta's exits call for {expected}")
