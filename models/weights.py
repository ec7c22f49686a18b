"""ImageNet weights of torchvision's networks: their files, where they lie, and their check."""

from __future__ import annotations

import hashlib
import http.client
import re
from collections.abc import Iterable
from pathlib import Path

import torch
import torchvision
from torchvision.models import WeightsEnum

VERSION = "IMAGENET1K_V1"


def load_imagenet(
    archs: Iterable[str], weights_dir: Path | None = None
) -> dict[str, dict[str, torch.Tensor]]:
    """The state_dicts of torchvision's IMAGENET1K_V1 weights, by network.

    They are read from `weights_dir`. Without one they are read from torch's hub cache, and a
    missing file is downloaded into it. Raises ValueError, naming all files that are wanted, where
    one cannot be had, and where the content of a file does not match its name: torchvision's names
    end with the first digits of the SHA-256.
    """
    wanted = {arch: _weights(arch) for arch in archs}
    folder = Path(torch.hub.get_dir(), "checkpoints") if weights_dir is None else Path(weights_dir)
    files = {arch: folder / weights.url.rpartition("/")[2] for arch, weights in wanted.items()}
    missing = [weights.url for arch, weights in wanted.items() if not files[arch].is_file()]
    fetch = f"Fetch {', '.join(missing)} on a machine with network access and put it into {folder}"
    if missing and weights_dir is not None:
        names = ", ".join(url.rpartition("/")[2] for url in missing)
        raise ValueError(f"--weights-dir {folder} has no {names}. {fetch}")
    states = {}
    for arch, weights in wanted.items():
        if files[arch].is_file():
            _check_digest(files[arch], weights.url)
        try:
            states[arch] = weights.get_state_dict(model_dir=str(folder), check_hash=True)
        # No network, refused or timed out; cut short; another file than its name says.
        except (OSError, EOFError, http.client.HTTPException, RuntimeError) as error:
            raise ValueError(
                f"cannot download the ImageNet weights of {arch} ({error}). {fetch}, or into"
                " another folder that --weights-dir names, or train without --pretrained imagenet"
            ) from error
    return states


def _weights(arch: str) -> WeightsEnum:
    known = torchvision.models.get_model_weights(arch)
    if VERSION not in known.__members__:
        raise ValueError(f"torchvision has no {VERSION} weights of {arch}")
    return known[VERSION]


def _check_digest(file: Path, url: str) -> None:
    expected = re.search(r"-([0-9a-f]{8,})\.", file.name)[1]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if not digest.startswith(expected):
        raise ValueError(
            f"{file} is damaged or another file: its SHA-256 begins with {digest[: len(expected)]},"
            f" not with {expected}; remove it and fetch {url}"
        )
