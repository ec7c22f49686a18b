"""The data sets of a run, from its lists; videos that stand on two sides are refused."""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from dataset_team.dataset import VideoDataset
from dataset_team.finder import alike
from dataset_team.heldout import split_heldout
from dataset_team.identity import equal_files, real_file
from dataset_team.list_file import ListError
from dataset_team.records import Record, read_list, read_unlabelled
from dataset_team.registry import DATASETS, class_names
from training import distributed


@dataclass(frozen=True)
class DataSettings:
    """Which videos a run trains on and is tested on, and how they are cut; see the options."""

    data_name: str
    data_root: Path
    train_list: Path
    test_list: Path
    split: str
    heldout: float
    select_on: str  # heldout, test or last
    independent_crops: bool
    no_flip: bool
    clips: int
    crops: int
    on_bad_video: str  # error or skip
    index_dir: Path | None
    on_the_fly: bool = False
    unlabelled: Path | None = None  # a list of videos that only teachers speak about


@dataclass
class Splits:
    """The data sets of one run.

    heldout: None where models are chosen on test, or where nothing is chosen or held out.
    unlabelled: None without --unlabelled.
    """

    settings: DataSettings
    train: VideoDataset
    heldout: VideoDataset | None
    test: VideoDataset
    class_names: list
    unlabelled: VideoDataset | None = None

    @property
    def skipped(self) -> int:
        """How many unreadable videos --on-bad-video skip has left out of all lists."""
        datasets = (self.train, self.heldout, self.test, self.unlabelled)
        return sum(len(dataset.skipped) for dataset in datasets if dataset is not None)

    @property
    def train_as_tested(self) -> VideoDataset:
        """The training videos without augmentation: one clip, centre crop."""
        dataset = copy.copy(self.train)
        dataset.train, dataset.num_segments = False, self.test.num_segments
        return dataset

    @property
    def selection(self) -> VideoDataset:
        """The videos on which epochs are evaluated and models chosen (none with `last`)."""
        return self.test if self.heldout is None else self.heldout

    @property
    def selection_name(self) -> str:
        return "test" if self.heldout is None else "heldout"

    @property
    def heldout_names(self) -> list[str]:
        """The names of the held-out videos, as checkpoints record them."""
        return [record.name for record in self.heldout.records] if self.heldout else []

    @property
    def digests(self) -> dict[str, str]:
        """16 hex digits by part that change with its videos: names, labels, pictures, sizes."""
        parts = {name: getattr(self, name) for name in ("train", "heldout", "test", "unlabelled")}
        found = {}
        for name, dataset in parts.items():
            if dataset is not None:
                sizes = [os.path.getsize(record.path) for record in dataset.records]
                content = f"{dataset.describe()['videos']} {sizes}"
                found[name] = hashlib.sha256(content.encode()).hexdigest()[:16]
        return found

    @property
    def protocol(self) -> str:
        """The evaluation protocol in words, for every table of results."""
        return self.protocol_of(self.settings.select_on, self.heldout is not None)

    def protocol_of(self, select_on: str | None, holds_out: bool) -> str:
        """The protocol of a network that was chosen on `select_on`, None where it is not known.

        holds_out: whether its training held out any video.
        """
        views = f"{self.settings.clips} clip x {self.settings.crops} crop"
        crops = f"{views} of {self.test.crop_size} pixels"
        chosen = f"selected on {select_on}" if select_on else "selection unknown"
        if select_on == "last":
            chosen = "last epoch kept" if holds_out else "last epoch kept, no video held out"
        words = f"{crops}, {self.test.num_segments} segments, {chosen}"
        left_out = len(self.test.skipped)
        return f"{words}, {left_out} unreadable test videos left out" if left_out else words


def open_splits(
    settings: DataSettings,
    num_segments: int,
    crop_size: int,
    data_seed: int,
    num_classes: int | None = None,
    *,
    train_segments: int | None = None,
    photometric: float = 0.0,
) -> Splits:
    """Read the lists and index the videos.

    num_classes: of a trained network, None for a new one. train_segments, photometric: of training
    views only. Raises ValueError or FileNotFoundError, naming file and line, when a list or a video
    is bad, or when both lists hold a video, under any name, as a link or as a copy.
    """
    splits = distributed.main_first(
        _open_splits, settings, num_segments, crop_size, data_seed, num_classes
    )
    splits.train.num_segments = train_segments or num_segments
    splits.train.photometric = photometric
    return splits


def _open_splits(
    settings: DataSettings,
    num_segments: int,
    crop_size: int,
    data_seed: int,
    num_classes: int | None,
) -> Splits:
    train_records = read_list(settings.train_list, settings.data_root, settings.data_name)
    test_records = read_list(settings.test_list, settings.data_root, settings.data_name)
    copies = _check_leaks(settings, train_records, test_records)
    _warn_of_shared_recordings(settings, train_records, test_records)
    _check_labels_agree(train_records, test_records, settings.test_list)
    names = class_names(settings.data_name, train_records + test_records, num_classes)
    _note_classes_without_videos(settings, names, train_records + test_records)
    _note_untrained_classes(train_records, test_records)
    unlabelled = _read_unlabelled(settings, train_records + test_records)
    heldout_records = None
    if settings.select_on == "heldout" and not settings.heldout:
        raise ValueError(
            "--heldout 0 leaves nothing to choose models on; --select-on last chooses nothing"
        )
    if settings.select_on != "test" and settings.heldout:
        try:
            train_records, heldout_records = split_heldout(
                train_records, settings.heldout, copies=copies
            )
        except ListError as error:
            raise ListError(f"{settings.train_list}: {error}, or use --select-on test") from error

    common = {
        "num_segments": num_segments,
        "crop_size": crop_size,
        "data_seed": data_seed,
        "flip": not settings.no_flip,
        "independent_crops": settings.independent_crops,
        "index_cache": index_cache(settings),
        "on_bad_video": settings.on_bad_video,
        "on_the_fly": settings.on_the_fly,
    }
    # Thresholds are chosen on held-out videos for what is reported on test videos.
    tested = {"train": False, "clips": settings.clips, "crops": settings.crops, **common}
    return Splits(
        settings=settings,
        train=VideoDataset(train_records, train=True, **common),
        heldout=heldout_records and VideoDataset(heldout_records, **tested),
        test=VideoDataset(test_records, **tested),
        class_names=names,
        unlabelled=unlabelled and VideoDataset(unlabelled, train=True, **common),
    )


def _read_unlabelled(settings: DataSettings, labelled: list) -> list | None:
    """Raises ValueError where this list holds a video of another list, or a copy of one."""
    if settings.unlabelled is None:
        return None
    records = read_unlabelled(settings.unlabelled, settings.data_root)
    name_of = {record.path: record.name for record in labelled + records}
    files = {real_file(record.path): record.name for record in labelled}
    shared = [(files[key], r.name) for r in records if (key := real_file(r.path)) in files]
    ours = {record.path for record in records}
    for paths in equal_files(name_of):
        theirs = [path for path in paths if path not in ours]
        shared += [(name_of[p], name_of[q]) for p in theirs[:1] for q in paths if q in ours]
    if shared:
        raise ValueError(
            f"--unlabelled {settings.unlabelled}: {len(shared)} video(s) stand in the training or"
            f" the test list too, first {_pair(*min(shared))}; take them out of one of the lists"
        )
    return records


def _check_leaks(settings: DataSettings, train: list, test: list) -> list[list[str]]:
    """Raise ValueError where a test video trains; return the names of equal training videos.

    One file is one video, whatever its names. Equal copies on both sides are an error too; where
    the splits are published they only give a warning.
    """
    files = {real_file(record.path): record.name for record in train}
    shared = [(files[key], r.name) for r in test if (key := real_file(r.path)) in files]
    lists = f"{settings.train_list} and {settings.test_list}"
    if shared:
        raise ValueError(
            f"{len(shared)} video(s) stand in both {lists}, first {_pair(*min(shared))};"
            " a test video must not train"
        )
    name_of = {record.path: record.name for record in train + test}
    groups = [[name_of[path] for path in paths] for paths in equal_files(name_of)]
    trained = {record.name for record in train}
    leaks = [(n, m) for g in groups for n in g if n in trained for m in g if m not in trained]
    if leaks:
        message = (
            f"{len(leaks)} test video(s) are copies of training videos in {lists}, equal byte for"
            f" byte: a leak, first {_pair(*leaks[0])}"
        )
        if settings.data_name not in DATASETS:
            raise ValueError(f"{message}; take one of each pair out of its list")
        warnings.warn(f"{message}; the published split is kept", stacklevel=2)
    copies = [[name for name in group if name in trained] for group in groups]
    copies = [group for group in copies if len(group) > 1]
    if copies:
        warnings.warn(
            f"{settings.train_list} holds {sum(map(len, copies)) - len(copies)} equal copies of"
            f" other videos in it, first {_pair(*copies[0][:2])}; they are held out together",
            stacklevel=2,
        )
    return copies


def _warn_of_shared_recordings(settings: DataSettings, train: list, test: list) -> None:
    """A UserWarning where recordings are divided, which makes a test easier than it looks."""
    trained = {_recording(record): record.name for record in train if record.group}
    shared = [(trained[key], r.name) for r in test if r.group and (key := _recording(r)) in trained]
    if shared:
        warnings.warn(
            f"{len(shared)} test video(s) of {settings.test_list} are of recordings that train,"
            f" too, first {shared[0][1]}, beside {shared[0][0]}: the same people and places are"
            " known then; keep a recording on one side (docs/own_videos.md)",
            stacklevel=2,
        )


def _recording(record: Record) -> tuple[str, str | None]:
    """As stated beside the list, over all classes; else what names tell, which is of one class."""
    return ("", record.recording) if record.recording else (record.class_name, record.group)


def _pair(first: str, second: str) -> str:
    return first if first == second else f"{first}, which is {second}"


def _note_classes_without_videos(settings: DataSettings, names: list[str], records: list) -> None:
    """Of a known data set, whose name may stand there by default."""
    used = len({record.label for record in records})
    if settings.data_name in DATASETS and used < len(names) and distributed.is_main():
        print(
            f"note: --data-name {settings.data_name} has {len(names)} classes, the lists have"
            f" videos of {used}; data of your own need another --data-name",
            flush=True,
        )


def _note_untrained_classes(train_records: list, test_records: list) -> None:
    trained = {record.label for record in train_records}
    untrained = {r.label: r.class_name for r in test_records if r.label not in trained}
    if untrained and distributed.is_main():
        words = ", ".join(f"{name} ({label})" for label, name in sorted(untrained.items())[:10])
        print(f"note: {len(untrained)} class(es) have no training video: {words}", flush=True)


def _check_labels_agree(train_records: list, test_records: list, test_list: Path) -> None:
    label_of = {record.class_name: record.label for record in train_records}
    class_of = {record.label: record.class_name for record in train_records}
    for record in test_records:
        known = label_of.get(record.class_name, record.label)
        if known != record.label:
            raise ValueError(
                f"{test_list}: class {record.class_name!r} has label {record.label}, in the"
                f" training list it has {known}; make both lists from the same classes"
            )
        trained = class_of.get(record.label, record.class_name)
        if alike(trained) != alike(record.class_name):
            raise ValueError(
                f"{test_list}: label {record.label} is class {record.class_name!r}, in the training"
                f" list it is {trained!r}; make both lists from the same classes"
            )


def index_cache(settings: DataSettings) -> Path:
    """The file of picture positions: beside the data, or in --index-dir."""
    if settings.index_dir is None:
        return settings.data_root / ".coviar_index.npz"
    name = str(settings.data_root.resolve()).strip("/").replace("/", "_")
    return settings.index_dir / f"{name}.npz"
