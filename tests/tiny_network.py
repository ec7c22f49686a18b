"""ResNets of a few thousand weights, so that a training step takes milliseconds."""

from torch import nn
from torchvision.models.resnet import BasicBlock

from models.networks import ARCHS


def tiny_resnet(arch, in_channels, weights=None):
    """In the place of models.team_net.build_network."""
    if arch not in ARCHS:
        raise ValueError(f"unknown arch {arch!r}")
    resnet, channels = nn.Module(), 8
    resnet.conv1 = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
    resnet.bn1, resnet.relu = nn.BatchNorm2d(channels), nn.ReLU()
    resnet.maxpool = nn.MaxPool2d(2)
    for number, width in enumerate((8, 16, 32, 64), 1):
        stride = 1 + (number > 1)
        shortcut = nn.Conv2d(channels, width, 1, stride=stride, bias=False)
        shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(width))
        block = BasicBlock(channels, width, stride, shortcut)
        setattr(resnet, f"layer{number}", nn.Sequential(block))
        channels = width
    resnet.fc = nn.Linear(channels, 1)
    return resnet
