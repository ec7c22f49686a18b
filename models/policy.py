"""When a clip leaves and what it is called then: thresholds, pooled outputs, confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Union

import torch

# Read from the logits of the present exit alone, and from those of the exits before it as well.
PLAIN_CONFIDENCES = ("max", "margin", "entropy")
CONFIDENCES = (*PLAIN_CONFIDENCES, "patience", "gate")
POOLS = ("logits", "probability")
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
    this exit is wrong, minus the chance of the reverse; s is 1 for the exit that saves least, and
    less in proportion where leaving saves more. The full network has no gate; it gives `max`.
    """
    last = len(seen) - 1
    scale = _temperature_at(temperature, last)
    if kind == "patience":
        labels = torch.stack([logits.argmax(-1) for logits in seen])  # (d + 1, n)
        same = (labels[:-1] == labels[-1]).flip(0).long()
        return (same.cumprod(0).sum(0) + confidence(seen[-1], "max", scale)) / points
    if kind == "gate" and last < len(gate):
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
    logits = seen[-1] / _temperature_at(temperature, last)
    two = logits.topk(2, dim=-1).values
    doubt = torch.logsumexp(logits, -1) - two[:, 0]
    found = [(1 + two[:, 0] - two[:, 1]).log(), 1 - confidence(logits, "entropy"), doubt]
    if last:
        before = (seen[-2] / _temperature_at(temperature, last - 1)).softmax(-1)
        label = logits.argmax(-1, keepdim=True)
        found.append((before.argmax(-1, keepdim=True) == label)[:, 0].to(logits.dtype))
        found.append(before.gather(-1, label)[:, 0])
    else:
        found += [torch.zeros_like(doubt)] * 2
    return torch.stack(found, -1)


def _chance(features: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    slopes = features.new_tensor(weights[:-1])
    return torch.sigmoid(features @ slopes + weights[-1])


def _temperature_at(temperature: Temperature, point: int) -> float:
    return temperature[point] if isinstance(temperature, tuple) else temperature


# One for all decision points, or one for each.
Temperature = Union[float, tuple[float, ...]]
# Of each exit: weights of "the full network is right, this exit wrong", of the reverse, and s.
Gate = tuple[tuple[tuple[float, ...], tuple[float, ...], float], ...]


@dataclass(frozen=True)
class Policy:
    """A clip leaves at the first exit k with confidence at k > thresholds[k].

    exits: their E numbers, ascending. thresholds: one per exit; at 1 or above nobody leaves there.
    weights: E + 1 rows (the exits, then the full network) over the outputs: E + 3 for TEAM-Net
    (exits, iframe, mv, residual), E + 1 for any other network (exits, full network).
    A row may only weigh what has run by then: exits up to its own, and in the last row everything.
    pool: `logits`, combined logits are the weighted sum of the outputs; `probability`, they are the
    log of the weighted mean of the outputs' softmax. output_temperatures: one per output, divide it
    before; () for none. temperature: divides the combined logits. gate: see `confidence_at`.
    promise: what is guaranteed, see early_exit.promise; empty for none.
    provenance: plain values that say how the policy was made.
    Raises ValueError when these do not fit together.
    """

    exits: tuple[int, ...]
    thresholds: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    temperature: Temperature = 1.0
    confidence: str = "max"
    provenance: dict = field(default_factory=dict)
    pool: str = "logits"
    output_temperatures: tuple[float, ...] = ()
    gate: Gate = ()
    promise: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        number = len(self.exits)
        if not number or list(self.exits) != sorted(set(self.exits)):
            raise ValueError(f"a policy's exits are ascending numbers, not {self.exits}")
        if len(self.thresholds) != number or any(map(math.isnan, self.thresholds)):
            raise ValueError(f"expected {number} thresholds, one per exit, not {self.thresholds}")
        outputs = len(self.weights[-1]) if self.weights else 0
        if outputs not in (number + 1, number + 3) or [len(row) for row in self.weights] != [
            outputs
        ] * (number + 1):
            raise ValueError(
                f"weights of {number} exits are {number + 1} rows of {number + 3}, or of"
                f" {number + 1} for outside logits"
            )
        if not all(math.isfinite(weight) for row in self.weights for weight in row):
            raise ValueError("a policy's weights must be finite")
        if any(any(row[k + 1 :]) for k, row in enumerate(self.weights[:-1])):
            raise ValueError("an exit's weights must be 0 for outputs that come after it")
        self._check_temperatures(number + 1, outputs)
        if self.confidence not in CONFIDENCES:
            raise ValueError(f"unknown confidence {self.confidence!r}; one of {CONFIDENCES}")
        self._check_pool()
        self._check_gate(number)

    def combine(self, point: int, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """(n, C) combined logits at a decision point, of the outputs (n, C) that have run."""
        # The weights of what has not run are 0.
        weights = self.weights[point][: len(outputs)]
        if self.output_temperatures:
            outputs = [x / scale for x, scale in zip(outputs, self.output_temperatures)]
        if self.pool == "logits":
            return sum(weight * logits for weight, logits in zip(weights, outputs))
        total = sum(weights)
        shares = [
            torch.log_softmax(logits, -1) + math.log(weight / total)
            for weight, logits in zip(weights, outputs)
            if weight
        ]
        return torch.logsumexp(torch.stack(shares), 0)

    def confidence_of(self, seen: Sequence[torch.Tensor]) -> torch.Tensor:
        """(n,) how sure the last of the combined logits of the decision points so far is."""
        points = len(self.exits) + 1
        return confidence_at(seen, points, self.confidence, self.temperature, self.gate)

    def temperature_at(self, point: int) -> float:
        return _temperature_at(self.temperature, point)

    def _check_temperatures(self, points: int, outputs: int) -> None:
        if isinstance(self.temperature, tuple) and len(self.temperature) != points:
            raise ValueError(f"expected one temperature or {points}, not {self.temperature}")
        if len(self.output_temperatures) not in (0, outputs):
            raise ValueError(f"expected {outputs} output temperatures or none")
        own = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)
        for value in (*own, *self.output_temperatures):
            if not 0 < value < math.inf:
                raise ValueError(f"a policy's temperature is above 0, not {value}")

    def _check_pool(self) -> None:
        if self.pool not in POOLS:
            raise ValueError(f"unknown pool {self.pool!r}; one of {POOLS}")
        if self.pool == "probability":
            for row in self.weights:
                if min(row) < 0 or not sum(row) > 0:
                    raise ValueError(
                        "a probability pool needs weights of 0 or more, not all 0"
                    )

    def _check_gate(self, exits: int) -> None:
        if (self.confidence == "gate") != bool(self.gate):
            raise ValueError("the confidence `gate` and the gate's weights belong together")
        size = len(GATE_FEATURES) + 1
        for number, entry in enumerate(self.gate, 1):
            good = len(entry) == 3 and len(entry[0]) == len(entry[1]) == size
            if not good or not all(map(math.isfinite, (*entry[0], *entry[1], entry[2]))):
                raise ValueError(f"the gate of exit {number} is not 2 x {size} weights and a share")
        if self.gate and len(self.gate) != exits:
            raise ValueError(f"expected {exits} gates, one per exit, not {len(self.gate)}")
