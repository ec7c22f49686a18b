"""Logits files of a made-up study."""

from __future__ import annotations

import numpy as np

from early_exit.logits import LogitsFile
from early_exit.part import PARTS, Part
from models import STREAMS


def make_logits_file(
    classes=5, videos=120, views=2, exits=(1, 2, 3), seed=0, quality=1.0, arch="resnet18", **meta
):
    """A LogitsFile whose later outputs know more; `quality` scales what the exits know.

    A video's difficulty is shared by its outputs, and each output adds noise of its own: so
    combining outputs helps, and confident clips are mostly right.
    """
    rng = np.random.default_rng(seed)
    outputs = [f"exit{number}" for number in exits] + list(STREAMS)
    skill = np.array([quality * 0.9 * (k + 1) for k in range(len(exits))] + [3.0, 2.0, 2.4])
    parts = {}
    for number, name in enumerate(PARTS):
        labels = np.arange(videos) % classes
        clarity = rng.gamma(2.0, 0.5, videos)
        logits = rng.standard_normal((views, videos, len(outputs), classes))
        rows = np.arange(videos)
        logits[:, rows, :, labels] += (clarity[:, None] * skill)[:, None, :]
        names = [f"class{label}/v_{number}_{row}" for row, label in enumerate(labels)]
        parts[name] = Part(names, labels, logits.astype(np.float32))
    defaults = {
        "data": "toy",
        "split": "split1",
        "seed": seed,
        "method": "team_ce",
        "protocol": "8 segments, selected on heldout",
        "command": "python save_logits.py",
        "model": {"num_classes": classes, "num_segments": 8, "arch": arch, "motion_arch": arch},
        "crop_size": 64,
        "exits": list(exits),
    }
    names = [f"class{number}" for number in range(classes)]
    return LogitsFile({**defaults, **meta}, outputs, names, parts)
