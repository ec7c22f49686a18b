"""A frozen backbone with the data its exits see; the IC scripts and save_logits.py stand on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from training.bank import BANK_DTYPES, FrozenNetwork, Views
from training.checkpoint import backbone_from, load_checkpoint
from training.loading import DataSettings, open_splits

PARTS = ("train", "heldout", "test", "train_as_tested")


class Frozen:
    """Backbone, data sets and views.

    asked: what the user says of the backbone, None where nothing; keys READ_FROM_BACKBONE.
    batch_size: clips per forward pass. cache_dir: the folder of banks. Raises ValueError or
    FileNotFoundError when backbone, `asked` and lists do not belong together.
    """

    READ_FROM_BACKBONE = (
        *("arch", "motion_arch", "num_segments", "is_shift", "dropout", "crop_size"),
    )

    def __init__(
        self,
        path: Path,
        data: DataSettings,
        *,
        device: torch.device,
        precision: str,
        batch_size: int,
        workers: int,
        data_seed: int,
        bank_dtype: str,
        cache_dir: Path,
        asked: Mapping[str, object],
    ):
        self.path, self.data, self.device = path, data, device
        self.precision, self.data_seed = precision, data_seed
        checkpoint = load_checkpoint(path)
        self.backbone = backbone_from(checkpoint, path, asked["num_segments"])
        self.crop_size = checkpoint.get("crop_size") or asked["crop_size"] or 224
        self._check(asked, checkpoint)
        self.splits = open_splits(data, self.backbone.num_segments, self.crop_size, data_seed)
        self.class_names = list(self.splits.class_names)
        known = self.backbone.config["num_classes"]
        if len(self.class_names) != known:
            raise ValueError(
                f"{path} knows {known} classes, {data.train_list} has {len(self.class_names)}"
            )
        self._check_heldout(checkpoint)
        self.network = FrozenNetwork(
            self.backbone,
            path,
            device=device,
            precision=precision,
            batch_size=batch_size,
            workers=workers,
        )
        self.digest = self.network.digest
        self._dtype, self._cache_dir = bank_dtype, cache_dir

    def views(self, part: str, banked: bool = True) -> Views:
        """The views of one of PARTS, or of `selection`: the part that models are chosen on.

        Augmented views only teach, so they are rounded to `bank_dtype`. The others are what an
        exit's accuracy, weights and thresholds are measured on: as the network gives them.
        """
        if part == "selection":
            part = self.splits.selection_name
        return Views(
            self.network,
            getattr(self.splits, part),
            name=f"{self.data.split} {part}",
            dtype=BANK_DTYPES[self._dtype if part == "train" else "float32"],
            cache_dir=self._cache_dir if banked else None,
        )

    def _check(self, asked: Mapping[str, object], checkpoint: dict) -> None:
        known = {**self.backbone.config, "crop_size": self.crop_size}
        if "model" not in checkpoint:  # published files do not tell their dropout
            known.pop("dropout")
        for key, value in asked.items():
            if value is not None and key in known and value != known[key]:
                raise ValueError(
                    f"{self.path} was trained with {key} {known[key]}, the options say {value};"
                    " leave the option out, or name another backbone with --pretrained"
                )

    def _check_heldout(self, checkpoint: dict) -> None:
        """Say it when the backbone has seen the videos that models are chosen on."""
        heldout = self.splits.heldout
        unseen = set(checkpoint.get("heldout", ()))
        if heldout and any(record.name not in unseen for record in heldout.records):
            print(
                f"note: the backbone {self.path} may have trained on held-out videos (it records"
                " another held-out set, or none); its exits look better there than they are"
            )
