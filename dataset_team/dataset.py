"""Videos as clips for the network. A view depends only on its number, the seed and the video."""

from __future__ import annotations

import hashlib
import os
import random
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Union

import numpy as np
import torch

from coviar import VideoIndex, load_clip, read_indexes
from coviar.source_index import CannotSeek, SourceIndex, read_source_index
from dataset_team.photometric import change_light
from dataset_team.records import Record, shorten
from dataset_team.sampling import segment_positions
from dataset_team.transforms import (
    MOTION_SCALES,
    SCALES,
    TEST_SCALE,
    Box,
    fixed_boxes,
    random_box,
    resize,
)

Index = Union[VideoIndex, SourceIndex]
Positions = Sequence[tuple[int, int]]  # (gop, position) of each segment
Modalities = Sequence[torch.Tensor]  # I-frame, motion vectors, residual: uint8 (T, c, S, S)


class Sample(NamedTuple):
    """One view of one video, uint8 until it is on the device (transforms.normalise)."""

    iframe: torch.Tensor  # (T, 3, S, S), RGB
    mv: torch.Tensor  # (T, 2, S, S), x first
    residual: torch.Tensor  # (T, 3, S, S), BGR
    label: int
    index: int  # of the video in dataset.records


class VideoDataset(torch.utils.data.Dataset):
    """Clips of T segments, S x S pixels: I-frame, motion vectors and residual of each segment.

    `dataset[i]` is view 0 of video i, and `dataset[i, view]` another view; samplers may yield both.
    Training: random segments, and one random crop and flip for the whole clip and all modalities
    (`independent_crops`: one for each modality, as published). Every view number gives another
    augmentation. It depends only on `data_seed`, view number and video name.
    `flip=False` is for data whose classes differ by direction, such as left and right.
    `photometric`: how much the I-frames of training views are changed, see `change_light`.
    Test: view = clip * crops + crop, in range(num_test_views).

    `on_the_fly`: the videos are of any codec. Each window is decoded and re-encoded when it is
    loaded, and the clips equal those of the folder that coviar.reencode would make.
    `index_cache`: the file that keeps the positions of all pictures; not used on the fly.
    `on_bad_video`: "error" raises a ValueError that names every video which cannot be read.
    "skip" leaves them out with a warning, and keeps the reasons in `skipped`, {name: reason}.
    coviar conceals damage inside a stream with a CorruptVideoWarning. A picture that cannot be
    concealed raises a ValueError in both modes.
    """

    def __init__(
        self,
        records: Iterable[Record],
        *,
        num_segments: int = 8,
        crop_size: int = 224,
        train: bool,
        data_seed: int = 0,
        clips: int = 1,
        crops: int = 1,
        flip: bool = True,
        independent_crops: bool = False,
        photometric: float = 0.0,
        index_cache: str | os.PathLike | None = None,
        on_bad_video: str = "error",
        on_the_fly: bool = False,
    ):
        if train and (clips, crops) != (1, 1):
            raise ValueError("clips and crops are for testing: a training view has one of each")
        fixed_boxes(1, 1, crops)  # raises on an unknown number
        if on_bad_video not in ("error", "skip"):
            raise ValueError(f"on_bad_video must be 'error' or 'skip', found {on_bad_video!r}")
        self.num_segments = num_segments
        self.crop_size = crop_size
        self.train = train
        self.data_seed = data_seed
        self.clips = clips
        self.crops = crops
        self.flip = flip
        self.independent_crops = independent_crops
        self.photometric = photometric
        self.on_the_fly = on_the_fly
        self.records, self.skipped, self._streamed = list(records), {}, {}
        bad: dict[str, Exception] = {}
        self.indexes = self._read_indexes(index_cache, bad)
        if bad:
            self._leave_out(bad, on_bad_video)

    def _read_indexes(self, index_cache: str | os.PathLike | None, bad: dict) -> list[Index | None]:
        """bad: takes {path: error} of the videos without an index."""
        paths = [record.path for record in self.records]
        if not self.on_the_fly:
            return read_indexes(paths, index_cache, bad)
        indexes = []
        for path in paths:
            try:
                indexes.append(read_source_index(path))
            except (OSError, ValueError) as error:
                bad[path] = error
                indexes.append(None)
        return indexes

    def _leave_out(self, bad: Mapping[str, Exception], on_bad_video: str) -> None:
        self.skipped = {r.name: str(bad[r.path]) for r in self.records if r.path in bad}
        total = len(self.records)
        self.records = [record for record in self.records if record.name not in self.skipped]
        self.indexes = [index for index in self.indexes if index is not None]
        message = f"{len(self.skipped)} of {total} videos cannot be read:\n"
        message += shorten(list(self.skipped.values()))
        if on_bad_video == "error" or not self.records:
            raise ValueError(
                f"{message}\nRe-encode them or take them out of the list, or go on without them "
                "by --on-bad-video skip"
            )
        warnings.warn(message, stacklevel=3)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def num_test_views(self) -> int:
        """Views of a video to average at test: clips times crops."""
        return self.clips * self.crops

    @property
    def encoding(self) -> dict:
        """How most videos are encoded: picture size, as [width, height], and longest GOP."""
        sizes = Counter((index.width, index.height) for index in self.indexes)
        gops = Counter(max(index.gop_lengths) for index in self.indexes)
        return {"size": list(sizes.most_common(1)[0][0]), "gop": gops.most_common(1)[0][0]}

    def describe(self) -> dict:
        """All that a view depends on, as plain values, for digests."""
        videos = hashlib.sha256()
        for record, index in zip(self.records, self.indexes):
            size = f"{index.width}x{index.height}x{index.num_frames}"
            videos.update(f"{record.name} {record.label} {size}\n".encode())
        common = {
            "num_segments": self.num_segments,
            "crop_size": self.crop_size,
            "train": self.train,
            "videos": videos.hexdigest()[:16],
        }
        if not self.train:
            return {**common, "clips": self.clips, "crops": self.crops, "scale": TEST_SCALE}
        if self.photometric:
            common["photometric"] = self.photometric
        return {
            **common,
            "data_seed": self.data_seed,
            "flip": self.flip,
            "independent_crops": self.independent_crops,
            "scales": list(SCALES),
        }

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        number, view = key if isinstance(key, tuple) else (key, 0)
        views = self._training_view if self.train else self._test_view
        record = self.records[number]
        try:
            try:
                modalities = views(record, self.indexes[number], view)
            except CannotSeek:
                modalities = views(record, self._streamed_index(number), view)
        except ValueError as error:
            raise ValueError(
                f"{error}\nTake {record.name} out of the list; python -m coviar.check finds such "
                "videos beforehand"
            ) from error
        return Sample(*modalities, record.label, number)

    def _streamed_index(self, number: int) -> SourceIndex:
        """Not kept as the video's index: a view must not depend on those before it."""
        if number not in self._streamed:
            self._streamed[number] = read_source_index(self.records[number].path, stream=True)
        return self._streamed[number]

    def _training_view(self, record: Record, index: Index, view: int) -> Modalities:
        rng = random.Random(f"{self.data_seed}/{view}/{record.name}")
        positions = segment_positions(index.gop_lengths, self.num_segments, rng)
        if self.independent_crops:
            iframe, *others = self._independent_crops(record, index, positions, rng)
        else:
            box = random_box(index.width, index.height, rng)
            iframe, *others = _load_window(
                index, positions, box, self.crop_size, flip=self._draw_flip(rng)
            )
        if self.photometric:
            iframe = change_light(iframe, self.photometric, rng)
        return iframe, *others

    def _draw_flip(self, rng: random.Random) -> bool:
        return self.flip and rng.random() < 0.5

    def _test_view(self, record: Record, index: Index, view: int) -> Modalities:
        if not 0 <= view < self.num_test_views:
            raise IndexError(f"test view {view} is outside 0..{self.num_test_views - 1}")
        shape = (self.num_segments, self.crop_size)
        return load_test_view(index, *shape, view, self.clips, self.crops)

    def _independent_crops(
        self, record: Record, index: Index, positions: Positions, rng: random.Random
    ) -> Modalities:
        """A crop and a flip for each modality. A crop of a flipped picture is chosen after the
        flip."""
        flips = [self._draw_flip(rng) for _ in range(3)]
        # Motion vectors must be flipped by the loader, which negates x before it quantises.
        clip = load_clip(record.path, positions, encode=True, flip=flips[1], index=index)
        modalities = []
        for pictures, flip, scales in zip(clip, flips, (SCALES, MOTION_SCALES, MOTION_SCALES)):
            left, top, width, height = random_box(index.width, index.height, rng, scales)
            if flip != flips[1]:
                pictures = pictures[:, :, ::-1]
            window = pictures[:, top : top + height, left : left + width]
            modalities.append(resize(np.ascontiguousarray(window), self.crop_size))
        return modalities


def load_test_view(
    index: Index, num_segments: int, crop_size: int, view: int = 0, clips: int = 1, crops: int = 1
) -> Modalities:
    """I-frame, motion vectors and residual of a video as tested, uint8 tensors as in a Sample.

    view = clip * crops + crop. Errors and warnings as `coviar.load_clip`.
    """
    clip, crop = divmod(view, crops)
    positions = segment_positions(index.gop_lengths, num_segments, clip=clip, num_clips=clips)
    box = fixed_boxes(index.width, index.height, crops)[crop]
    return _load_window(index, positions, box, crop_size, flip=False)


def load_test_segment(index: Index, num_segments: int, crop_size: int, segment: int) -> Modalities:
    """As `load_test_view`, only the segment of this number: (1, c, S, S) each."""
    position = segment_positions(index.gop_lengths, num_segments)[segment]
    box = fixed_boxes(index.width, index.height, 1)[0]
    return _load_window(index, [position], box, crop_size, flip=False)


def load_test_iframes(index: Index, num_segments: int, crop_size: int) -> torch.Tensor:
    """Only the I-frames of `load_test_view`, (T, 3, S, S) uint8; nothing else is decoded."""
    positions = [(gop, 0) for gop, _ in segment_positions(index.gop_lengths, num_segments)]
    box = fixed_boxes(index.width, index.height, 1)[0]
    return resize(
        load_clip(index.path, positions, encode=True, crop=box, index=index)[0], crop_size
    )


def _load_window(
    index: Index, positions: Positions, box: Box, crop_size: int, flip: bool
) -> Modalities:
    clip = load_clip(index.path, positions, encode=True, crop=box, flip=flip, index=index)
    return [resize(pictures, crop_size) for pictures in clip]
