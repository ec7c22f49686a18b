"""A faster copy of a network, for evaluation, banks of frozen features and prediction."""

from __future__ import annotations

import copy
import warnings
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.fused import can_fuse, fuse_stream
from models.graphs import GraphStage
from models.networks import first_conv
from models.precision import PRECISIONS
from models.team_net import STAGES, Stream, TeamBlock, TeamNet
from models.team_net_ic import TeamNetIC
from models.temporal_shift import TemporalShift

Network = TypeVar("Network", TeamNet, TeamNetIC)


def prepare_for_inference(
    model: Network, precision: str = "fp32", compiled: bool = False
) -> Network:
    """A frozen copy of `model` in eval mode that gives the same outputs in less time.

    Every batch normalisation after a convolution is folded into it, and weights are channels_last.
    With `precision="bf16"` the convolutions run in bfloat16; logits and squeeze vectors stay
    float32. On a CPU each convolution computes its ReLU or sum too (`models.fused`), and shapes
    that come often have graphs of stages that oneDNN compiles (`models.graphs`). `compiled`:
    torch.compile instead of both, stage by stage, for any batch size. The first pass then takes
    half a minute on an idle machine, and so does the first batch of one clip, so it pays from some
    hundred clips on. Without a compiler there is a warning, and the copy is not compiled.
    Call the result under `torch.no_grad()`, on the device of `model`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: choose {' or '.join(PRECISIONS)}")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    _fold_batch_norms(model)
    backbone = model.backbone if isinstance(model, TeamNetIC) else model
    for stream in backbone.streams:
        _rearrange(stream, precision)
    for block in backbone.team:
        if isinstance(block, TeamBlock):
            block.conv_spatial.to(PRECISIONS[precision], memory_format=torch.channels_last)
    device = next(model.parameters()).device
    if compiled and _can_compile(device):
        options = {"dynamic": True, "options": {"freezing": True}}
        backbone.advance = torch.compile(backbone.advance, **options)
        backbone.leave = torch.compile(backbone.leave, **options)
    elif device.type == "cpu":
        for stream in backbone.streams:
            _fuse(stream)
    return model


def prepare_stream(stream: Stream, precision: str = "fp32") -> Stream:
    """As `prepare_for_inference`, for one stream that is used alone, on a CPU."""
    stream = copy.deepcopy(stream).eval().requires_grad_(False)
    _fold_batch_norms(stream)
    _rearrange(stream, precision)
    _fuse(stream)
    return stream


def _rearrange(stream: Stream, precision: str) -> None:
    for stage in stream.stages:
        stage.to(PRECISIONS[precision], memory_format=torch.channels_last)


def _fuse(stream: Stream) -> None:
    """Fuse the stages, and let graphs be made of them."""
    plain = {name: _sharing_weights(getattr(stream, name)) for name in STAGES}
    if can_fuse(first_conv(stream)):
        fuse_stream(stream)
    for name, stage in plain.items():
        setattr(stream, name, GraphStage(stage, getattr(stream, name)))


def _sharing_weights(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module, {id(weight): weight for weight in module.parameters()})


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch normalisation into the convolution directly before it, in place."""
    children = list(module.named_children())
    for (name, child), (norm_name, norm) in zip(children, children[1:]):
        holder, conv_name = (child, "net") if isinstance(child, TemporalShift) else (module, name)
        conv = getattr(holder, conv_name)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            setattr(holder, conv_name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, nn.Identity())
    for _, child in children:
        _fold_batch_norms(child)


def _can_compile(device: torch.device) -> bool:
    """Try torch.compile on a small function: it needs a C++ compiler or Triton."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(8, device=device))
    except Exception as error:  # whatever the compiler's back end raises
        reason = str(error).strip().splitlines()[0]
        warnings.warn(f"torch.compile does not work here, going on without: {reason}", stacklevel=3)
        return False
    return True
