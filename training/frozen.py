"""A frozen backbone with the data its exits see; the IC scripts and save_logits.py stand on it."""

from __future__ import annotations

import argparse
from pathlib import Path

from training import options
from training.checkpoint import backbone_from, load_checkpoint
from training.loading import open_splits
from training.views import BANK_DTYPES, FrozenNetwork, Views

PARTS = ("train", "heldout", "test", "train_as_tested")


def add_frozen_options(parser: argparse.ArgumentParser) -> None:
    """The frozen backbone and how its views are made."""
    group = parser.add_argument_group("frozen backbone")
    group.add_argument(
        "--pretrained",
        help="backbone checkpoint, ours or a published one (default: best.pt of the run of the"
        " same data and split under --checkpoint_dir)",
    )
    for flag, words in (
        ("--arch", "I-frame stream"),
        ("--motion-arch", "MV and residual streams"),
    ):
        group.add_argument(flag, help=f"{words}; read from the backbone, an error if it differs")
    group.add_argument("--num_segments", type=options.positive_int, help="T; likewise")
    group.add_argument("--is_shift", action="store_true", default=None, help="TSM; likewise")
    group.add_argument("--dropout", type=options.fraction, help="likewise (no effect in eval mode)")
    group.add_argument("--crop-size", type=options.positive_int, help="likewise, in pixels")
    group.add_argument(
        "--views",
        type=options.non_negative_int,
        default=10,
        help="augmented views of each training video in the bank; epochs take them in turn."
        " 0: a fresh view every epoch, and no bank (default 10)",
    )
    group.add_argument(
        "--cache-dir", type=Path, help="of the bank (default <checkpoint_dir>/<data>/views)"
    )
    group.add_argument(
        "--bank-dtype",
        choices=BANK_DTYPES,
        default="float16",
        help="of the training views' squeeze vectors: float16 halves the disk and rounds by 0.05%%,"
        " less than the network's own bf16; other views are float32 always (default float16)",
    )
    group.add_argument(
        "--data-seed", type=int, default=0, help="of the views; the same for all methods and seeds"
    )
    group.add_argument(
        "--feature-batch", type=options.positive_int, default=16, help="clips per forward pass"
    )


def fill_share(banks: dict[str, Views], counts: dict[str, int], number: int, total: int) -> int:
    """Compute what share `number` of 1..total lacks of the first views of these parts.

    The views of all parts, in one row, are dealt out to the shares in turn: which views are a
    share's does not depend on what is there already, so one that was killed goes on. Returns the
    number of clips computed.
    """
    dealt = [(part, view) for part, count in counts.items() for view in range(count)]
    mine = dealt[number - 1 :: total]
    clips = 0
    for part in counts:
        own = [view for owner, view in mine if owner == part]
        clips += banks[part].fill(own) * len(banks[part].dataset)
    return clips


class Frozen:
    """Backbone, data sets and views of one set of options."""

    def __init__(self, args: argparse.Namespace, parser: argparse.ArgumentParser):
        """Ends in parser.error when backbone, options and lists do not belong together."""
        self.device = options.choose_device(args.gpus, parser)
        options.resolve_precision(args)
        self.path = options.find_backbone(args, parser)
        try:
            checkpoint = load_checkpoint(self.path)
            self.backbone = backbone_from(checkpoint, self.path, args.num_segments)
            self.crop_size = checkpoint.get("crop_size") or args.crop_size or 224
            self._check(args, checkpoint)
            self.splits = open_splits(
                args, self.backbone.num_segments, self.crop_size, args.data_seed
            )
        except (ValueError, FileNotFoundError) as error:
            parser.error(str(error))
        self.class_names = list(self.splits.class_names)
        if len(self.class_names) != self.backbone.config["num_classes"]:
            parser.error(
                f"{self.path} knows {self.backbone.config['num_classes']} classes,"
                f" {args.train_list} has {len(self.class_names)}"
            )
        self._check_heldout(checkpoint)
        self.network = FrozenNetwork(
            self.backbone,
            self.path,
            device=self.device,
            precision=args.precision,
            batch_size=args.feature_batch,
            workers=args.workers,
        )
        self.digest = self.network.digest
        self.args = args

    def views(self, part: str, banked: bool = True) -> Views:
        """The views of one of PARTS, or of `selection`: the part that models are chosen on.

        Augmented views only teach, so they are rounded to --bank-dtype. The others are what an
        exit's accuracy, weights and thresholds are measured on: as the network gives them.
        """
        if part == "selection":
            part = "heldout" if self.splits.heldout else "test"
        default = self.args.checkpoint_dir / self.args.data_name / "views"
        return Views(
            self.network,
            getattr(self.splits, part),
            name=f"{self.args.split} {part}",
            dtype=BANK_DTYPES[self.args.bank_dtype if part == "train" else "float32"],
            cache_dir=(self.args.cache_dir or default) if banked else None,
        )

    def _check(self, args: argparse.Namespace, checkpoint: dict) -> None:
        known = {**self.backbone.config, "crop_size": self.crop_size}
        if "model" not in checkpoint:  # published files do not tell their dropout
            known.pop("dropout")
        for key in ("arch", "motion_arch", "num_segments", "is_shift", "dropout", "crop_size"):
            asked = getattr(args, key)
            if asked is not None and key in known and asked != known[key]:
                raise ValueError(
                    f"{self.path} was trained with {key} {known[key]}, the options say {asked};"
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
