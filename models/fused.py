"""Convolutions that compute the next activation, or the sum of a ResNet block, in one oneDNN call.

For inference on a CPU only. One call saves a pass over the memory for each activation and each sum.
It also avoids PyTorch's own 1x1 convolution, which is half as fast and runs where one thread has
few pictures. Shapes that come often are computed by a graph instead (`graphs.py`).
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.team_net import Stream
from models.temporal_shift import TemporalShift

# oneDNN's SiLU is slower than PyTorch's.
FUSED_ACTIVATIONS = {
    nn.Identity: ("none", [], ""),
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.Hardswish: ("hardswish", [], ""),
}


class FusedConv(nn.Module):
    """`conv(x)`, plus `other` when given, then the activation.

    The result is written into `other`.
    """

    def __init__(self, conv: nn.Conv2d, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.activation = FUSED_ACTIVATIONS[activation]

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, *self.geometry, *self.activation
            )
        nothing = (None, [], None)  # as it is called after a sum
        activation = nothing if self.activation[0] == "none" else self.activation
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            other, x, self.weight, self.bias, *self.geometry, "add", 1.0, *activation
        )


class FusedBlock(nn.Module):
    """A ResNet's block whose batch norms are folded. May overwrite its input."""

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
        self.downsample = block.downsample and FusedConv(block.downsample[0], nn.Identity)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for conv in self.convs[:-1]:
            x = conv(x)
        return self.convs[-1](x, shortcut)


class FusedResidual(nn.Module):
    """A block of MobileNetV2 with a sum, whose row is fused. May overwrite its input."""

    def __init__(self, row: nn.Sequential):
        super().__init__()
        self.before, self.last = row[:-1], row[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.before(x), x)


def fuse_stream(stream: Stream) -> None:
    """Fuse what can be fused, in place. The batch norms must be folded before."""
    for stage in stream.stages:
        for number, block in enumerate(stage):
            if isinstance(block, (BasicBlock, Bottleneck)):
                stage[number] = FusedBlock(block)
        for row in reversed(list(stage.modules())):  # inner ones first
            if isinstance(row, nn.Sequential):
                _fuse_row(row)
        for number, block in enumerate(stage):
            if isinstance(block, InvertedResidual) and block.use_res_connect:
                stage[number] = FusedResidual(block.conv)


def _fuse_row(row: nn.Sequential) -> None:
    """Fuse each convolution with the activation that follows it, and call nothing in vain."""
    for name, child in list(row.named_children()):
        if type(child) is nn.Identity:
            delattr(row, name)
        elif isinstance(child, nn.Sequential) and len(child) == 1:
            setattr(row, name, child[0])
    named = list(row.named_children())
    for (name, conv), (follower, activation) in zip(named, [*named[1:], ("", nn.Identity())]):
        if isinstance(conv, nn.Conv2d):
            kind = type(activation) if type(activation) in FUSED_ACTIVATIONS else nn.Identity
            setattr(row, name, FusedConv(conv, kind))
            if kind is not nn.Identity:
                delattr(row, follower)


def can_fuse(conv: nn.Conv2d) -> bool:
    """Try on one pixel whether this PyTorch and this CPU compute such convolutions."""
    pixel = torch.zeros(1, conv.in_channels, 1, 1, dtype=conv.weight.dtype)
    try:
        FusedConv(conv)(pixel)
    except (AttributeError, RuntimeError):  # no oneDNN, or none for this dtype
        return False
    return True
