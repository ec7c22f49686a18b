"""Multiply-accumulate operations (MACs) of convolutions and matrix products.

Counted by `torch.utils.flop_counter` (two FLOPs are one MAC) on meta tensors: shapes without data,
so a network of any size takes a second and no memory. Batch normalisation (which folds into the
convolutions), activations and pooling are not counted. Published counts, made with ptflops, contain
them. `pointwise=True` adds them at ptflops' prices, for comparison: two for each value that a
normalisation writes, one for each that an activation writes, one for each that a pooling reads.
ptflops does not count sums and products of two tensors (residual sums, attention) or global
averages either, so the published numbers do not contain them.

A module without submodules that is in none of the lists below is an error: its cost is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import FrozenBatchNorm2d, Permute, StochasticDepth

FLOPS_PER_MAC = 2


class Price(NamedTuple):
    macs: int
    of_input: bool = False  # for each value of the first input, not of the output


NORM, ACTIVATION, POOLING = Price(2), Price(1), Price(1, of_input=True)

MULTIPLYING = (  # priced by torch's counter
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, FrozenBatchNorm2d),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm, nn.GroupNorm),
)
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Softplus),
    *(nn.Softmax, nn.LogSoftmax),
)
POOLINGS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
FREE = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, StochasticDepth),
    *(nn.Flatten, nn.Unflatten, Permute, nn.ChannelShuffle),
    nn.Sequential,  # an empty one
)
PRICED_MODULES = (
    (NORMS, NORM),
    (ACTIVATIONS, ACTIVATION),
    (POOLINGS, POOLING),
    ((*MULTIPLYING, *FREE), None),
)
# The same work as a function of torch, without the "_" of those that work in place. The sigmoids of
# attention are not in it, see above.
FUNCTIONS = {
    **dict.fromkeys(("batch_norm", "instance_norm", "layer_norm", "group_norm"), NORM),
    **dict.fromkeys(("relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "gelu"), ACTIVATION),
    **dict.fromkeys(("silu", "mish", "tanh", "hardsigmoid", "hardswish"), ACTIVATION),
    **dict.fromkeys(("hardtanh", "softplus", "softmax", "log_softmax"), ACTIVATION),
    **{f"{kind}_pool{n}d": POOLING for kind in ("max", "avg") for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": POOLING for n in (1, 2, 3)},
}


def count_macs(function: Callable, *inputs, pointwise: bool = False) -> int:
    """MACs of `function(*inputs)`, without gradients. Raises ValueError as `counted` does."""
    _, macs, others = counted(function, *inputs)
    return macs + pointwise * others


def counted(function: Callable, *inputs):
    """The result of `function(*inputs)`, its MACs, and what `pointwise` adds to them.

    `function` is a module, a method of one, or any function that calls modules. Raises ValueError,
    naming the module, when one without submodules is called that this file does not know.
    """
    root = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    flops = FlopCounterMode(display=False)
    with torch.no_grad(), _Pointwise(root) as others, flops, _Decompose():
        result = function(*inputs)
    return result, flops.get_total_flops() // FLOPS_PER_MAC, others.macs


class _Decompose(TorchDispatchMode):
    """Takes operators apart into those with a price. In inference mode torch 2.4 does not, and
    counts a convolution as 0."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        with self:
            result = function.decompose(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {})) if result is NotImplemented else result


class _Pointwise(TorchFunctionMode):
    """Adds up the `pointwise` costs of the modules and functions that run inside."""

    def __init__(self, root: object):
        super().__init__()
        self.macs = 0
        self._names: dict[nn.Module, str] = {}
        self._in_leaf = False  # the price of a leaf includes its functions
        if isinstance(root, nn.Module):
            self._learn_names(root)

    def __enter__(self) -> _Pointwise:
        super().__enter__()
        self._hooks = [
            register_module_forward_pre_hook(self._before),
            register_module_forward_hook(self._after),
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*exception)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        # On meta tensors normalisations take most of the time, and they multiply nothing.
        is_shape = function in (F.batch_norm, F.layer_norm) and args[0].is_meta
        result = args[0] if is_shape else function(*args, **(kwargs or {}))
        if not self._in_leaf:
            self._add(FUNCTIONS.get(function.__name__.rstrip("_")), args, result)
        return result

    def _before(self, module: nn.Module, inputs: tuple) -> None:
        if module not in self._names:
            self._learn_names(module)
        self._in_leaf = _is_leaf(module)

    def _after(self, module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if _is_leaf(module):
            self._in_leaf = False
            self._add(self._price(module), inputs, output)

    def _add(self, price: Price | None, inputs: tuple, output: torch.Tensor) -> None:
        if price is not None:
            values = inputs[0] if price.of_input else output
            self.macs += price.macs * values.numel()

    def _price(self, module: nn.Module) -> Price | None:
        for kinds, price in PRICED_MODULES:
            if isinstance(module, kinds):
                return price
        raise ValueError(
            f"{self._names[module]} is a {type(module).__name__}, whose cost is not known: put it"
            " into one of the lists in MACs/counter.py"
        )

    def _learn_names(self, root: nn.Module) -> None:
        for name, module in root.named_modules(prefix=type(root).__name__):
            self._names.setdefault(module, name)


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None
