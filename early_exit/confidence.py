"""How sure a decision is, in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Union

import torch

# PLAIN_CONFIDENCES read the logits of the present exit; the others also those of earlier exits.
PLAIN_CONFIDENCES = ("max", "margin", "entropy")
CONFIDENCES = (*PLAIN_CONFIDENCES, "patience", "gate")
# What the gate reads at an exit, see `gate_features`; the last number of its weights is the bias.
GATE_FEATURES = ("lead", "entropy", "doubt", "agrees", "before")


def confidence(logits: torch.Tensor, kind: str = "max", temperature: float = 1.0) -> torch.Tensor:
    """How sure logits (..., C) are, in [0, 1], shape (...).

    On the softmax of logits / temperature: `max` is the largest probability (the paper's rule),
    `margin` the largest minus the second, `entropy` one minus the entropy over log C.
    """
    if kind not in PLAIN_CONFIDENCES:
        raise ValueError(f"unknown confidence {kind!r}; there are {', '.join(PLAIN_CONFIDENCES)}")
    log_p = torch.log_softmax(logits / temperature, dim=-1)
    if kind == "entropy":
        return 1 + (log_p.exp() * log_p).sum(-1) / math.log(logits.shape[-1])
    best = log_p.topk(2, dim=-1).values.exp()  # (..., 2)
    return best[..., 0] if kind == "max" else best[..., 0] - best[..., 1]


def confidence_at(
    seen: Sequence[torch.Tensor], points: int, kind: str, temperature: Temperature, gate: Gate = ()
) -> torch.Tensor:
    """(n,) in [0, 1]: how sure the last of the combined logits `seen` is, each (n, C).

    `seen` holds the decision points so far, of `points` in all. Besides the plain kinds:
    `patience` is (a + p) / points: a counts the exits directly before this one that name the same
    label (Zhou et al., BERT Loses Patience, NeurIPS 2020), p is the largest probability.
    `gate` is (1 - s * gain) / 2: gain is the learned chance that the full network is right where
    this exit is wrong, minus the chance of the reverse. s is 1 for the exit that saves least, and
    smaller in proportion where leaving saves more. The full network has no gate and gives `max`.
    Raises ValueError where an exit has none.
    """
    last = len(seen) - 1
    scale = temperature_at(temperature, last)
    if kind == "patience":
        labels = torch.stack([logits.argmax(-1) for logits in seen])  # (d + 1, n)
        same = (labels[:-1] == labels[-1]).flip(0).long()
        return (same.cumprod(0).sum(0) + confidence(seen[-1], "max", scale)) / points
    if kind == "gate" and last < points - 1:
        if last >= len(gate):
            raise ValueError(f"the confidence `gate` has no weights for exit {last + 1}")
        better, worse, share = gate[last]
        features = gate_features(seen, temperature)
        gain = _chance(features, better) - _chance(features, worse)
        return (1 - share * gain) / 2
    return confidence(seen[-1], "max" if kind == "gate" else kind, scale)


def gate_features(seen: Sequence[torch.Tensor], temperature: Temperature) -> torch.Tensor:
    """(n, len(GATE_FEATURES)) of the last of the combined logits `seen`, each (n, C).

    lead: log of one plus the largest logit's lead over the second. entropy: of the softmax over
    log C. doubt: -log of the largest probability. agrees: 1 where the exit before names the same
    label. before: the probability that the exit before gives to this label. Both are 0 at exit 1.
    """
    last = len(seen) - 1
    logits = seen[-1] / temperature_at(temperature, last)
    two = logits.topk(2, dim=-1).values
    doubt = torch.logsumexp(logits, -1) - two[:, 0]
    found = [(1 + two[:, 0] - two[:, 1]).log(), 1 - confidence(logits, "entropy"), doubt]
    if last:
        before = (seen[-2] / temperature_at(temperature, last - 1)).softmax(-1)
        label = logits.argmax(-1, keepdim=True)
        found.append((before.argmax(-1, keepdim=True) == label)[:, 0].to(logits.dtype))
        found.append(before.gather(-1, label)[:, 0])
    else:
        found += [torch.zeros_like(doubt)] * 2
    return torch.stack(found, -1)


def _chance(features: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    slopes = features.new_tensor(weights[:-1])
    return torch.sigmoid(features @ slopes + weights[-1])


def temperature_at(temperature: Temperature, point: int) -> float:
    return temperature[point] if isinstance(temperature, tuple) else temperature


# One for all decision points, or one for each.
Temperature = Union[float, tuple[float, ...]]
# Of each exit: weights of "the full network is right, this exit wrong", of the reverse, and s.
Gate = tuple[tuple[tuple[float, ...], tuple[float, ...], float], ...]
