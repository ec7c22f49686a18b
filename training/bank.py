"""The bank: the inputs of the exits and their teachers, by view, computed once and kept on disk.

The backbone is frozen and in eval mode while exits train. So an exit's input is a fixed function of
the view, and all methods and seeds train from one pass over the videos.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from tqdm import tqdm

from coviar.files import read_json, sample_digest, write_json
from dataset_team.dataset import VideoDataset
from models.inference import prepare_for_inference
from models.team_net import TeamNet
from training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.features import Features, compute_view
from training.tensor_file import weights_digest

# Raise this when the code computes other features for the same weights and videos. It is part of
# the digest, so banks of older code are not used.
FEATURES_VERSION = 2
BANK_DTYPES = {"float16": torch.float16, "float32": torch.float32}
ABOUT = "about.json"
KEPT_BYTES = 2**30  # of views in memory; reading them each epoch takes longer than training


class FrozenNetwork:
    """A backbone whose weights stay as they are, and the settings to compute its views."""

    def __init__(
        self,
        backbone: TeamNet,
        path: Path,
        *,
        device: torch.device,
        precision: str,
        batch_size: int,
        workers: int,
    ):
        self.backbone, self.path, self.precision = backbone, path, precision
        self.settings = {"device": device, "batch_size": batch_size, "workers": workers}
        self.digest = weights_digest(backbone.state_dict())

    @functools.cached_property
    def prepared(self) -> TeamNet:
        """The copy that computes. It is made at its first use, since a ready bank needs none."""
        return prepare_for_inference(self.backbone.to(self.settings["device"]), self.precision)

    def compute(self, dataset: VideoDataset, view: int, per_segment: bool = False) -> Features:
        return compute_view(self.prepared, dataset, view, **self.settings, per_segment=per_segment)


class Views:
    """The views of one data set through one frozen network: `views[v]` is a Features.

    With `cache_dir` each view is a file, written whole. The folder's name is a digest of all that
    the views depend on, so a stale view is never read. Several processes and hosts can fill one
    bank on a shared disk. Without `cache_dir` each call computes its view, with the same bits.
    name: the data in words, such as "split1 train". per_segment: with the logits of each segment.
    """

    def __init__(
        self,
        network: FrozenNetwork,
        dataset: VideoDataset,
        *,
        name: str,
        dtype: torch.dtype,
        cache_dir: Path | None,
        per_segment: bool = False,
    ):
        self.network, self.dataset, self.name, self.dtype = network, dataset, name, dtype
        self.per_segment = per_segment
        self.identity = self._identity()
        self.folder = cache_dir and cache_dir / _digest(self.identity)
        self._kept: dict[int, Features] = {}

    def __getitem__(self, view: int) -> Features:
        if self.folder is None:
            return self._compute(view)
        if view not in self._kept:
            self.fill([view])
            features = self._read(view)
            if (len(self._kept) + 1) * len(self.dataset) * self._bytes_per_video() > KEPT_BYTES:
                return features
            self._kept[view] = features
        return self._kept[view]

    def _read(self, view: int) -> Features:
        """A view of the bank; a damaged file is named and computed anew."""
        try:
            return Features(**load_checkpoint(self._file(view)))
        except (CheckpointError, TypeError) as error:
            words = f"warning: {self._file(view)} is damaged ({error}); computing it anew"
            print(words, file=sys.stderr, flush=True)
            self._file(view).unlink(missing_ok=True)
            self.fill([view])
            return Features(**load_checkpoint(self._file(view)))

    def missing(self, count: int) -> list[int]:
        """The views of 0..count-1 that the bank lacks."""
        return [view for view in range(count) if not self._file(view).is_file()]

    def prepare(self, count: int) -> None:
        """Compute the views of 0..count-1 that the bank lacks; without a bank do nothing."""
        if self.folder is not None:
            self.fill(range(count))

    def fill(self, numbers: Iterable[int]) -> int:
        """Compute the missing views among `numbers`; returns how many it computed.

        The order is random, and each view is looked for again before it is computed. So processes
        that fill one bank at the same time share the work.
        """
        missing = [view for view in numbers if not self._file(view).is_file()]
        if not missing:
            return 0
        self._open()
        size_mb = len(missing) * len(self.dataset) * self._bytes_per_video() / 1e6
        print(
            f"bank {self.folder} ({self.name}): computing {len(missing)} view(s), {size_mb:.3g} MB",
            flush=True,
        )
        computed = 0
        for view in tqdm(random.sample(missing, len(missing)), desc="views", disable=None):
            if not self._file(view).is_file():
                save_checkpoint(self._file(view), vars(self._compute(view)))
                computed += 1
        return computed

    def _compute(self, view: int) -> Features:
        features = self.network.compute(self.dataset, view, per_segment=self.per_segment)
        return features.rounded(self.dtype)

    def _file(self, view: int) -> Path:
        return self.folder / f"view_{view:04d}.pt"

    def _bytes_per_video(self) -> int:
        backbone = self.network.backbone
        values = backbone.num_segments * sum(block.squeeze_size for block in backbone.team)
        return values * torch.finfo(self.dtype).bits // 8 + 4 * 3 * backbone.config["num_classes"]

    def _open(self) -> None:
        """Write the about.json of a new bank, and print why an older bank cannot be used."""
        if (self.folder / ABOUT).is_file():
            return
        about = {
            "name": self.name,
            "backbone_file": str(Path(self.network.path).resolve()),
            "identity": self.identity,
        }
        note = stale_note(self.folder.parent, about)
        if note:
            print(note, flush=True)
        write_json(self.folder / ABOUT, about)

    def _identity(self) -> dict:
        """All that a view depends on, as plain values."""
        files = [sample_digest(record.path) for record in self.dataset.records]
        return {
            "features": FEATURES_VERSION,
            "backbone": self.network.digest,
            "config": self.network.backbone.config,
            "data": self.dataset.describe(),
            "files": _digest(files),
            "precision": self.network.precision,
            "dtype": str(self.dtype),
            **({"per_segment": True} if self.per_segment else {}),
            # Windows of original files are encoded anew, also of a file that loads as it is.
            **({"on_the_fly": True} if self.dataset.on_the_fly else {}),
        }


def fill_share(banks: dict[str, Views], counts: dict[str, int], number: int, total: int) -> int:
    """Compute the missing views of one share, `number` of 1..total, and return the number of clips.

    counts: how many views of each part are wanted. The views of all parts, in one sequence, are
    given to the shares in turn. A share's views do not depend on those that exist, so a killed
    share can be started again.
    """
    dealt = [(part, view) for part, count in counts.items() for view in range(count)]
    mine = dealt[number - 1 :: total]
    clips = 0
    for part in counts:
        own = [view for owner, view in mine if owner == part]
        clips += banks[part].fill(own) * len(banks[part].dataset)
    return clips


def stale_note(cache_dir: Path, about: dict) -> str | None:
    """A note on the most similar other bank of the same data, if there is one."""
    ours, others = _in_words(about["identity"]), []
    for folder, theirs in read_banks(cache_dir).items():
        if theirs and theirs["name"] == about["name"]:
            values = _in_words(theirs["identity"])
            differs = [key for key in ours if values.get(key) != ours[key]]
            others.append((len(differs), str(folder), ", ".join(map(str, differs))))
    if not others:
        return None
    _, folder, differs = min(others)
    return (
        f"note: {len(others)} other bank(s) of {about['name']} cannot be used; the nearest,"
        f" {folder}, differs in {differs}. `python -m training.views --prune` removes banks of"
        " backbones that are gone"
    )


def read_banks(cache_dir: Path) -> dict[Path, dict | None]:
    """Every bank under `cache_dir` with its about.json; None for one of older code, or damaged."""
    files = [*cache_dir.glob(f"*/{ABOUT}"), *cache_dir.glob("*/view_*.pt")]
    banks = {}
    for folder in sorted({file.parent for file in files}):
        file = folder / ABOUT
        try:
            about = read_json(file, "")
        except (FileNotFoundError, ValueError):
            about = {}
        banks[folder] = about if "identity" in about else None
    return banks


def _in_words(identity: dict) -> dict:
    """The fields of an identity under names that users know."""
    fields = {**identity, **identity["config"], **identity["data"]}
    words = {
        "features": "the version of the code",
        "backbone": "the weights of the backbone",
        "videos": "the list of videos",
        "files": "the video files",
        "dtype": "--bank-dtype",
    }
    plain = json.loads(json.dumps(fields))  # tuples become lists, as in a file
    return {words.get(k, k): v for k, v in plain.items() if k not in ("config", "data")}


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
