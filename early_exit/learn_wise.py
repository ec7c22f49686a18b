"""Learn the WISE weights of a logits file and write them beside it, with their provenance."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import scipy

from dataset_team.identity import file_digest
from early_exit import wise
from early_exit.logits import LogitsFile
from early_exit.outside import results_folder
from early_exit.wise_file import WISE_NAME, save_weights
from training.provenance import environment


def learn_wise(
    path: Path,
    logits: LogitsFile,
    fit_on: str = "heldout",
    alpha: float = 0.01,
    solver: str = "exact",
    pool: str = "logits",
    temperature: bool = False,
    folder: Path | None = None,
) -> tuple[Path, np.ndarray, tuple[float, ...]]:
    """Learn the weights of the logits in `path` and write them into `folder` (default: the run's).

    Returns the file written, the weights and the output temperatures. Raises ValueError.
    """
    rows, labels = logits.samples(fit_on)
    scales = tuple(wise.fit_temperatures(rows, labels).tolist()) if temperature else ()
    fit = wise.fit(rows, labels, logits.outputs, alpha, solver, pool, scales)
    points = wise.decision_points(logits.outputs)
    provenance = {
        **{key: logits.meta[key] for key in ("data", "split", "seed", "method", "protocol")},
        "logits_sha256": file_digest(path),
        **{key: logits.meta[key] for key in ("route", "evidence") if key in logits.meta},
        "fit_on": fit_on,
        "num_videos": len(logits.part(fit_on).names),
        "num_samples": len(labels),
        "solver": solver,
        "alpha": alpha,
        "objective": dict(zip(points, fit.objective.tolist())),
        "ce": dict(zip(points, fit.ce.tolist())),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **environment(),
        "scipy": scipy.__version__,
    }
    target = (folder or results_folder(path)) / WISE_NAME
    save_weights(target, logits.outputs, fit.weights, provenance, pool, scales)
    return target, fit.weights, scales
