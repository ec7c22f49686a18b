"""Weights of published TEAM-Net and TEAM-Net + IC checkpoints, read into `TeamNetIC`.

The published names differ from ours only by their spelling, except that our TEAM blocks keep the
three streams' scaling matrices in one, and likewise the three spatial convolutions.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import torch
import torchvision

from models import PUBLISHED_NETWORK
from models.networks import RESNETS
from models.team_net import NUM_TEAM_BLOCKS, TeamNet
from models.team_net_ic import TeamNetIC

STREAM_MODULES = {"iframe": "I_model", "mv": "MV_model", "residual": "R_model"}
STREAM_SUFFIXES = ("i", "mv", "r")
CLASSIFIER = "I_model.new_fc.weight"


def is_official(checkpoint: Mapping) -> bool:
    """Whether a loaded file holds a published TEAM-Net, with or without wrapper and prefix."""
    return CLASSIFIER in _unwrap(checkpoint)


def from_official(checkpoint: Mapping, num_segments: int | None = None) -> TeamNetIC:
    """The network of a published checkpoint, in eval mode, with the exits the file has.

    Keys and shapes tell classes, streams, temporal shift, exits and T. A file without exits does
    not tell T: it is then `num_segments`, by default 8. `net.backbone.config` records it.
    Raises ValueError, listing keys, when the file does not fit the network or `num_segments`.
    """
    state = _unwrap(checkpoint)
    if CLASSIFIER not in state:
        raise ValueError(
            f"not a published TEAM-Net checkpoint: it has no {CLASSIFIER}; "
            f"its first keys are {list(state)[:3]}"
        )
    _refuse("no tensors", [key for key, x in state.items() if not isinstance(x, torch.Tensor)])
    exits = [k for k in range(1, NUM_TEAM_BLOCKS + 1) if f"IC{k}_classifier.weight" in state]
    with torch.device("meta"):  # the file brings every value
        backbone = TeamNet(
            num_classes=_shape(state, CLASSIFIER, 2)[0],
            num_segments=_read_num_segments(state, exits, num_segments),
            arch=_read_arch(state, STREAM_MODULES["iframe"]),
            motion_arch=_read_arch(state, STREAM_MODULES["mv"]),
            is_shift=any(".conv1.net." in key for key in state),
        )
        net = TeamNetIC(backbone, exits)
    _load(net, state)
    return net.eval()


def _unwrap(checkpoint: object) -> dict[str, torch.Tensor]:
    """The weights in a file without wrapper and prefix; nothing where it holds none."""
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping):
        return {}
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _read_num_segments(state: Mapping, exits: list[int], asked: int | None) -> int:
    """T by the input sizes of the exits. All of them and `asked` must agree."""
    found = {}
    for k in exits:
        squeeze_size = _shape(state, f"team{k - 1}.fc_squeeze.weight", 2)[0]
        inputs = _shape(state, f"IC{k}_classifier.weight", 2)[1]
        if inputs % squeeze_size:
            raise ValueError(
                f"IC{k}_classifier takes {inputs} inputs, which is no multiple of the "
                f"{squeeze_size} of team{k - 1}.fc_squeeze"
            )
        found[f"exit {k}"] = inputs // squeeze_size
    if asked is not None:
        found["the caller"] = asked
    if len(set(found.values())) > 1:
        sizes = ", ".join(f"{value} by {name}" for name, value in found.items())
        raise ValueError(f"the number of segments is contradictory: {sizes}")
    return next(iter(found.values()), PUBLISHED_NETWORK["num_segments"])


def _read_arch(state: Mapping, stream: str) -> str:
    """The torchvision ResNet with this stream's kind, number and width of blocks."""
    prefix = f"{stream}.base_model."
    shapes = {
        key[len(prefix) :].replace(".net.", "."): tuple(value.shape)
        for key, value in state.items()
        if key.startswith(prefix)
    }
    found = _signature(shapes)
    for arch in RESNETS:
        if _arch_signature(arch) == found:
            return arch
    blocks, kernel, is_bottleneck = found
    kind = "bottleneck" if is_bottleneck else "basic"
    raise ValueError(
        f"{stream} is no torchvision ResNet: {blocks} {kind} blocks in layer1 .. layer4, "
        f"layer1.0.conv2 of shape {kernel}"
    )


@functools.cache
def _arch_signature(arch: str) -> tuple:
    with torch.device("meta"):
        state = torchvision.models.get_model(arch).state_dict()
    return _signature({key: tuple(value.shape) for key, value in state.items()})


def _signature(shapes: Mapping[str, tuple[int, ...]]) -> tuple:
    blocks = []
    for layer in range(1, 5):
        found = [re.match(rf"layer{layer}\.(\d+)\.", key) for key in shapes]
        blocks.append(1 + max((int(m.group(1)) for m in found if m), default=-1))
    is_bottleneck = "layer1.0.conv3.weight" in shapes
    return tuple(blocks), shapes.get("layer1.0.conv2.weight"), is_bottleneck


def _shape(state: Mapping, key: str, dimensions: int) -> tuple[int, ...]:
    if key not in state:
        raise ValueError(f"the checkpoint has no {key}")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{key} has the shape {shape}, where {dimensions} dimensions are expected")
    return shape


def _load(net: TeamNetIC, state: Mapping) -> None:
    """Fill `net`, which is on the meta device, with copies of the file's tensors."""
    ours = net.state_dict()
    sources = {key: _sources(key, tensor, net) for key, tensor in ours.items()}
    expected = {name: shape for shapes in sources.values() for name, shape in shapes.items()}
    _refuse("missing", sorted(set(expected) - set(state)))
    _refuse("unexpected", sorted(set(state) - set(expected)))
    _refuse(
        "of another shape",
        [
            f"{name}: {tuple(state[name].shape)}, expected {tuple(shape)}"
            for name, shape in expected.items()
            if state[name].shape != shape
        ],
    )
    for key, shapes in sources.items():
        tensors = [state[name] for name in shapes]
        joined = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        ours[key] = joined.to(ours[key].dtype, copy=True)
    net.load_state_dict(ours, assign=True)


def _sources(key: str, tensor: torch.Tensor, net: TeamNetIC) -> dict[str, torch.Size]:
    """The published names and shapes that one of our tensors is made of, joined in this order."""
    names = _official_keys(key)
    if len(names) == 1:
        return {names[0]: tensor.shape}
    number, module = key.split(".")[2:4]  # backbone.team.NUMBER.MODULE.weight
    rows = net.backbone.team[int(number)].channels if module == "fc_scale" else 1
    return {name: part.shape for name, part in zip(names, tensor.split(rows))}


def _refuse(what: str, keys: list[str]) -> None:
    if keys:
        shown = "\n  ".join(keys[:20])
        more = f"\n  and {len(keys) - 20} more" if len(keys) > 20 else ""
        raise ValueError(
            f"the checkpoint does not fit the network; {len(keys)} keys {what}:\n  {shown}{more}"
        )


def _official_keys(key: str) -> tuple[str, ...]:
    """The published key of one of our state_dict keys; three of them where we keep one tensor."""
    part, rest = key.split(".", 1)
    if part == "heads":
        exit_number, leaf = rest.split(".")
        return (f"IC{exit_number}_classifier.{leaf}",)
    part, rest = rest.split(".", 1)  # after "backbone."
    if part == "team":
        number, module, leaf = rest.split(".")
        if module == "fc_squeeze":
            return (f"team{number}.fc_squeeze.{leaf}",)
        name = {"fc_scale": "fc", "conv_spatial": "conv_s"}[module]
        return tuple(f"team{number}.{name}_{suffix}.{leaf}" for suffix in STREAM_SUFFIXES)
    stream, module = STREAM_MODULES[part], rest.split(".", 1)
    if module[0] == "classifier":
        return (f"{stream}.new_fc.{module[1]}",)
    if module[0] == "input_norm":
        return (f"{stream}.data_bn.{module[1]}",)
    return (f"{stream}.base_model.{rest.removeprefix('stem.')}",)
