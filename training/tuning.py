"""Which weights of pretrained streams a training changes, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from models import STREAMS
from models.team_net import STAGES, Stream, TeamNet

# A stage of all streams, all stages of a stream, one stage of one stream, or the TEAM blocks.
STREAM_STAGES = tuple(f"{name}.{stage}" for name in STREAMS for stage in STAGES)
FREEZABLE = (*STAGES, *STREAMS, *STREAM_STAGES, "team")


def keep_frozen(model: TeamNet, freeze: Sequence[str], partial_bn: bool) -> list[nn.Module]:
    """Freeze these modules and return them; they must be in eval mode while the rest trains.

    freeze: of FREEZABLE. partial_bn: freezes all BatchNorms of a stream but the first one and that
    of its input, which adapt to pictures that are no photographs (TSN: Wang et al., ECCV 2016).
    """
    frozen = [model.team] if "team" in freeze else []
    for name, stream in zip(STREAMS, model.streams):
        for stage_name, stage in zip(STAGES, stream.stages):
            if {stage_name, name, f"{name}.{stage_name}"} & set(freeze):
                frozen.append(stage)
        if name in freeze or f"{name}.stem" in freeze or "stem" in freeze:
            frozen.append(stream.input_norm)
        if name in freeze:
            frozen.append(stream.pre_classifier)
        if partial_bn:
            frozen += list(_batch_norms(stream))[1:]
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def check_partial_bn(model: TeamNet) -> None:
    """Raise ValueError where --partial-bn would freeze nothing."""
    if not any(list(_batch_norms(stream))[1:] for stream in model.streams):
        raise ValueError(
            f"--partial-bn: {model.config['arch']} and {model.config['motion_arch']} have no"
            " BatchNorm to keep; leave it out"
        )


def _batch_norms(stream: Stream) -> Iterator[nn.Module]:
    """Those of the stages, in order."""
    for stage in stream.stages:
        for module in stage.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                yield module


def lr_scales(
    model: TeamNet, classifier_scales: tuple[float, float], depth_scale: float
) -> dict[int, float]:
    """The multiple of lr at which each parameter learns, by its id.

    classifier_scales: for the weights and the biases of classifiers. depth_scale: for layer4 and
    any layers between it and the classifier; each earlier stage learns at this multiple of the next
    one's rate. TEAM blocks and input norms, which no ImageNet network has, learn at lr.
    """
    scales = {id(parameter): 1.0 for parameter in model.parameters()}
    for stream in model.streams:
        for depth, stage in enumerate(reversed(stream.stages), 1):
            scales.update({id(p): depth_scale**depth for p in stage.parameters()})
        for parameter in stream.classifier.parameters():
            scales[id(parameter)] = classifier_scales[parameter.ndim == 1]
        scales.update({id(p): depth_scale for p in stream.pre_classifier.parameters()})
    return scales
