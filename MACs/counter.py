"""Multiply-accumulate operations (MACs) of convolutions and matrix products.

Counted by `torch.utils.flop_counter` (two FLOPs are one MAC) on meta tensors: shapes without data,
so a network of any size takes a second and no memory. Normalisation, activations, pooling and
element-wise products are not counted, as in the field's tables to within about one per cent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_macs(function: Callable, *inputs: torch.Tensor) -> int:
    """MACs of `function(*inputs)`, without gradients."""
    return counted(function, *inputs)[1]


def counted(function: Callable, *inputs):
    """The result of `function(*inputs)` and its MACs."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = function(*inputs)
    return result, counter.get_total_flops() // 2
