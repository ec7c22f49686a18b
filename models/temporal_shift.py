"""Temporal shift (TSM: Lin, Gan, Han, ICCV 2019), for networks that see clips of T segments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.convnext import CNBlock
from torchvision.models.regnet import ResBottleneckBlock

SHIFT_DIVISOR = 8  # 1/8 of the channels moves each way, the published setting


class TemporalShift(nn.Module):
    """Run `net` on an input whose channels are partly exchanged between neighbouring segments.

    The first 1/8 of the channels comes from the next segment, the second 1/8 from the previous one.
    Without a neighbour they are zero. Shape in and out: (b*t, c, h, w).
    """

    def __init__(self, net: nn.Module, num_segments: int):
        super().__init__()
        self.net = net
        self.num_segments = num_segments

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(shift_segments(x, self.num_segments))


def shift_segments(x: torch.Tensor, num_segments: int) -> torch.Tensor:
    """(b*t, c, h, w) to the same shape and memory format."""
    fold = x.shape[1] // SHIFT_DIVISOR
    shifted = torch.zeros_like(x)
    source = x.unflatten(0, (-1, num_segments))  # (b, t, c, h, w)
    target = shifted.unflatten(0, (-1, num_segments))
    target[:, :-1, :fold] = source[:, 1:, :fold]
    target[:, 1:, fold : 2 * fold] = source[:, :-1, fold : 2 * fold]
    target[:, :, 2 * fold :] = source[:, :, 2 * fold :]
    return shifted


def add_temporal_shift(layers: Sequence[nn.Sequential], num_segments: int) -> None:
    """Shift before the first convolution of each residual branch, in place, as published.

    layers: layer1 .. layer4 of a stream. ResNets shift in every block. Those with 23 blocks or more
    in layer3 (ResNet-101 and deeper) shift in every second one. Inverted residuals (MobileNet,
    EfficientNet) shift before the convolution that expands, if the block adds its input. RegNet and
    ConvNeXt are treated like ResNets.
    """
    step = 2 if hasattr(layers[2][0], "conv1") and len(layers[2]) >= 23 else 1
    for layer in layers:
        for block in layer[::step]:
            found = _first_of_branch(block)
            if found is not None:
                holder, name = found
                setattr(holder, name, TemporalShift(getattr(holder, name), num_segments))


def _first_of_branch(block: nn.Module) -> tuple[nn.Module, str] | None:
    """Where a block holds the first convolution of its residual branch; None without a branch."""
    if hasattr(block, "conv1"):  # ResNet
        return block, "conv1"
    if isinstance(block, ResBottleneckBlock):
        return block.f, "a"
    if isinstance(block, CNBlock):
        return block.block, "0"
    if getattr(block, "use_res_connect", False):  # inverted residuals
        row = block.conv if hasattr(block, "conv") else block.block
        return (row, "0") if _expands(row) else None
    return None


def _expands(row: nn.Sequential) -> bool:
    """Whether the first convolution of an inverted residual gives more channels than it takes."""
    conv = next(module for module in row.modules() if isinstance(module, nn.Conv2d))
    return conv.out_channels > conv.in_channels
