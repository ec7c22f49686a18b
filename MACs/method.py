"""How a method is described and counted: its networks, what one pass runs, and the protocol."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from MACs.counter import count_macs

CROP_SIZE = 224
PAPER_UNIT = 1024**3  # the paper's tables print MACs / 1024**3 as "GMACs"


class Part(NamedTuple):
    """A network, on the meta device, and the shape of all that one pass gives it."""

    name: str
    network: nn.Module
    shape: tuple[int, ...]  # the batch dimension counts the pictures or clips of one pass


class Method(NamedTuple):
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


def describe(name: str, parts: list[Part], **fields) -> Method:
    """A method that runs each of its parts once per pass."""
    steps, pointwise = {}, 0
    for part in parts:
        x = torch.empty(part.shape, device="meta")
        steps[part.name] = count_macs(part.network, x)
        pointwise += count_macs(part.network, x, pointwise=True) - steps[part.name]
    params = sum(count_params(part.network) for part in parts)
    return Method(name=name, steps=steps, pointwise=pointwise, params=params, **fields)


def count_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
