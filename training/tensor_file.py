"""Files of tensors and plain values: written whole, and read as data only."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from coviar.files import whole_file

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"  # the checkpoints of a run
AGAIN = "--overwrite starts again"  # what a run can do whose files are of no use


def save_tensors(path: str | os.PathLike, content: dict) -> None:
    """Write a dict of tensors and plain values, whole or not at all."""
    with whole_file(path) as temporary:
        write_tensors(temporary, content)


def write_tensors(path: Path, content: dict) -> None:
    """Write directly to `path`. Raises what ended torch.save on the way, which itself would raise
    RuntimeError: OSError when the disk is full, Stopped at a signal, KeyboardInterrupt.
    """
    with open(path, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if error.__context__ is not None:
                raise error.__context__ from None
            raise


def load_tensors(path: str | os.PathLike) -> dict:
    """Read a file of `save_tensors`, or of the published code, as data only (weights_only=True).

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is cut short or damaged, holds more than tensors and plain values, or
            no dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged or hostile file can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is no readable file of tensors and plain values ({reason})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} where a dict is expected")
    return content


def _check_sums(path: Path) -> None:
    """Raise ValueError for a wrong check sum in the zip file; torch.load does not look."""
    if zipfile.is_zipfile(path):  # the published files may be older
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"check sum of {damaged} is wrong")


def weights_digest(state_dict: Mapping[str, torch.Tensor]) -> str:
    """16 hex digits that change with any key, shape, dtype or bit of the weights."""
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        tensor = state_dict[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
