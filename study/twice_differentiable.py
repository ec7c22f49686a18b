"""Layers whose gradient PyTorch can differentiate once more, in forward mode.

It cannot with every fused kernel, and with that of BatchNorm it takes twice the time. Put together
from simple operations, the same functions have all their derivatives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class _FixedNorm(nn.Module):
    """A BatchNorm2d in eval mode: a scale and a shift of each channel."""

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        scale = torch.rsqrt(norm.running_var + norm.eps)
        shift = -norm.running_mean * scale
        if norm.affine:
            scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
        self.register_buffer("scale", scale.detach().view(-1, 1, 1))
        self.register_buffer("shift", shift.detach().view(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.shift, x, self.scale)


class _SiLU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.sigmoid()


class _Hardsigmoid(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu6(x + 3) / 6


class _Hardswish(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.relu6(x + 3) / 6


_ACTIVATIONS = {nn.SiLU: _SiLU, nn.Hardsigmoid: _Hardsigmoid, nn.Hardswish: _Hardswish}


def make_twice_differentiable(net: nn.Module) -> nn.Module:
    """The network, changed in place: it computes what it did in eval mode. Its convolutions and
    linear layers keep their names and weights."""
    for parent in net.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, _FixedNorm(child))
            elif type(child) in _ACTIVATIONS:
                setattr(parent, name, _ACTIVATIONS[type(child)]())
    return net
