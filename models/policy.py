"""When a clip leaves and what it is called then: thresholds, WISE weights, temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

CONFIDENCES = ("max", "margin", "entropy")


def confidence(logits: torch.Tensor, kind: str = "max", temperature: float = 1.0) -> torch.Tensor:
    """How sure logits (..., C) are, in [0, 1], shape (...).

    On the softmax of logits / temperature: `max` is the largest probability (the paper's rule),
    `margin` the largest minus the second, `entropy` one minus the entropy over log C.
    """
    if kind not in CONFIDENCES:
        raise ValueError(f"unknown confidence {kind!r}; there are {', '.join(CONFIDENCES)}")
    log_p = torch.log_softmax(logits / temperature, dim=-1)
    if kind == "entropy":
        return 1 + (log_p.exp() * log_p).sum(-1) / math.log(logits.shape[-1])
    best = log_p.topk(2, dim=-1).values.exp()  # (..., 2)
    return best[..., 0] if kind == "max" else best[..., 0] - best[..., 1]


@dataclass(frozen=True)
class Policy:
    """A clip leaves at the first exit k with confidence(combined logits) > thresholds[k].

    exits: their E numbers, ascending. thresholds: one per exit; at 1 or above nobody leaves there.
    weights: E + 1 rows (the exits, then the full network) of E + 3 weights over the outputs
    (exits, iframe, mv, residual): a row's combined logits are the weighted sum of the outputs.
    A row may only weigh what has run by then: exits up to its own, and in the last row everything.
    provenance: plain values that say how the policy was made.
    Raises ValueError when these do not fit together.
    """

    exits: tuple[int, ...]
    thresholds: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    temperature: float = 1.0
    confidence: str = "max"
    provenance: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        number = len(self.exits)
        if not number or list(self.exits) != sorted(set(self.exits)):
            raise ValueError(f"a policy's exits are ascending numbers, not {self.exits}")
        if len(self.thresholds) != number or any(map(math.isnan, self.thresholds)):
            raise ValueError(f"expected {number} thresholds, one per exit, not {self.thresholds}")
        if [len(row) for row in self.weights] != [number + 3] * (number + 1):
            raise ValueError(f"weights of {number} exits are {number + 1} rows of {number + 3}")
        if not all(math.isfinite(weight) for row in self.weights for weight in row):
            raise ValueError("a policy's weights must be finite")
        if any(any(row[k + 1 :]) for k, row in enumerate(self.weights[:-1])):
            raise ValueError("an exit's weights must be 0 for outputs that come after it")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"a policy's temperature is above 0, not {self.temperature}")
        if self.confidence not in CONFIDENCES:
            raise ValueError(f"unknown confidence {self.confidence!r}; one of {CONFIDENCES}")
