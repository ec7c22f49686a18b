"""A checkpoint records how it was trained. Options and lists that contradict it are errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset_team.finder import alike
from models import PUBLISHED_NETWORK
from models.team_net import TeamNet
from training.checkpoint import backbone_from, load_checkpoint

# What a backbone records of itself. An option of such a name may only repeat it.
READ_FROM_BACKBONE = tuple(PUBLISHED_NETWORK)


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
