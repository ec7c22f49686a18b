"""A frozen backbone, its data sets and its views, for the IC scripts and save_logits.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from models.team_net_ic import TeamNetIC
from training.agreement import check_classes, check_unseen, load_as_trained
from training.bank import BANK_DTYPES, FrozenNetwork, Views
from training.checkpoint import load_checkpoint
from training.splits import DataSettings, open_splits
from training.trained import put_exits_on

# What a checkpoint records of the choice of its epoch.
CHOSEN = ("select_on", "heldout")
VIEW_PARTS = ("train", "unlabelled", "heldout", "test", "train_as_tested")


class Frozen:
    """Backbone, data sets and views.

    asked: the user's options READ_FROM_BACKBONE, None where not given.
    batch_size: clips per forward pass. cache_dir: the folder of banks. Raises ValueError or
    FileNotFoundError when backbone, `asked` and lists do not belong together.
    """

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
        checkpoint, self.backbone, self.crop_size = load_as_trained(path, asked)
        count = self.backbone.config["num_classes"]
        segments = self.backbone.num_segments
        self.splits = open_splits(data, segments, self.crop_size, data_seed, count)
        self.class_names = list(self.splits.class_names)
        known = checkpoint.get("class_names")
        check_classes(path, known, count, self.class_names, data.train_list)
        # Files of earlier versions and published ones do not tell.
        self._chosen = {key: checkpoint[key] for key in CHOSEN if key in checkpoint}
        check_unseen(path, checkpoint, self.splits)
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

    @property
    def protocol(self) -> str:
        """The protocol of exits on this backbone, with what chose the backbone's own epoch."""
        backbone = self._chosen.get("select_on", "last")
        if backbone in ("last", self.data.select_on):
            return self.splits.protocol
        return f"{self.splits.protocol}, backbone selected on {backbone}"

    def alone(self) -> TeamNetIC:
        """The backbone without exits. Raises ValueError where it was chosen on other videos."""
        self._check_chosen(self.path, self._chosen)
        return TeamNetIC(self.backbone, ()).eval()

    def exits(self, path: Path) -> TeamNetIC:
        """The exits of an IC run's best.pt on this backbone and device, in eval mode.

        Raises FileNotFoundError, and ValueError where they are of another backbone, of crops of
        another size, of other classes than the lists, or were chosen on other videos.
        """
        content = load_checkpoint(path)
        count = self.backbone.config["num_classes"]
        names = content.get("class_names")
        check_classes(path, names, count, self.class_names, self.data.train_list)
        net = put_exits_on(self.backbone, self.digest, path, content)
        crop_size = content.get("crop_size", self.crop_size)
        if crop_size != self.crop_size:  # a published backbone does not tell its own
            raise ValueError(
                f"the exits in {path} were trained with --crop-size {crop_size}, here it is"
                f" {self.crop_size}: name that size"
            )
        self._check_chosen(path, content)
        return net.to(self.device)

    def views(self, part: str, banked: bool = True, per_segment: bool = False) -> Views:
        """The views of one of VIEW_PARTS, or of `selection`, on which models are chosen.

        Augmented views only teach, so they are rounded to `bank_dtype`. The others are for
        accuracy, weights and thresholds, and stay as the network computes them.
        """
        if part == "selection":
            part = self.splits.selection_name
        return Views(
            self.network,
            getattr(self.splits, part),
            name=f"{self.data.split} {part}",
            dtype=BANK_DTYPES[self._dtype if part in ("train", "unlabelled") else "float32"],
            cache_dir=self._cache_dir if banked else None,
            per_segment=per_segment,
        )

    def _check_chosen(self, path: Path, content: Mapping) -> None:
        """Raise ValueError where `path` records another choice, or others held out, than is asked.

        Logits of it would state a wrong protocol, and hold out videos that it trained on.
        """
        if not content.keys() >= set(CHOSEN):
            return
        known, asked = content["select_on"], self.data.select_on
        if known != asked:
            raise ValueError(
                f"{path} was trained with --select-on {known}, here it is {asked}: give"
                f" --select-on {known}"
            )
        then, now = set(content["heldout"]), set(self.splits.heldout_names)
        if then != now:
            raise ValueError(
                f"{path} was trained with {len(then)} videos held out, here they are {len(now)},"
                f" and {min(then ^ now)} is not among both: give the --train-list, --heldout and"
                " --on-bad-video of its training"
            )
