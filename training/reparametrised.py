"""Heads that are trained in other coordinates and used as plain Linears."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.team_net import new_classifier

EPS = 1e-5  # added to variances, as in BatchNorm


class ReparametrisedHead(nn.Module):
    """A linear classifier of a clip's squeeze vectors (n, T * d), trained on pooled or standardised
    ones.

    pool: on their mean over the T segments instead of one after the other, so with T times fewer
    weights. standardise: on (x - mean) / sqrt(variance + EPS), both of `examples` (n, T * d), so
    that one rate and one weight decay suit all features. Both are linear: `folded` is the same
    function of the raw vectors as a plain Linear, which costs nothing more to run.
    """

    def __init__(
        self,
        examples: torch.Tensor,
        num_classes: int,
        num_segments: int,
        *,
        pool: bool,
        standardise: bool,
    ):
        super().__init__()
        self.repeats = num_segments if pool else 1
        pooled = examples.unflatten(1, (self.repeats, -1)).mean(1)
        self.classifier = new_classifier(pooled.shape[1], num_classes)
        mean, variance = torch.zeros(pooled.shape[1]), torch.ones(pooled.shape[1]) - EPS
        if standardise:
            mean, variance = pooled.mean(0), pooled.var(0, correction=0)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", (variance + EPS).rsqrt())

    def folded(self) -> dict[str, torch.Tensor]:
        """Weight and bias of a Linear on raw squeeze vectors."""
        weight = self.classifier.weight * self.scale
        bias = self.classifier.bias - weight @ self.mean
        return {"weight": weight.repeat(1, self.repeats) / self.repeats, "bias": bias}

    def forward(self, squeezes: torch.Tensor) -> torch.Tensor:
        return F.linear(squeezes, **self.folded())
