"""Convolutions that compute the next activation, or the sum of a ResNet block, in one oneDNN call.

For inference on a CPU only. One call saves a pass over the memory for each activation and each sum.
It also avoids PyTorch's own 1x1 convolution, which is half as fast and runs where one thread has
few pictures. Weights are kept in the order in which oneDNN computes.
"""

from __future__ import annotations

import torch
from torch import nn
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

    The result is written into `other`. oneDNN wants the weight in an order of its own, another one
    for each shape of x and number of threads: to reorder it takes half the time of one small
    picture. The order of the last call is kept. (One that is made for no shape can be 30 times
    slower.)
    """

    def __init__(self, conv: nn.Conv2d, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.activation = FUSED_ACTIVATIONS[activation]
        self.reordered = (None, None)  # what it was made for, and the weight

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        weight = self._reordered_weight(x)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, weight, self.bias, *self.geometry, *self.activation
            )
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            other, x, weight, self.bias, *self.geometry, "add", 1.0, *self.activation
        )

    def __getstate__(self) -> dict:
        return {**self.__dict__, "reordered": (None, None)}  # a copy makes its own

    def _reordered_weight(self, x: torch.Tensor) -> torch.Tensor:
        wanted = (x.shape, torch.get_num_threads())
        found, weight = self.reordered
        if found != wanted:
            weight = torch._C._nn.mkldnn_reorder_conv2d_weight(
                self.weight.to_mkldnn(), *self.geometry, x.shape
            )
            self.reordered = (wanted, weight)  # in one step: several threads may compute
        return weight


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


def fuse_stream(stream: Stream) -> None:
    """Fuse what can be fused, in place. The batch norms must be folded before."""
    for stage in stream.stages:
        for number, block in enumerate(stage):
            if isinstance(block, (BasicBlock, Bottleneck)):
                stage[number] = FusedBlock(block)
        for row in reversed(list(stage.modules())):  # inner ones first
            if isinstance(row, nn.Sequential):
                _fuse_row(row)


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
