"""torchvision's image networks, cut into the five stages of a stream.

A stream is a stem and layer1 to layer4. Their features have strides 4, 4, 8, 16 and 32. TEAM blocks
stand between them, so streams of different networks must have maps of the same size there. ResNets
have these stages by name. The blocks of other networks are dealt out by the stride of their output:
the stem ends with the first block at stride 4. Where only one block has stride 4
(MobileNetV3-small, RegNetY-400MF and -800MF), layer1 is empty.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
import torchvision
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torchvision.models.convnext import LayerNorm2d

FAMILIES = ("resnet", "mobilenetv2", "mobilenetv3", "efficientnet", "convnext", "regnet")
STRIDES = (4, 4, 8, 16, 32)
PICTURE = 64  # pixels a side of the picture by which strides are measured
# The module of torchvision that builds each network.
IMAGE_NETWORKS = {
    name: torchvision.models.get_model_builder(name).__module__.rpartition(".")[2]
    for name in torchvision.models.list_models(module=torchvision.models)
}
ARCHS = tuple(name for name, family in IMAGE_NETWORKS.items() if family in FAMILIES)
RESNETS = tuple(name for name, family in IMAGE_NETWORKS.items() if family == "resnet")


class Cut(NamedTuple):
    """A network in parts; `pre_classifier` lies between its global average and its last Linear."""

    stages: tuple[nn.Sequential, ...]  # stem, layer1 .. layer4
    channels: tuple[int, ...]  # of their features
    pre_classifier: nn.Module
    width: int  # of what the pre_classifier gives


def build_network(
    arch: str, in_channels: int, weights: Mapping[str, torch.Tensor] | None = None
) -> nn.Module:
    """A torchvision network whose first convolution takes `in_channels`.

    weights: a state_dict for colour pictures, such as `load_imagenet` gives. A first convolution
    with another number of channels gets in each the mean over the colours, times 3 / in_channels,
    so that its outputs keep their size. Raises ValueError as `check_arch` does.
    """
    check_arch(arch)
    network = _new(arch)
    if weights is not None:
        network.load_state_dict(weights)
    if in_channels != 3:
        _replace_first_conv(network, in_channels, is_pretrained=weights is not None)
    return network


def check_arch(arch: str) -> None:
    """Raise ValueError, with the reason and names that work, if no stream can be this network."""
    if arch in ARCHS:
        return
    reason = f"unknown arch {arch!r}"
    if arch in IMAGE_NETWORKS:
        reason += f": torchvision's network of this name has no five stages, {_why_not(arch)}"
    raise ValueError(f"{reason}; choose one of {', '.join(ARCHS)}")


def cut(network: nn.Module) -> Cut:
    """The parts of a network of `build_network`. Raises ValueError where it has no five stages."""
    stages = _resnet_stages(network) if hasattr(network, "layer4") else _deal_out(network)
    shapes = _shapes(stages, first_conv(network).in_channels)
    strides, channels = zip(*((PICTURE // shape[-1], shape[1]) for shape in shapes))
    if strides != STRIDES:
        raise ValueError(f"its stages have the strides {strides}, a stream's are {STRIDES}")
    *head, last = _classifier(network)
    if channels[-1] != _width_of_input([*head, last]):
        raise ValueError("its classifier takes more than the average of its last features")
    head = [module for module in head if not isinstance(module, (nn.Dropout, nn.Flatten))]
    if any(isinstance(module, LayerNorm2d) for module in head):
        head = [nn.Unflatten(1, (channels[-1], 1, 1)), *head, nn.Flatten()]
    return Cut(stages, channels, nn.Sequential(*head) if head else nn.Identity(), last.in_features)


def _new(arch: str) -> nn.Module:
    try:
        return torchvision.models.get_model(arch)
    except NotImplementedError:  # RegNet computes its widths with tensors, which meta cannot
        with torch.device("cpu"):
            return torchvision.models.get_model(arch).to("meta")


def first_conv(network: nn.Module) -> nn.Conv2d:
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


def _replace_first_conv(network: nn.Module, in_channels: int, is_pretrained: bool) -> None:
    colour = first_conv(network)
    conv = nn.Conv2d(
        in_channels,
        colour.out_channels,
        colour.kernel_size,
        colour.stride,
        colour.padding,
        bias=colour.bias is not None,
    )
    if is_pretrained:
        mean = colour.weight.data.mean(1, keepdim=True) * (colour.in_channels / in_channels)
        conv.weight.data.copy_(mean.expand(-1, in_channels, -1, -1))
        if colour.bias is not None:
            conv.bias.data.copy_(colour.bias.data)
    else:
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    for parent in network.modules():
        for name, child in parent.named_children():
            if child is colour:
                setattr(parent, name, conv)


def _resnet_stages(network: nn.Module) -> tuple[nn.Sequential, ...]:
    stem = nn.Sequential()
    for name in ("conv1", "bn1", "relu", "maxpool"):
        stem.add_module(name, getattr(network, name))
    return stem, network.layer1, network.layer2, network.layer3, network.layer4


def _deal_out(network: nn.Module) -> tuple[nn.Sequential, ...]:
    """The blocks of a network in five stages, by the stride of their output."""
    if hasattr(network, "features"):
        blocks = list(_blocks(network.features))
    elif hasattr(network, "trunk_output"):  # RegNet
        blocks = [network.stem, *_blocks(network.trunk_output)]
    else:
        raise ValueError("it is no row of blocks")
    strides = [PICTURE // shape[-1] for shape in _shapes(blocks, first_conv(network).in_channels)]
    if 0 in strides:
        raise ValueError("its features are no maps of the shape (b, c, h, w)")
    _, first, *others = STRIDES
    if first not in strides or not set(strides[strides.index(first) :]) <= set(STRIDES):
        raise ValueError(
            f"its blocks have the strides {list(dict.fromkeys(strides))}, a stream's {STRIDES}"
        )
    stem_size = strides.index(first) + 1
    rows = {first: [], **{stride: [] for stride in others}}
    for block, stride in zip(blocks[stem_size:], strides[stem_size:]):
        rows[stride].append(block)
    return tuple(nn.Sequential(*row) for row in (blocks[:stem_size], *rows.values()))


def _blocks(row: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a row. A Sequential of modules of one kind is itself a row of blocks."""
    for child in row.children():
        kinds = {type(module) for module in child.children()}
        if isinstance(child, nn.Sequential) and len(kinds) == 1:
            yield from _blocks(child)
        else:
            yield child


class _NoNorms(TorchFunctionMode):
    """Normalisations return their input, because on meta tensors they take most of the time."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        is_norm = function in (F.batch_norm, F.layer_norm)
        return args[0] if is_norm else function(*args, **(kwargs or {}))


@torch.no_grad()
def _shapes(modules: Iterable[nn.Module], in_channels: int) -> list[torch.Size]:
    """The shape of each module's output, one after the other. The modules do not change, nor do
    PyTorch's random numbers."""
    weights = next(parameter for module in modules for parameter in module.parameters())
    x, shapes = weights.new_zeros(1, in_channels, PICTURE, PICTURE), []
    with _NoNorms(), torch.random.fork_rng(devices=[]):
        for module in modules:
            copies = {name: buffer.clone() for name, buffer in module.named_buffers()}
            x = functional_call(module, copies, x)
            shapes.append(x.shape)
    return shapes


def _classifier(network: nn.Module) -> list[nn.Module]:
    classifier = network.fc if hasattr(network, "fc") else network.classifier
    return list(classifier) if isinstance(classifier, nn.Sequential) else [classifier]


def _width_of_input(modules: list[nn.Module]) -> int:
    return next(module.in_features for module in modules if isinstance(module, nn.Linear))


def _why_not(arch: str) -> str:
    """Why a torchvision network outside FAMILIES has no five stages."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = _new(arch)
    try:
        cut(network)
    except (ValueError, RuntimeError) as error:  # the latter: too small a picture
        return str(error)
    return "it computes more than its blocks, one after the other"
