"""ResNet blocks of which each convolution is one oneDNN call: with its ReLU, and with the sum.

For inference on CPU only. Saves a pass over the memory per ReLU and per sum, and PyTorch's own
1x1 convolution, half as fast, which it takes for few pictures on one thread.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.team_net import Stream
from models.temporal_shift import TemporalShift


class FusedConv(nn.Module):
    """`conv(x)`, plus `other` when given, then the ReLU when asked for.

    The result is written into `other`.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = True):
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.activation = ("relu" if relu else "none", [], "")

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, *self.geometry, *self.activation
            )
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            other, x, self.weight, self.bias, *self.geometry, "add", 1.0, *self.activation
        )


class FusedBlock(nn.Module):
    """A residual block whose batch norms are folded. May overwrite its input."""

    def __init__(self, block: BasicBlock | Bottleneck):
        super().__init__()
        convs = [block.conv1, block.conv2]
        if isinstance(block, Bottleneck):
            convs.append(block.conv3)
        if isinstance(block.conv1, TemporalShift):
            convs[0] = block.conv1.net
        self.convs = nn.ModuleList(FusedConv(conv) for conv in convs)
        if isinstance(block.conv1, TemporalShift):
            self.convs[0] = TemporalShift(self.convs[0], block.conv1.num_segments)
        self.downsample = block.downsample and FusedConv(block.downsample[0], relu=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for conv in self.convs[:-1]:
            x = conv(x)
        return self.convs[-1](x, shortcut)


def fuse_stream(stream: Stream) -> None:
    """Replace, in place, the stem and blocks of a ResNet; batch norms must be folded already."""
    stream.stem.conv1 = FusedConv(stream.stem.conv1)
    stream.stem.relu = nn.Identity()
    for layer in stream.stages[1:]:
        for number, block in enumerate(layer):
            layer[number] = FusedBlock(block)


def can_fuse(conv: nn.Conv2d) -> bool:
    """Whether this PyTorch and CPU compute such convolutions, tried on one pixel."""
    pixel = torch.zeros(1, conv.in_channels, 1, 1, dtype=conv.weight.dtype)
    try:
        FusedConv(conv)(pixel)
    except (AttributeError, RuntimeError):  # no oneDNN, or none for this dtype
        return False
    return True
