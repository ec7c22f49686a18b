"""Checkpoints: plain tensors and values, written whole, read without running code from the file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch

from coviar.files import whole_file
from models.official import from_official, is_official
from models.team_net import TeamNet

LAST, BEST = "last.pt", "best.pt"


def save_checkpoint(path: Path, content: dict) -> None:
    """Write a dict of tensors and plain values; `path` holds the old content or the new, whole."""
    with whole_file(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path) -> dict:
    """Read what `save_checkpoint` or the published code wrote, as data only (weights_only=True).

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is cut short, or holds something else than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is no readable checkpoint of tensors and plain values ({reason});"
            " delete it, or name another file"
        ) from error


def weights_digest(state_dict: Mapping[str, torch.Tensor]) -> str:
    """16 hex digits that change with any key, shape, dtype or bit of the weights."""
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        tensor = state_dict[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def load_backbone(path: Path, num_segments: int | None = None) -> TeamNet:
    """The TEAM-Net in `path`: a run's best.pt or last.pt, or a published TEAM-Net(-IC) file.

    `num_segments` is needed only for published files without exits, which do not tell their T.
    Raises ValueError when the file is neither, with the keys that do not fit.
    """
    return backbone_from(load_checkpoint(path), path, num_segments)


def backbone_from(content: dict, path: Path, num_segments: int | None = None) -> TeamNet:
    """As `load_backbone`, of a checkpoint already read; `path` is for the message."""
    if "model" in content and "config" in content:
        with torch.device(
            "meta"
        ):  # to draw random weights takes longer than to read the right ones
            backbone = TeamNet(**content["config"])
        backbone.load_state_dict(content["model"], assign=True)
        return backbone
    if is_official(content):
        return from_official(content, num_segments=num_segments).backbone
    raise ValueError(
        f"{path} is neither a checkpoint of train_team_net.py or pretrain.py nor a published"
        f" TEAM-Net file; it holds {sorted(content)[:8]}"
    )
