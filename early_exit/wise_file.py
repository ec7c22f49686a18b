"""The file wise.json: the WISE weights of a run, and their provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coviar.files import write_json
from early_exit.wise import POOLS, available, decision_points, num_exits

WISE_NAME = "wise.json"


def save_weights(
    path: str | os.PathLike,
    outputs: Sequence[str],
    weights: np.ndarray,
    provenance: dict,
    pool: str = "logits",
    temperatures: Sequence[float] = (),
) -> None:
    """Write weights (D, K) as JSON.

    {"outputs", "pool", "temperatures", "betas": {point: {output: beta}}, "provenance"}
    """
    mask = available(outputs)
    betas = {
        point: {name: row[k] for k, name in enumerate(outputs) if ran[k]}
        for point, row, ran in zip(decision_points(outputs), weights.tolist(), mask)
    }
    content = {
        "outputs": list(outputs),
        "pool": pool,
        "temperatures": [float(value) for value in temperatures],
        "betas": betas,
        "provenance": provenance,
    }
    write_json(path, content)


class WiseWeights(NamedTuple):
    """weights (D, K); pool, and K temperatures of the outputs or none, as in `wise.combine`."""

    weights: np.ndarray
    provenance: dict
    pool: str
    temperatures: tuple[float, ...]


def load_weights(path: str | os.PathLike, outputs: Sequence[str]) -> WiseWeights:
    """A file of `save_weights` made for these outputs.

    Raises FileNotFoundError, or ValueError naming the file and what is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of WISE weights; wise_team_net_logit.py")
    try:
        content = json.loads(path.read_text())
        betas, provenance = content["betas"], content["provenance"]
        if content["outputs"] != list(outputs):
            raise ValueError(f"made for outputs {content['outputs']}, not {list(outputs)}")
        weights = np.zeros((num_exits(outputs) + 1, len(outputs)))
        for d, (point, ran) in enumerate(zip(decision_points(outputs), available(outputs))):
            expected = [name for name, has_run in zip(outputs, ran) if has_run]
            if sorted(betas[point]) != sorted(expected):
                raise ValueError(f"{point} weighs {sorted(betas[point])}, expected {expected}")
            weights[d, ran] = [float(betas[point][name]) for name in expected]
            if not weights[d].any():
                raise ValueError(f"no weight at {point}, so all videos would be of class 0")
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise ValueError("weights must be finite and not negative")
        pool = content.get("pool", "logits")
        temperatures = tuple(map(float, content.get("temperatures", ())))
        _check_pooling(pool, temperatures, outputs)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not WISE weights of these exits ({error})") from error
    return WiseWeights(weights, provenance, pool, temperatures)


def _check_pooling(pool: str, temperatures: Sequence[float], outputs: Sequence[str]) -> None:
    if pool not in POOLS:
        raise ValueError(f"unknown pool {pool!r}")
    if len(temperatures) not in (0, len(outputs)):
        raise ValueError(f"{len(temperatures)} temperatures of {len(outputs)} outputs")
    if not all(0 < value < np.inf for value in temperatures):
        raise ValueError("temperatures must be finite and above 0")
