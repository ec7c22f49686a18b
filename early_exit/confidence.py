"""How sure a classifier is of its answer: one number in [0, 1] from its logits."""

from __future__ import annotations

import math

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
