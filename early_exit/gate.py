"""A learned gate per exit: does going on to the full network change the answer for the better?

Two logistic regressions read what an exit knows (early_exit.confidence.gate_features). One gives
the chance that the full network is right where the exit is wrong, the other the chance of the
reverse. Their difference is the accuracy that going on gains; the policy compares it with what
leaving saves. Confidence alone does not recognise a clip that the full network gets wrong too
(Kubaty et al., Rethinking Calibration for Early-Exit Neural Networks, 2026).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit

from early_exit.confidence import GATE_FEATURES, Gate, Temperature, gate_features

# Penalty on the squared weights. It keeps a gate finite where a line separates its classes.
RIDGE = 1.0
# Going on corrects the label with a chance that rounds to 1, and spoils it with one of 0.
STAY = (
    (0.0,) * len(GATE_FEATURES) + (100.0,),
    (0.0,) * len(GATE_FEATURES) + (-100.0,),
    1.0,
)


def fit_gate(
    combined: np.ndarray, labels: np.ndarray, costs: Sequence[float], temperature: Temperature = 1.0
) -> Gate:
    """The gate of each exit, of combined logits (n, D, C), labels (n,), cumulative costs (D,).

    Thresholds must be chosen on other clips. Nobody leaves at an exit that saves nothing, whatever
    its threshold.
    """
    seen = list(torch.from_numpy(combined).unbind(1))
    right = combined.argmax(axis=2) == labels[:, None]
    saved = costs[-1] - np.asarray(costs[:-1], dtype=float)
    least = saved[saved > 0].min(initial=np.inf)
    gates = []
    for k in range(len(saved)):
        if saved[k] <= 0:
            gates.append(STAY)
            continue
        features = gate_features(seen[: k + 1], temperature).numpy()
        better = logistic(features, right[:, -1] & ~right[:, k])
        worse = logistic(features, right[:, k] & ~right[:, -1])
        gates.append((better, worse, float(least / saved[k])))
    return tuple(gates)


def logistic(features: np.ndarray, happened: np.ndarray) -> tuple[float, ...]:
    """Slopes and bias of an l2-regularised logistic regression of (n, F) features."""
    middle, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1)
    x = np.column_stack([(features - middle) / spread, np.ones(len(features))])
    sign = np.where(happened, 1.0, -1.0)

    def objective(weights):
        margin = sign * (x @ weights)
        slope = x.T @ (-sign * expit(-margin))
        penalty = RIDGE * weights
        penalty[-1] *= 0.01  # the bias hardly counts, since the chance is small
        return np.logaddexp(0, -margin).sum() + penalty @ weights / 2, slope + penalty

    weights = minimize(objective, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
    slopes = weights[:-1] / spread
    return (*map(float, slopes), float(weights[-1] - slopes @ middle))
