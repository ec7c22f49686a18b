"""A checkpoint records how it was trained, and on which videos. What contradicts it is an error."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from dataset_team.dataset import VideoDataset
from dataset_team.finder import alike
from dataset_team.list_file import name_of_file
from models import PUBLISHED_NETWORK
from models.team_net import TeamNet
from training.checkpoint import backbone_from, load_checkpoint
from training.splits import Splits

# What a backbone records of itself. An option of such a name may only repeat it.
READ_FROM_BACKBONE = tuple(PUBLISHED_NETWORK)
LOOKS_BETTER = "what is trained on it looks better there than it is"


def load_as_trained(path: Path, asked: Mapping[str, object]) -> tuple[dict, TeamNet, int]:
    """A backbone's checkpoint, its network and its crop size.

    asked: the user's options READ_FROM_BACKBONE, None where not given. Raises FileNotFoundError,
    and ValueError where an option contradicts the file or the file is no backbone.
    """
    checkpoint = load_checkpoint(path)
    backbone = backbone_from(checkpoint, path, asked["num_segments"])
    crop_size = checkpoint.get("crop_size") or asked["crop_size"] or PUBLISHED_NETWORK["crop_size"]
    known = {**backbone.config, "crop_size": crop_size}
    if "model" not in checkpoint:  # published files do not tell their dropout
        known.pop("dropout")
    check_options(path, known, asked)
    return checkpoint, backbone, crop_size


def check_options(path: Path, known: Mapping, asked: Mapping) -> None:
    """Raise ValueError where an option that is not None differs from the checkpoint `path`."""
    for key, value in asked.items():
        if value is not None and key in known and value != known[key]:
            raise ValueError(
                f"{path} was trained with {key} {known[key]}, the options say {value};"
                " leave the option out, or name another backbone with --pretrained"
            )


def check_classes(
    path: Path, known: Sequence[str] | None, count: int, names: Sequence[str], source: object
) -> None:
    """Raise ValueError where the class names of `source` are not those of the checkpoint `path`.

    known: the checkpoint's names by label, None where it records none. count: how many it has.
    Letter case and underscores do not matter. A label may also be named by its number.
    """
    if len(names) != count:
        raise ValueError(f"{path} knows {count} classes, {source} has {len(names)}")
    known = known or [str(label) for label in range(count)]
    differ = [
        f"label {label} is {known[label]!r} there and {names[label]!r} in {source}"
        for label in differing_labels(known, names)
    ]
    if differ:
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        is_order = set(map(alike, known)) == set(map(alike, names))
        reason = "the same classes in another order" if is_order else "other classes"
        raise ValueError(
            f"{path} was trained on {reason}: {'; '.join(differ[:3])}{more}. Use a list with the"
            " checkpoint's classes and labels, or a network trained on this one"
        )


def differing_labels(known: Sequence[str], names: Sequence[str]) -> list[int]:
    """The labels whose names differ. A name that is the label's number agrees with any."""
    return [
        label
        for label, (theirs, ours) in enumerate(zip(known, names))
        if str(label) not in (theirs, ours) and alike(theirs) != alike(ours)
    ]


def name_digests(names: Iterable[str]) -> torch.Tensor:
    """(n,) int64, sorted: 8 bytes of the SHA-256 of each name."""
    digests = (hashlib.sha256(n.encode("utf-8", "surrogateescape")).digest()[:8] for n in names)
    return torch.from_numpy(np.unique(np.frombuffer(b"".join(digests), "<i8")))


def joined_records(*records: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One record of trained videos, `TeamNet.trained_on`, of several."""
    names = dict.fromkeys(data for record in records for data in record)
    return {data: torch.cat([r[data] for r in records if data in r]).unique() for data in names}


def check_unseen(path: Path, checkpoint: Mapping, splits: Splits) -> None:
    """Raise ValueError where the network in `path` has learned from test videos of `splits`, or
    from held-out ones on which epochs are chosen.

    Videos are compared by name within a data set: as their files are named, and as lists name them,
    which is what earlier versions recorded. Prints a note where it has learned from other
    held-out ones, and where a file that does not record its videos may have.
    """
    settings = splits.settings
    if "trained_on" not in checkpoint:
        _note_unknown(path, checkpoint, splits)
        return
    seen = set(checkpoint["trained_on"].get(settings.data_name, torch.empty(0)).tolist())

    def known(dataset: VideoDataset | None) -> list[str]:
        found = []
        for record in dataset.records if dataset else ():
            names = record.name, name_of_file(record.path, settings.data_root)
            if not seen.isdisjoint(name_digests(names).tolist()):
                found.append(record.name)
        return found

    test, heldout = known(splits.test), known(splits.heldout)
    if test:
        raise ValueError(
            f"{path} has trained on {len(test)} test video(s) of {settings.test_list}, first"
            f" {min(test)}: a test video must not train. Take a checkpoint of this split, or lists"
            " of the checkpoint's"
        )
    if heldout:
        message = f"{path} has trained on {len(heldout)} held-out video(s), first {min(heldout)}"
        if settings.select_on == "heldout":
            raise ValueError(
                f"{message}: no epoch can be chosen on them. Give the --train-list and --heldout of"
                " its training, or choose nothing with --select-on last"
            )
        print(f"note: {message}; {LOOKS_BETTER}")


def _note_unknown(path: Path, checkpoint: Mapping, splits: Splits) -> None:
    """Files of earlier versions know the names that their last training held out, published ones
    nothing."""
    settings = splits.settings
    if checkpoint.get("data_name", settings.data_name) != settings.data_name:
        return
    split = checkpoint.get("split", settings.split)
    if split != settings.split:
        print(f"note: {path} was trained on {split} and may know test videos of {settings.split}")
    if not set(splits.heldout_names) <= set(checkpoint.get("heldout", ())):
        print(
            f"note: {path} may have trained on held-out videos (it records another held-out set, or"
            f" none); {LOOKS_BETTER}"
        )
