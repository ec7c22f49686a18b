"""A rival in the comparison of costs: its networks, what one pass runs, and the protocol."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from MACs.counter import count_macs
from models import PUBLISHED_NETWORK

CROP_SIZE = PUBLISHED_NETWORK["crop_size"]
PAPER_UNIT = 1024**3  # the paper's tables print MACs / 1024**3 as "GMACs"


class CountedNetwork(NamedTuple):
    """A network, on the meta device, and the shape of all that one pass gives it."""

    name: str
    network: nn.Module
    shape: tuple[int, ...]  # the batch dimension counts the pictures or clips of one pass


class Rival(NamedTuple):
    """One row of the table: what one pass over a view of a video costs, and how many it takes."""

    name: str
    steps: dict[str, int]  # MACs of one pass, step by step
    pointwise: int  # MACs that the published way of counting adds, see MACs.counter
    params: int
    clips: int
    crops: int
    published: float | None  # MACs / 1024**3 of one pass, as in the PKD + WISE paper's comparison
    source: str  # of network and protocol
    note: str = ""

    @property
    def macs(self) -> int:
        return sum(self.steps.values())

    @property
    def views(self) -> int:
        return self.clips * self.crops


def count_rival(name: str, networks: list[CountedNetwork], **fields) -> Rival:
    """A rival that runs each of its networks once per pass."""
    steps, pointwise = {}, 0
    for counted in networks:
        x = torch.empty(counted.shape, device="meta")
        steps[counted.name] = count_macs(counted.network, x)
        pointwise += count_macs(counted.network, x, pointwise=True) - steps[counted.name]
    params = sum(count_params(counted.network) for counted in networks)
    return Rival(name=name, steps=steps, pointwise=pointwise, params=params, **fields)


def count_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
