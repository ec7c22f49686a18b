"""TEAM-Net with internal classifiers (ICs): one linear exit per chosen TEAM block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from models.team_net import NUM_TEAM_BLOCKS, StageMaps, TeamNet, full_precision, new_classifier

if TYPE_CHECKING:
    from early_exit.policy import Policy

CONCAT, MEAN = IC_POOLS = ("concat", "mean")


class ExitOutput(NamedTuple):
    """Float32 logits (b, num_classes) of each exit and each stream; fused = the streams' sum."""

    exits: tuple[torch.Tensor, ...]
    iframe: torch.Tensor
    mv: torch.Tensor
    residual: torch.Tensor
    fused: torch.Tensor


class Decisions(NamedTuple):
    """Where each of b clips left, and its label there.

    Decision points are counted from 0: the policy's exits, then the full network.
    """

    label: torch.Tensor  # (b,) int64
    point: torch.Tensor  # (b,) int64
    logits: torch.Tensor  # (b, num_classes) float32, combined with the policy's weights
    confidence: torch.Tensor  # (b, points) float32, NaN at points the clip did not come to


class TeamNetIC(nn.Module):
    """A frozen backbone with exits after the TEAM blocks `exits` (numbers 1 to 4, ascending).

    ic_pool: what an exit reads. `concat`: the squeeze vectors of all segments, as published.
    `mean`: their mean, which exists for any number of segments (`models.over_time`).
    The backbone gets no gradients and stays in eval mode even when the module trains, because an
    exit's input must be a fixed function of the clip.
    """

    def __init__(self, backbone: TeamNet, exits: Sequence[int] = (1, 2, 3), ic_pool: str = CONCAT):
        super().__init__()
        self.exits, self.ic_pool = tuple(exits), ic_pool
        if ic_pool not in IC_POOLS:
            raise ValueError(f"unknown pool {ic_pool!r}; there are {', '.join(IC_POOLS)}")
        allowed = range(1, NUM_TEAM_BLOCKS + 1)
        if list(self.exits) != sorted(set(self.exits) & set(allowed)):
            raise ValueError(f"exits {self.exits}: give different, ascending numbers from 1 to 4")
        self.backbone = backbone.requires_grad_(False)
        num_classes, num_segments = (backbone.config[k] for k in ("num_classes", "num_segments"))
        self.heads = nn.ModuleDict()
        for k in self.exits:
            inputs = backbone.team[k - 1].squeeze_size * (num_segments if ic_pool == CONCAT else 1)
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

    def heads_from(
        self, squeezes: Sequence[torch.Tensor], weights: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Logits of every exit from all four TEAM blocks' squeeze vectors, (b, t*d_k) each.

        weights: (b, t) of the segments, for the ic_pool `mean`; the default is the plain mean.
        """
        return tuple(self.clip_head(k, squeezes[k - 1], weights) for k in self.exits)

    @torch.no_grad()
    def early_exit(
        self,
        iframe: torch.Tensor,
        mv: torch.Tensor,
        residual: torch.Tensor,
        policy: Policy,
    ) -> Decisions:
        """Decide every clip as early as `policy` allows; run nothing for clips that have left.

        Inputs as for `TeamNet.forward`.
        Raises ValueError when the policy uses an exit that this network does not have.
        """
        if policy.route:
            raise ValueError("the policy reads segment by segment: models.over_time takes it")
        if not set(policy.exits) <= set(self.exits):
            raise ValueError(f"the policy uses exits {policy.exits}, the network has {self.exits}")
        if len(policy.weights[0]) != len(policy.exits) + len(self.backbone.streams):
            raise ValueError("the policy is of outside logits, this network has three streams")
        parts = self.backbone.parts(self.backbone.enter(iframe, mv, residual))
        each = [self._early_exit(part, policy) for part in parts]
        return Decisions(*map(torch.cat, zip(*each)))

    def _early_exit(self, features: StageMaps, policy: Policy) -> Decisions:
        batch, device = len(features[0]) // self.backbone.num_segments, features[0].device
        decided = Deciding(policy, batch, self.backbone.config["num_classes"], device)
        squeeze = None
        seen: tuple[torch.Tensor, ...] = ()  # logits, of the clips still here
        for stage in range(NUM_TEAM_BLOCKS):
            features, squeeze = self.backbone.advance(stage, features, squeeze)
            exit_number = stage + 1
            if exit_number not in policy.exits:
                continue
            seen = (*seen, self.clip_head(exit_number, self.backbone.per_clip(squeeze)))
            stays = decided.at_exit(seen)
            if not stays.any():
                return decided.decisions
            if not stays.all():
                seen = tuple(logits[stays] for logits in seen)
                features = tuple(self._keep(stays, x) for x in features)
                squeeze = self._keep(stays, squeeze)
        streams = self.backbone.leave(features, squeeze)[:3]
        decided.at_end((*seen, *streams))
        return decided.decisions

    def clip_head(
        self, exit_number: int, squeeze: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (b, num_classes) of squeeze vectors (b, t*d), the segments one after the other.

        weights: as for `heads_from`.
        """
        if self.ic_pool == MEAN:
            segments = squeeze.unflatten(1, (self.backbone.num_segments, -1))  # (b, t, d)
            if weights is None:
                squeeze = segments.mean(1)
            else:
                squeeze = torch.einsum("bt,btd->bd", weights, segments)
        return self.head(exit_number, squeeze)

    def head(self, exit_number: int, squeeze: torch.Tensor) -> torch.Tensor:
        """Logits (b, num_classes) of an exit's inputs: (b, t*d), or (b, d) for the mean."""
        with full_precision(squeeze):
            return self.heads[str(exit_number)](squeeze)

    def _keep(self, stays: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The rows (b*t, ...) of the clips that stay."""
        return x.unflatten(0, (-1, self.backbone.num_segments))[stays].flatten(0, 1)


class Deciding:
    """The decisions so far, and which rows of the batch are still undecided."""

    def __init__(self, policy: Policy, batch: int, num_classes: int, device: torch.device):
        self.policy = policy
        self.point = 0
        self.rows = torch.arange(batch, device=device)
        self.decisions = Decisions(
            label=torch.full((batch,), -1, device=device),
            point=torch.full((batch,), -1, device=device),
            logits=torch.full((batch, num_classes), torch.nan, device=device),
            confidence=torch.full((batch, len(policy.exits) + 1), torch.nan, device=device),
        )

    def at_exit(self, seen: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decide the clips that are sure enough; returns which present clips stay, (n,) bool."""
        combined, leaves = self._at_point(seen)
        self._record(combined[leaves], self.rows[leaves])
        self.rows = self.rows[~leaves]
        self.point += 1
        return ~leaves

    def at_end(self, seen: Sequence[torch.Tensor]) -> None:
        self._record(self._at_point(seen)[0], self.rows)

    def _at_point(self, seen: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        combined, sure, leaves = self.policy.at(self.point, seen)
        self.decisions.confidence[self.rows, self.point] = sure
        return combined, leaves

    def _record(self, combined: torch.Tensor, rows: torch.Tensor) -> None:
        self.decisions.logits[rows] = combined
        self.decisions.label[rows] = combined.argmax(1)
        self.decisions.point[rows] = self.point
