"""The weights of a new backbone: random, ImageNet's, a checkpoint's, or by stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from models import STREAMS
from models.team_net import TeamNet
from training.agreement import check_unseen, differing_labels, joined_records
from training.checkpoint import backbone_from, load_checkpoint
from training.options import IMAGENET
from training.splits import Splits


def build_backbone(
    config: dict,
    pretrained: str | None,
    seed: int,
    stream_sources: Mapping[str, str] | None = None,
    weights_dir: Path | None = None,
    class_names: Sequence[str] | None = None,
    splits: Splits | None = None,
) -> TeamNet:
    """A new TeamNet(**config) with the weights of `pretrained`: "imagenet", a checkpoint, None.

    stream_sources: by stream, "imagenet" or a checkpoint that it starts from instead. weights_dir:
    of the ImageNet weights, see `models.weights.load_imagenet`. Classifiers of other classes than
    `class_names`, which are by label, are replaced. Raises ValueError or FileNotFoundError when
    weights cannot be read or do not fit, or have learned from test or held-out videos of `splits`.
    """
    sources = dict.fromkeys((*STREAMS, "team"), pretrained) | dict(stream_sources or {})
    imagenet = {name: IMAGENET for name in STREAMS if sources[name] == IMAGENET}
    torch.manual_seed(seed)
    model = TeamNet(**config, pretrained=imagenet, weights_dir=weights_dir)
    for path in dict.fromkeys(sources.values()):
        if path not in (None, IMAGENET):
            parts = [part for part, source in sources.items() if source == path]
            _copy(model, path, parts, class_names, splits)
    return model


def _copy(
    model: TeamNet,
    path: str,
    parts: Sequence[str],
    class_names: Sequence[str] | None,
    splits: Splits | None,
) -> None:
    """Copy the weights of these parts, streams or "team", from a checkpoint into `model`."""
    checkpoint = load_checkpoint(Path(path))
    source = backbone_from(checkpoint, Path(path), model.num_segments)
    if splits:
        check_unseen(Path(path), checkpoint, splits)
    model.trained_on = joined_records(model.trained_on, checkpoint.get("trained_on", {}))
    before, fusion = source.config["fusion"], model.config["fusion"]
    if before == "sum":  # it has no TEAM blocks
        parts = [part for part in parts if part != "team"]
    elif before != fusion and "team" in parts:
        raise ValueError(
            f"{path} was trained with --fusion {before}, which only goes on as that; streams for"
            f" --fusion {fusion} come from a run with --fusion sum"
        )
    known, num_classes = source.config["num_classes"], model.config["num_classes"]
    theirs = checkpoint.get("class_names")
    differ = differing_labels(theirs, class_names) if theirs and class_names else []
    if known != num_classes:
        print(f"{path} knows {known} classes: new classifiers for {num_classes}")
    elif differ:
        print(
            f"{path} knows other classes (label {differ[0]} is {theirs[differ[0]]!r} there,"
            f" {class_names[differ[0]]!r} here): new classifiers"
        )
    has_other_classes = known != num_classes or bool(differ)

    def wanted(net: TeamNet) -> dict[str, torch.Tensor]:
        return {
            key: value
            for key, value in net.state_dict().items()
            if key.split(".")[0] in parts and not (has_other_classes and ".classifier." in key)
        }

    weights, expected = wanted(source), wanted(model)
    keys = sorted(weights.keys() | expected.keys())
    theirs, ours = ({k: v.shape for k, v in state.items()} for state in (weights, expected))
    misfits = [key for key in keys if theirs.get(key) != ours.get(key)]
    if misfits:
        raise ValueError(
            f"{path} holds {source.config}, which does not fit the options {model.config};"
            f" first keys that differ: {misfits[:5]}"
        )
    model.load_state_dict(weights, strict=False)
