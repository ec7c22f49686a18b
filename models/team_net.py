"""TEAM-Net (Wang, She, Smolic, BMVC 2021): three image networks over the segments of a clip.

I-frames, motion vectors and residuals each have a network of their own, a ResNet in the paper.
After the stem and after layers 1 to 3 a TEAM block lets the streams re-weight each other. Exit k
reads the squeeze vector of TEAM block k, so `TeamNet.forward` is written stage by stage. Streams
that are only summed have no TEAM blocks. Their exits read the averages from which a squeeze vector
is made.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from models import STREAMS
from models.networks import build_network, check_arch, cut
from models.temporal_shift import add_temporal_shift
from models.weights import load_imagenet

IN_CHANNELS = dict(zip(STREAMS, (3, 2, 3)))
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
NUM_TEAM_BLOCKS = len(STAGES) - 1  # between them
# How streams answer together. team: by TEAM blocks, as published. neutral-team: by TEAM blocks that
# change nothing at first, so that streams trained alone can be joined. sum: by the sum of logits.
FUSIONS = ("team", "neutral-team", "sum")
SQUEEZE_REDUCTION = 4  # a squeeze vector has a quarter of the channels of the three streams
CLASSIFIER_STD = 0.001  # the field's start for a new classifier since TSN
# The C library gives a map of more than 32 MB back to the system after each use. To get the memory
# again takes longer than to compute the map.
LARGEST_MAP = 32 << 20
VALUES_PER_PIXEL = 24  # of an input, in the largest map of MobileNetV2 and EfficientNet

StageMaps = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # I-frame, MV, residual: (b*t, c, h, w)


class BackboneOutput(NamedTuple):
    """All are float32 at any precision of the convolutions. Logits are means over segments."""

    squeezes: tuple[torch.Tensor, ...]  # what exits read: four (b, t*d_k), segments in order
    iframe: torch.Tensor  # (b, num_classes)
    mv: torch.Tensor
    residual: torch.Tensor
    fused: torch.Tensor  # iframe + mv + residual


class Stream(nn.Module):
    """One image network cut into five stages, with a classifier over segments."""

    def __init__(
        self,
        arch: str,
        in_channels: int,
        num_classes: int,
        num_segments: int,
        *,
        normalise_input: bool,
        is_shift: bool,
        dropout: float,
        weights: Mapping[str, torch.Tensor] | None,
    ):
        super().__init__()
        stages, channels, pre_classifier, width = cut(build_network(arch, in_channels, weights))
        if is_shift:
            add_temporal_shift(stages[1:], num_segments)
        self.channels = channels[:NUM_TEAM_BLOCKS]
        self.input_norm = nn.BatchNorm2d(in_channels) if normalise_input else nn.Identity()
        self.stem, self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.pre_classifier = pre_classifier
        self.dropout = nn.Dropout(dropout)
        self.classifier = new_classifier(width, num_classes)

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        return tuple(getattr(self, name) for name in STAGES)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What enters the stem (b*t, c, h, w) to the features of layer4, without TEAM blocks."""
        for stage in self.stages:
            x = stage(x)
        return x

    def classify(self, x: torch.Tensor, num_segments: int) -> torch.Tensor:
        """Features of layer4 (b*t, c, h, w) to logits (b, num_classes), averaged over segments."""
        with full_precision(x):
            logits = self.classifier(self.dropout(self.pre_classifier(_global_average(x))))
            return logits.unflatten(0, (-1, num_segments)).mean(1)


class TeamBlock(nn.Module):
    """Channel attention, then spatial attention, both computed from the three streams together.

    Two steps, `squeeze` and `scale`, because an exit needs only the first. neutral: each attention
    is twice the sigmoid and starts at 1.
    """

    def __init__(self, channels: tuple[int, int, int], neutral: bool = False):
        super().__init__()
        self.channels, self.neutral = channels, neutral
        total = sum(channels)
        self.squeeze_size = total // SQUEEZE_REDUCTION
        self.fc_squeeze = nn.Linear(total, self.squeeze_size, bias=False)
        # One matrix and one conv hold those of the three streams, in the order of STREAMS.
        self.fc_scale = nn.Linear(self.squeeze_size, total, bias=False)
        self.conv_spatial = nn.Conv2d(3, 3, kernel_size=3, padding=1, bias=False)
        if neutral:
            nn.init.zeros_(self.fc_scale.weight)
            nn.init.zeros_(self.conv_spatial.weight)

    def squeeze(self, features: StageMaps) -> torch.Tensor:
        """The squeeze vectors, (b*t, squeeze_size) float32."""
        with full_precision(features[0]):
            return torch.relu(self.fc_squeeze(_averages(features)))

    def scale(self, features: StageMaps, squeeze: torch.Tensor) -> StageMaps:
        """Each stream times its channel weights, then times its spatial weights."""
        with full_precision(squeeze):
            weights = self._attention(self.fc_scale(squeeze)).split(self.channels, dim=1)
        scaled = [x * w.to(x.dtype)[:, :, None, None] for x, w in zip(features, weights)]
        # mean would first copy all of a bfloat16 x to float32
        maps = [x.sum(1, keepdim=True) / x.shape[1] for x in scaled]  # (b*t, 1, h, w)
        weights = self._attention(self.conv_spatial(torch.cat(maps, dim=1))).split(1, dim=1)
        if torch.is_grad_enabled():
            return tuple(x * w.to(x.dtype) for x, w in zip(scaled, weights))
        return tuple(x.mul_(w) for x, w in zip(scaled, weights))  # saves memory, hence time

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * torch.sigmoid(x) if self.neutral else torch.sigmoid(x)


class Averages(nn.Module):
    """Takes the place of a TEAM block where streams are summed. It re-weights nothing, and an exit
    reads the average of every channel of the three streams."""

    def __init__(self, channels: tuple[int, int, int]):
        super().__init__()
        self.squeeze_size = sum(channels)

    def squeeze(self, features: StageMaps) -> torch.Tensor:
        """(b*t, squeeze_size) float32."""
        with full_precision(features[0]):
            return _averages(features)

    def scale(self, features: StageMaps, squeeze: torch.Tensor) -> StageMaps:
        return features


class TeamNet(nn.Module):
    """The backbone. `arch` is the I-frame stream's network, `motion_arch` the others'.

    fusion: one of FUSIONS. pretrained: "imagenet" starts all streams from torchvision's weights,
    {stream: "imagenet"} only those named. weights_dir: see `models.weights.load_imagenet`.
    `TeamNet(**net.config)` builds the same network again, with new weights.
    """

    def __init__(
        self,
        num_classes: int,
        num_segments: int = 8,
        arch: str = "resnet50",
        motion_arch: str = "resnet18",
        is_shift: bool = False,
        dropout: float = 0.5,
        pretrained: str | Mapping[str, str] | None = None,
        weights_dir: Path | None = None,
        fusion: str = "team",
    ):
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"unknown fusion {fusion!r}: choose one of {', '.join(FUSIONS)}")
        if num_classes < 1 or num_segments < 1:
            raise ValueError(
                f"num_classes ({num_classes}) and num_segments ({num_segments}) must be at least 1"
            )
        # What these weights, or those they began with, have learned from: by data set, digests of
        # the names of the videos (training.agreement).
        self.trained_on: dict[str, torch.Tensor] = {}
        self.config = {
            "num_classes": num_classes,
            "num_segments": num_segments,
            "arch": arch,
            "motion_arch": motion_arch,
            "is_shift": is_shift,
            "dropout": dropout,
            "fusion": fusion,
        }
        self.num_segments = num_segments
        archs = dict(zip(STREAMS, (arch, motion_arch, motion_arch)))
        weights = _imagenet_weights(archs, pretrained, weights_dir)
        for name, stream_arch in archs.items():
            stream = Stream(
                stream_arch,
                IN_CHANNELS[name],
                num_classes,
                num_segments,
                normalise_input=name != "iframe",
                is_shift=is_shift,
                dropout=dropout,
                weights=weights.get(name),
            )
            self.add_module(name, stream)
        self.team = nn.ModuleList(
            Averages(channels) if fusion == "sum" else TeamBlock(channels, fusion == "neutral-team")
            for channels in zip(*(stream.channels for stream in self.streams))
        )

    @property
    def streams(self) -> tuple[Stream, Stream, Stream]:
        return self.iframe, self.mv, self.residual

    def forward(
        self, iframe: torch.Tensor, mv: torch.Tensor, residual: torch.Tensor
    ) -> BackboneOutput:
        """Normalised float clips (b, t, c, h, w) with 3, 2 and 3 channels to squeezes and logits.

        Raises ValueError when the shapes do not belong together or t is not `num_segments`.
        """
        found = [self._outputs(part) for part in self.parts(self.enter(iframe, mv, residual))]
        squeezes, *logits = zip(*found)
        return BackboneOutput(
            tuple(map(torch.cat, zip(*squeezes))), *(torch.cat(parts) for parts in logits)
        )

    def _outputs(self, features: StageMaps) -> BackboneOutput:
        squeeze, squeezes = None, []
        for stage in range(NUM_TEAM_BLOCKS):
            features, squeeze = self.advance(stage, features, squeeze)
            squeezes.append(self.per_clip(squeeze))
        return BackboneOutput(tuple(squeezes), *self.leave(features, squeeze))

    def enter(self, iframe: torch.Tensor, mv: torch.Tensor, residual: torch.Tensor) -> StageMaps:
        """Checked inputs with segments in the batch dimension, (b*t, c, h, w)."""
        clips = (iframe, mv, residual)
        for (name, channels), clip in zip(IN_CHANNELS.items(), clips):
            expected = (*iframe.shape[:1], self.num_segments, channels, *iframe.shape[3:])
            if clip.dim() != 5 or clip.shape != expected:
                raise ValueError(
                    f"{name} has shape {tuple(clip.shape)}; this network takes clips of shape "
                    f"(batch, {self.num_segments} segments, {channels} channels, height, width), "
                    "the same batch and size for the three modalities"
                )
        return tuple(
            stream.input_norm(clip.flatten(0, 1)).to(next(stream.stem.parameters()).dtype)
            for stream, clip in zip(self.streams, clips)
        )

    def parts(self, features: StageMaps) -> list[StageMaps]:
        """What `enter` returned, in parts of equal size that are fast to compute, a clip or more.

        On a CPU, without gradients, they are so small that no map is above LARGEST_MAP.
        """
        x = features[0]
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return [features]
        values = VALUES_PER_PIXEL * x.shape[2] * x.shape[3] * self.num_segments  # of a clip
        most = max(1, LARGEST_MAP // (values * x.element_size()))
        clips = len(x) // self.num_segments
        size = math.ceil(clips / max(1, math.ceil(clips / most)))
        return list(zip(*(x.split(size * self.num_segments) for x in features)))

    def advance(
        self, stage: int, features: StageMaps, squeeze: torch.Tensor | None
    ) -> tuple[StageMaps, torch.Tensor]:
        """One stage further: features after the stem (stage 0) or layer `stage`, and their squeeze.

        The TEAM block before first scales the features that come in, by the `squeeze` that comes
        with them. So a clip that leaves at a squeeze vector has computed nothing in vain.
        """
        features = self._run_stage(stage, features, squeeze)
        return features, self.team[stage].squeeze(features)

    def leave(self, features: StageMaps, squeeze: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The last stage: logits of I-frame, MV and residual, and their sum."""
        features = self._run_stage(NUM_TEAM_BLOCKS, features, squeeze)
        logits = [
            stream.classify(x, self.num_segments) for stream, x in zip(self.streams, features)
        ]
        return (*logits, sum(logits))

    def _run_stage(
        self, stage: int, features: StageMaps, squeeze: torch.Tensor | None
    ) -> StageMaps:
        if squeeze is not None:
            features = self.team[stage - 1].scale(features, squeeze)
        return tuple(stream.stages[stage](x) for stream, x in zip(self.streams, features))

    def per_clip(self, squeeze: torch.Tensor) -> torch.Tensor:
        """(b*t, d) to (b, t*d): the vectors of a clip's segments one after the other."""
        return squeeze.unflatten(0, (-1, self.num_segments)).flatten(1)


def new_classifier(in_features: int, num_classes: int) -> nn.Linear:
    """A Linear that starts near zero, so that first losses are those of a uniform guess."""
    classifier = nn.Linear(in_features, num_classes)
    nn.init.normal_(classifier.weight, 0, CLASSIFIER_STD)
    nn.init.zeros_(classifier.bias)
    return classifier


def full_precision(x: torch.Tensor) -> contextlib.AbstractContextManager:
    """Autocast off on the device of `x`. Meta tensors have no autocast."""
    if x.is_meta:
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def _averages(features: StageMaps) -> torch.Tensor:
    """(b*t, channels of all streams) float32."""
    return torch.cat([_global_average(x) for x in features], dim=1)


def _global_average(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3), dtype=torch.float32)


def _imagenet_weights(
    archs: Mapping[str, str], pretrained: str | Mapping[str, str] | None, weights_dir: Path | None
) -> dict[str, Mapping[str, torch.Tensor]]:
    """The weights to start from, by stream; `archs` and `pretrained` as in TeamNet."""
    for arch in archs.values():
        check_arch(arch)
    if not isinstance(pretrained, Mapping):
        pretrained = {} if pretrained is None else dict.fromkeys(archs, pretrained)
    for source in pretrained.values():
        if source != "imagenet":
            raise ValueError(f"pretrained is None or 'imagenet', not {source!r}")
    states = load_imagenet(dict.fromkeys(archs[name] for name in pretrained), weights_dir)
    return {name: states[archs[name]] for name in pretrained}
