"""TEAM-Net with internal classifiers (ICs): one linear exit per chosen TEAM block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from models.team_net import NUM_TEAM_BLOCKS, TeamNet, new_classifier


class ExitOutput(NamedTuple):
    """Float32 logits (b, num_classes) of each exit and each stream; fused = their streams' sum."""

    exits: tuple[torch.Tensor, ...]
    iframe: torch.Tensor
    mv: torch.Tensor
    residual: torch.Tensor
    fused: torch.Tensor


class TeamNetIC(nn.Module):
    """A frozen backbone with exits after the TEAM blocks `exits` (numbers 1 to 4, ascending).

    The backbone gets no gradients and stays in eval mode even when the module is set to train:
    an exit's input must be a fixed function of the clip.
    """

    def __init__(self, backbone: TeamNet, exits: Sequence[int] = (1, 2, 3)):
        super().__init__()
        self.exits = tuple(exits)
        allowed = range(1, NUM_TEAM_BLOCKS + 1)
        if list(self.exits) != sorted(set(self.exits) & set(allowed)):
            raise ValueError(f"exits {self.exits}: give different, ascending numbers from 1 to 4")
        self.backbone = backbone.requires_grad_(False)
        num_classes, num_segments = (backbone.config[k] for k in ("num_classes", "num_segments"))
        self.heads = nn.ModuleDict()
        for k in self.exits:
            inputs = num_segments * backbone.team[k - 1].squeeze_size
            self.heads[str(k)] = new_classifier(inputs, num_classes)
        self.train(self.training)

    def train(self, mode: bool = True) -> TeamNetIC:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, iframe: torch.Tensor, mv: torch.Tensor, residual: torch.Tensor) -> ExitOutput:
        """Inputs as for `TeamNet.forward`."""
        with torch.no_grad():
            output = self.backbone(iframe, mv, residual)
        return ExitOutput(self.heads_from(output.squeezes), *output[1:])

    def heads_from(self, squeezes: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Logits of every exit from all four TEAM blocks' squeeze vectors, (b, t*d_k) each."""
        return tuple(self.heads[str(k)](squeezes[k - 1]) for k in self.exits)
