"""Ways to combine the networks of the cascade: top-1, cross entropy and calibration of each."""

from __future__ import annotations

import numpy as np

from early_exit import wise
from early_exit.thresholds import confidences
from study.cascade import CASCADE, Population


def wise_rows(population: Population) -> list[dict]:
    """Combinations of the streams at every point, cross-fitted on two halves of the recordings."""
    outputs = [*(name for name, *_ in CASCADE[:-1]), "full"]
    half = population.recordings % 2 == 0
    collected: dict[str, np.ndarray] = {}
    for fit_on, use in ((half, ~half), (~half, half)):
        logits, labels = population.logits[fit_on], population.labels[fit_on]
        scales = wise.fit_temperatures(logits, labels)
        constant = wise.constant_weights(outputs)
        fitted = {
            "constant": (constant, "logits", ()),
            "constant, temperature": (constant, "logits", scales),
            "constant, probability": (constant, "probability", ()),
        }
        for name, pool, own in (
            ("learned", "logits", ()),
            ("learned, temperature", "logits", scales),
            ("learned, probability", "probability", ()),
            ("learned, temperature, probability", "probability", scales),
        ):
            fit = wise.fit(logits, labels, outputs, pool=pool, temperatures=own)
            fitted[name] = (fit.weights, pool, own)
        sgd = wise.fit(logits, labels, outputs, solver="sgd")
        fitted["learned, sgd"] = (sgd.weights, "logits", ())
        for name, how in fitted.items():
            shape = population.combined.shape
            combined = collected.setdefault(name, np.empty(shape))
            combined[use] = wise.combine(population.logits[use], *how)
    rows = []
    for name, combined in collected.items():
        ce = wise.cross_entropy(combined, population.labels)
        top1 = wise.top1_pct(combined, population.labels)
        for d, (stream, *_) in enumerate(CASCADE):
            error = calibration_error_pct(combined[:, d], population.labels)
            row = {"wise": name, "point": stream, "top1_pct": top1[d], "cross_entropy": ce[d]}
            rows.append({**row, "calibration_error_pct": error})
    return rows


def calibration_error_pct(logits: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of the largest probability, over 15 bins of equal width."""
    bins = 15
    sure = confidences(logits[:, None])[:, 0]
    right = logits.argmax(axis=1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gap = np.bincount(place, right - sure, bins)
    return 100 * np.abs(gap).sum() / len(labels)
