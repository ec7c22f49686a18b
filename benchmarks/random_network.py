"""A TEAM-Net with random weights and random clips for it, where only time is measured."""

from __future__ import annotations

import argparse

import torch
from torch import nn

from benchmarks.measuring import device_name
from models.networks import ARCHS
from models.team_net import IN_CHANNELS, TeamNet
from training.options import positive_int

NUM_CLASSES = 101


def add_network_options(
    parser: argparse.ArgumentParser,
    arch: str = "resnet50",
    crop_size: int = 224,
    num_segments: int = 8,
) -> None:
    names = {"choices": ARCHS, "metavar": "ARCH"}
    parser.add_argument("--arch", default=arch, **names, help=f"I-frame stream (default {arch})")
    parser.add_argument(
        "--motion-arch", default="resnet18", **names, help="the others (default resnet18)"
    )
    parser.add_argument("--crop-size", type=positive_int, default=crop_size)
    parser.add_argument("--num_segments", type=positive_int, default=num_segments)
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu or cuda")


def random_network(num_segments: int, arch: str, motion_arch: str, device: str) -> TeamNet:
    """In eval mode. Its classifiers tell clips apart; new ones answer all alike."""
    torch.manual_seed(0)
    net = TeamNet(NUM_CLASSES, num_segments, arch, motion_arch).to(device).eval()
    for stream in net.streams:
        nn.init.normal_(stream.classifier.weight)
    return net


def random_clips(
    batch_size: int, num_segments: int, crop_size: int, device: str
) -> list[torch.Tensor]:
    """I-frames, motion vectors and residuals, (b, t, c, S, S)."""
    shape, size = (batch_size, num_segments), (crop_size, crop_size)
    return [torch.randn(*shape, c, *size, device=device) for c in IN_CHANNELS.values()]
