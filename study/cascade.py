"""Real scores of four networks on the test videos of UCF-101 and HMDB-51, as a cascade of exits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from early_exit.groups import groups_of

DATA, SPLITS = ("ucf101", "hmdb51"), (1, 2, 3)
# In this order: name, place in the score files, network, input channels.
CASCADE = (
    ("mv", 1, "resnet18", 2),
    ("residual", 2, "resnet18", 3),
    ("iframe", 0, "resnet152", 3),
    ("flow", 3, "resnet18", 2),
)


class Population(NamedTuple):
    """All test videos of a split: logits (n, K, C) of the streams, and their sums so far."""

    logits: np.ndarray
    combined: np.ndarray
    labels: np.ndarray
    recordings: np.ndarray
    costs: np.ndarray


def scores_name(data: str) -> str:
    return f"coviar_{data}.npz"


def load_population(folder: Path, data: str, split: int, costs: np.ndarray) -> Population:
    with np.load(folder / scores_name(data)) as file:
        logits, labels, names = (
            file[f"split{split}_{key}"] for key in ("logits", "labels", "names")
        )
    logits = logits[:, [place for _, place, _, _ in CASCADE]].astype(float)
    recordings = np.unique(groups_of(names.tolist()), return_inverse=True)[1]
    return Population(logits, np.cumsum(logits, axis=1), labels, recordings, costs)
