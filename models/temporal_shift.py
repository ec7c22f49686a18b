"""Temporal shift (TSM: Lin, Gan, Han, ICCV 2019), for networks that see clips of T segments."""

from __future__ import annotations

import torch
from torch import nn

SHIFT_DIVISOR = 8  # 1/8 of the channels moves each way, the published setting


class TemporalShift(nn.Module):
    """Run `net` on an input whose channels are partly exchanged between neighbouring segments.

    The first 1/8 of the channels comes from the next segment, the second 1/8 from the previous one;
    where there is no neighbour they are zero. Shape in and out: (b*t, c, h, w).
    """

    def __init__(self, net: nn.Module, num_segments: int):
        super().__init__()
        self.net = net
        self.num_segments = num_segments

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(shift_segments(x, self.num_segments))


def shift_segments(x: torch.Tensor, num_segments: int) -> torch.Tensor:
    """The shift itself, (b*t, c, h, w) to the same shape and memory format."""
    fold = x.shape[1] // SHIFT_DIVISOR
    shifted = torch.zeros_like(x)
    source = x.unflatten(0, (-1, num_segments))  # (b, t, c, h, w)
    target = shifted.unflatten(0, (-1, num_segments))
    target[:, :-1, :fold] = source[:, 1:, :fold]
    target[:, 1:, fold : 2 * fold] = source[:, :-1, fold : 2 * fold]
    target[:, :, 2 * fold :] = source[:, :, 2 * fold :]
    return shifted


def add_temporal_shift(layers: list[nn.Sequential], num_segments: int) -> None:
    """Shift before the first conv of the residual branch of every block, in place.

    `layers` are layer1 .. layer4 of a torchvision ResNet. Networks whose layer3 has 23 blocks or
    more (ResNet-101 and deeper) shift in every second block, as published.
    """
    step = 2 if len(layers[2]) >= 23 else 1
    for layer in layers:
        for block in layer[::step]:
            block.conv1 = TemporalShift(block.conv1, num_segments)
