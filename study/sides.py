"""One side of a comparison: whose logits, how they are combined, and which videos are right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coviar.folder import files_below
from early_exit import wise
from early_exit.logits import LOGITS_NAME, LogitsFile
from models import STREAMS

Runs = dict[str, dict[tuple, LogitsFile]]  # by method, then by (data, split, seed, backbone)


class Side(NamedTuple):
    """One side of a pair: whose logits, and how they are combined."""

    method: str
    combination: str
    fit_on: str = "heldout"
    solver: str = "exact"

    @classmethod
    def parse(cls, text: str) -> Side:
        """Read METHOD/COMBINATION; raises ValueError saying what would be right."""
        method, _, rest = text.partition("/")
        combination, *how = rest.split(":")
        side = cls(method, combination, *how[:2])
        fits = side.fit_on in ("heldout", "train", "train_views") and side.solver in wise.SOLVERS
        known = combination in wise.COMBINATIONS or set(side.streams) <= set(STREAMS)
        if not method or not known or not fits or len(how) > 2 * (combination == "wise"):
            raise ValueError(
                f"{text!r} is no METHOD/COMBINATION such as prog_kd/vanilla, prog_kd/constant,"
                " prog_kd/wise, prog_kd/wise:train_views:sgd or prog_kd/iframe+mv"
            )
        return side

    @property
    def streams(self) -> list[str]:
        """The streams that are summed, when that is the combination."""
        return [] if self.combination in wise.COMBINATIONS else self.combination.split("+")

    def points(self, logits: LogitsFile) -> list[str]:
        """The decision points of this side."""
        points = wise.decision_points(logits.outputs)
        return points[-1:] if self.streams else points

    def weights(self, logits: LogitsFile) -> np.ndarray:
        """(D, K) of this side's combination. WISE is fitted here."""
        if self.streams:
            row = [float(output in self.streams) for output in logits.outputs]
            return np.tile(row, (len(wise.decision_points(logits.outputs)), 1))
        if self.combination == "vanilla":
            return wise.vanilla_weights(logits.outputs)
        if self.combination == "constant":
            return wise.constant_weights(logits.outputs)
        rows, labels = logits.samples(self.fit_on)
        return wise.fit(rows, labels, logits.outputs, solver=self.solver).weights

    def right(self, logits: LogitsFile, names: list[str], points: list[str]) -> np.ndarray:
        """(n, D) 1.0 where the side is right about the named test videos at these points."""
        part = logits.part("test").select(names)
        combined = wise.combine(part.logits.mean(axis=0), self.weights(logits))
        right = combined.argmax(axis=2) == part.labels[:, None]
        known = wise.decision_points(logits.outputs)
        return right[:, [known.index(point) for point in points]].astype(float)


def load_runs(roots: Sequence[Path], by_backbone: bool = False) -> Runs:
    """Every logits file below the roots. Raises ValueError for two files of one run.

    by_backbone: runs may also differ by their backbone; else the fourth part of a key is None.
    """
    runs: Runs = defaultdict(dict)
    for path in sorted({path for root in roots for path in files_below(root, [LOGITS_NAME])}):
        logits = LogitsFile.load(path)
        meta = logits.meta
        backbone = meta.get("backbone_digest", "") if by_backbone else None
        key = (meta["data"], meta["split"], meta["seed"], backbone)
        if key in runs[meta["method"]]:
            name = f"{meta['method']} {key[:3]}"
            raise ValueError(f"{path}: another file holds {name} too; name one")
        runs[meta["method"]][key] = logits
    if not runs:
        raise ValueError(f"no {LOGITS_NAME} below {', '.join(map(str, roots))}")
    return dict(runs)
