"""Checkpoints of a run (the newest, the one before it, the best), and the backbones in them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from coviar.files import whole_file
from models.official import from_official, is_official
from models.team_net import TeamNet
from models.team_net_ic import TeamNetIC
from training.tensor_file import AGAIN, LAST, PREVIOUS, load_tensors, save_tensors, write_tensors


class CheckpointError(ValueError):
    """A checkpoint that cannot be used. The message says why and what to do."""


@contextlib.contextmanager
def of_this_version(path: Path, remedy: str) -> Iterator[None]:
    """Raises CheckpointError where what `path` holds cannot be taken as it is taken within."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path} is of another version of these scripts; {remedy}"
            f" ({type(error).__name__}: {reason})"
        ) from error


def save_checkpoint(path: Path, content: dict) -> None:
    """Write a dict of tensors and plain values, whole or not at all."""
    save_tensors(path, content)


def save_last(folder: Path, content: dict) -> None:
    """Write last.pt and keep the one before as previous.pt."""
    last = folder / LAST
    with whole_file(last) as temporary:
        write_tensors(temporary, content)
        if last.is_file():
            os.replace(last, folder / PREVIOUS)


def load_last(folder: Path) -> dict | None:
    """The newest readable checkpoint of a run, None where it has none yet.

    Prints a warning when last.pt is damaged and previous.pt is used. Raises CheckpointError when
    neither can be read.
    """
    found = [folder / name for name in (LAST, PREVIOUS) if (folder / name).is_file()]
    for path in found:
        try:
            content = load_checkpoint(path)
        except CheckpointError as error:
            print(f"warning: {error}", file=sys.stderr, flush=True)
            continue
        if path.name == PREVIOUS:
            print(f"going on from {path}, the checkpoint before", file=sys.stderr, flush=True)
        return content
    if found:
        raise CheckpointError(f"{folder}: no readable checkpoint to go on from; {AGAIN}")
    return None


def load_checkpoint(path: Path) -> dict:
    """As `load_tensors`; raises FileNotFoundError or CheckpointError."""
    try:
        return load_tensors(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no checkpoint at {path}") from None
    except ValueError as error:
        raise CheckpointError(f"{error}: not a checkpoint, or a damaged one") from error


def load_backbone(path: Path, num_segments: int | None = None) -> TeamNet:
    """The TEAM-Net in `path`: a run's best.pt, or a published TEAM-Net(-IC) file.

    `num_segments` is needed only for published files without exits, which do not tell their T.
    Raises ValueError when the file is neither, with the keys that do not fit.
    """
    return backbone_from(load_checkpoint(path), path, num_segments)


def backbone_from(content: dict, path: Path, num_segments: int | None = None) -> TeamNet:
    """As `load_backbone`, of a checkpoint already read; `path` is for the message."""
    if "model" in content and "config" in content:
        # On meta no random weights are drawn, which would take longer than reading the file.
        with of_this_version(path, "train it again"), torch.device("meta"):
            backbone = TeamNet(**content["config"])
            backbone.load_state_dict(content["model"], assign=True)
        return backbone
    if is_official(content):
        return published_from(content, path, num_segments).backbone
    raise ValueError(
        f"{path} is neither a checkpoint of train_team_net.py or pretrain.py nor a published"
        f" TEAM-Net file; it holds {sorted(map(str, content))[:8]}"
    )


def published_from(content: dict, path: Path, num_segments: int | None = None) -> TeamNetIC:
    """As `from_official`; `path` is for the message of the ValueError."""
    try:
        return from_official(content, num_segments=num_segments)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
