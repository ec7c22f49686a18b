"""Multiply-accumulate operations (MACs) of convolutions and matrix products.

Counted by `torch.utils.flop_counter` (two FLOPs are one MAC) on meta tensors: shapes without data,
so a network of any size takes a second and no memory. Batch normalisation (which folds into the
convolutions), activations and pooling are not counted. Published counts made with ptflops hold
them; `pointwise=True` adds them by ptflops' prices, for comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

FLOPS_PER_MAC = 2


def count_macs(function: Callable, *inputs, pointwise: bool = False) -> int:
    """MACs of `function(*inputs)`, without gradients."""
    return counted(function, *inputs, pointwise=pointwise)[1]


def counted(function: Callable, *inputs, pointwise: bool = False):
    """The result of `function(*inputs)` and its MACs."""
    extra = POINTWISE_FLOPS if pointwise else None
    flops = FlopCounterMode(display=False, custom_mapping=extra)
    with torch.no_grad(), flops, _Decompose():
        result = function(*inputs)
    return result, flops.get_total_flops() // FLOPS_PER_MAC


class _Decompose(TorchDispatchMode):
    """Takes operators apart into those with a price. In inference mode torch 2.4 does not, and
    counts a convolution as 0."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        with self:
            result = function.decompose(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {})) if result is NotImplemented else result


def _price(macs_per_value: int) -> Callable:
    """FLOPs of an operator that costs this many MACs for each value of its input."""

    def flops(shape: Sequence[int], *args, **kwargs) -> int:
        return FLOPS_PER_MAC * macs_per_value * math.prod(shape)

    return flops


POINTWISE_FLOPS = {
    torch.ops.aten.native_batch_norm: _price(2),
    torch.ops.aten.relu: _price(1),
    torch.ops.aten.relu_: _price(1),
    torch.ops.aten.leaky_relu: _price(1),
    torch.ops.aten.max_pool2d_with_indices: _price(1),
    torch.ops.aten.max_pool3d_with_indices: _price(1),
}
