"""The data set on small real streams: crops and flips by their definition, purity of views."""

import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from coviar import index_cache, load_clip, read_index
from dataset_team.dataset import Sample, VideoDataset
from dataset_team.records import Record
from dataset_team.toy import Video, draw, encode
from dataset_team.transforms import MOTION_SCALES, SCALES, fixed_boxes, resize

SIZE = (160, 96)
CROP = 48
IFRAME, MV, RESIDUAL = range(3)
ARGS = {"num_segments": 2, "crop_size": CROP, "train": True, "data_seed": 5}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A stream with large motion, one of other size, one of one-picture GOPs, one of one frame."""
    folder = tmp_path_factory.mktemp("videos")
    fast = list(moving_pictures(SIZE, speed=9, count=30))
    toy = list(draw(Video("TunnelApproach", 1, 1, (96, 128), 0)))
    videos = {"fast": fast, "portrait": toy, "one": fast[:1]}
    for name, pictures in videos.items():
        encode(pictures, folder / f"{name}.mp4")
    single = b"".join((folder / "one.mp4").read_bytes() for _ in range(5))
    (folder / "intra.mp4").write_bytes(single)
    return [
        Record(f"A/{name}", str(folder / f"{name}.mp4"), "A", label, None)
        for label, name in enumerate([*videos, "intra"])
    ]


def moving_pictures(size, speed, count):
    """A fine texture that moves right and down as a whole: motion vectors beyond 20 pixels."""
    rng = np.random.default_rng(0)
    width, height = size[0] + speed * count, size[1] + count
    texture = rng.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8)
    texture = texture.repeat(6, 0).repeat(6, 1)
    for t in range(count):
        left, top = speed * (count - 1 - t), count - 1 - t
        yield np.ascontiguousarray(texture[top : top + size[1], left : left + size[0]])


def by_definition(clip, modality, box, flip):
    """A modality of a sample from whole pictures: crop, mirror, negate x, then quantise."""
    left, top, width, height = box
    pictures = clip[modality][:, top : top + height, left : left + width].astype(int)
    if flip:
        pictures = pictures[:, :, ::-1] * ((-1, 1) if modality == MV else 1)
    if modality == IFRAME:
        pictures = pictures[..., ::-1]  # BGR to RGB
    elif modality == MV:
        pictures = np.trunc(pictures * 127.5 / 20) + 128
    else:
        pictures = pictures + 128
    return resize(np.ascontiguousarray(np.clip(pictures, 0, 255).astype(np.uint8)), CROP)


def all_boxes(width, height, scales):
    sizes = [int(min(width, height) * scale) for scale in scales]
    places = [*itertools.product((0, 2, 4), repeat=2), *itertools.product((1, 3), repeat=2)]
    for (i, w), (j, h) in itertools.product(enumerate(sizes), repeat=2):
        for x, y in places if abs(i - j) <= 1 else ():
            yield (width - w) * x // 4, (height - h) * y // 4, w, h


@pytest.fixture
def positions_asked(monkeypatch):
    """The positions each sample is made of, in order of the calls."""
    asked = []

    def spy(path, positions, **kwargs):
        asked.append(positions)
        return load_clip(path, positions, **kwargs)

    monkeypatch.setattr("dataset_team.dataset.load_clip", spy)
    return asked


def crops_that_give(sample, clip, modality, scales=SCALES):
    """Every (box, flip) whose crop by definition equals what the data set returned."""
    return {
        (box, flip)
        for box in all_boxes(*SIZE, scales)
        for flip in (False, True)
        if torch.equal(by_definition(clip, modality, box, flip), sample[modality])
    }


def test_one_crop_and_flip_for_all_modalities(records, positions_asked):
    dataset = VideoDataset(records[:1], num_segments=2, crop_size=CROP, train=True)
    flips, largest = set(), 0
    for view in range(6):
        sample = dataset[0, view]
        clip = load_clip(records[0].path, positions_asked[-1])
        ((box, flip),) = crops_that_give(sample, clip, IFRAME)  # the texture tells crops apart
        for modality in (MV, RESIDUAL):
            assert torch.equal(sample[modality], by_definition(clip, modality, box, flip))
        flips.add(flip)
        largest = max(largest, np.abs(clip.mv[..., 0]).max())
    assert flips == {False, True}
    assert largest > 20  # so that clipping after the flip was tested


def test_independent_crops(records, positions_asked):
    dataset = VideoDataset(
        records[:1], num_segments=2, crop_size=CROP, train=True, independent_crops=True
    )
    boxes_differ = flips_differ = False
    for view in range(4):
        sample = dataset[0, view]
        clip = load_clip(records[0].path, positions_asked[-1])
        ((box, flip),) = crops_that_give(sample, clip, IFRAME)
        ((other_box, other_flip),) = crops_that_give(sample, clip, RESIDUAL, MOTION_SCALES)
        assert crops_that_give(sample, clip, MV, MOTION_SCALES)
        boxes_differ |= box != other_box
        flips_differ |= flip != other_flip
    assert boxes_differ and flips_differ


def test_no_flip(records, positions_asked):
    dataset = VideoDataset(records[:1], num_segments=1, crop_size=CROP, train=True, flip=False)
    for view in range(8):  # by chance no flip once in 256
        sample = dataset[0, view]
        clip = load_clip(records[0].path, positions_asked[-1])
        ((_, flip),) = crops_that_give(sample, clip, IFRAME)
        assert not flip


@pytest.mark.parametrize("crops", [1, 3, 5])
def test_test_views(records, positions_asked, crops):
    dataset = VideoDataset(
        records, num_segments=3, crop_size=CROP, train=False, clips=2, crops=crops
    )
    assert dataset.num_test_views == 2 * crops
    for number in (0, 1):
        record = records[number]
        index = read_index(record.path)
        for view in range(dataset.num_test_views):
            sample = dataset[number, view]
            box = fixed_boxes(index.width, index.height, crops)[view % crops]
            clip = load_clip(record.path, positions_asked[-1])
            for modality in (IFRAME, MV, RESIDUAL):
                assert torch.equal(sample[modality], by_definition(clip, modality, box, False))
        of_clips = [positions_asked[-2 * crops], positions_asked[-1]]
        assert of_clips[0] != of_clips[1]
        assert all(asked in of_clips for asked in positions_asked[-2 * crops :])
    for view in (-1, 2 * crops):
        with pytest.raises(IndexError, match=f"view {view} is outside 0..{2 * crops - 1}"):
            dataset[0, view]


@pytest.mark.parametrize("train", [True, False])
def test_samples(records, train):
    dataset = VideoDataset(records, num_segments=4, crop_size=CROP, train=train)
    assert len(dataset) == len(records)
    for number, record in enumerate(records):
        sample = dataset[number]
        assert isinstance(sample, Sample)
        assert [tuple(array.shape) for array in sample[:3]] == [
            (4, channels, CROP, CROP) for channels in (3, 2, 3)
        ]
        assert {array.dtype for array in sample[:3]} == {torch.uint8}
        assert (sample.label, sample.index) == (record.label, number)
        assert all(map(torch.equal, sample[:3], dataset[number, 0][:3]))


@pytest.mark.parametrize("name", ["A/one", "A/intra"])
def test_one_picture_gops_have_no_motion(records, name):
    record = next(record for record in records if record.name == name)
    assert set(read_index(record.path).gop_lengths) == {1}
    for train in (True, False):
        sample = VideoDataset([record], num_segments=3, crop_size=CROP, train=train)[0]
        assert (sample.mv == 128).all() and (sample.residual == 128).all()
        assert sample.iframe.float().std() > 10


def test_a_view_is_the_same_from_any_worker_in_any_order(records):
    """Also after pickling, and whatever the state of the global generators."""
    dataset = VideoDataset(records, **ARGS)
    keys = [(number, view) for number in range(len(records)) for view in range(3)]
    expected = {key: dataset[key] for key in keys}
    np.random.seed(1)
    torch.manual_seed(1)
    other = pickle.loads(pickle.dumps(VideoDataset(records[::-1], **ARGS)))
    for number, view in reversed(keys):
        found = other[len(records) - 1 - number, view]
        assert all(map(torch.equal, found[:3], expected[number, view][:3]))
    order = keys[1::2] + keys[::2]
    loader = DataLoader(dataset, batch_size=4, sampler=order, num_workers=2)
    for first, batch in zip(range(0, len(order), 4), loader):
        assert isinstance(batch, Sample)
        for row, key in enumerate(order[first : first + 4]):
            assert all(torch.equal(batch[m][row], expected[key][m]) for m in range(3))
            assert (batch.label[row], batch.index[row]) == expected[key][3:]


def test_views_seeds_and_videos_differ(records):
    views = [
        VideoDataset(records, **{**ARGS, "data_seed": seed})[number, view].residual
        for seed, view, number in itertools.product((5, 6), (0, 1), (0, 1))
    ]
    for a, b in itertools.combinations(views, 2):
        assert not torch.equal(a, b)


def test_describe_holds_all_that_views_depend_on(records):
    described = VideoDataset(records, **ARGS).describe()
    assert json.loads(json.dumps(described)) == described
    assert VideoDataset(records, **ARGS).describe() == described
    others = {
        "num_segments": 3,
        "crop_size": 32,
        "train": False,
        "data_seed": 6,
        "flip": False,
        "independent_crops": True,
    }
    relabelled = [records[0]._replace(label=9), *records[1:]]
    descriptions = [
        described,
        *(
            VideoDataset(records, **{**ARGS, key: other}).describe()
            for key, other in others.items()
        ),
        VideoDataset(records[::-1], **ARGS).describe(),
        VideoDataset(relabelled, **ARGS).describe(),
    ]
    for a, b in itertools.combinations(descriptions, 2):
        assert a != b
    tests = [
        VideoDataset(records, **{**ARGS, "train": False, **more}).describe()
        for more in ({}, {"data_seed": 6}, {"clips": 2}, {"crops": 3})
    ]
    assert tests[0] == tests[1]  # no randomness at test
    assert tests[0] != tests[2] != tests[3] != tests[0]


def test_contradictory_arguments(records):
    with pytest.raises(ValueError, match="for testing"):
        VideoDataset(records, train=True, crops=3)
    with pytest.raises(ValueError, match="1, 3 or 5"):
        VideoDataset(records, train=False, crops=10)
    with pytest.raises(ValueError, match="'error' or 'skip'"):
        VideoDataset(records, train=False, on_bad_video="zeros")


def with_bad_videos(records, folder):
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video")
    bad = [
        Record(f"A/{name}", str(folder / f"{name}.mp4"), "A", 0, None)
        for name in ("empty", "text", "vanished")
    ]
    return [bad[0], *records, *bad[1:]]


def test_bad_videos_are_reported_together(records, tmp_path):
    with pytest.raises(ValueError, match="3 of 7 videos cannot be read") as caught:
        VideoDataset(with_bad_videos(records, tmp_path), train=True)
    message = str(caught.value)
    for name in ("empty", "text", "vanished"):
        assert str(tmp_path / f"{name}.mp4") in message
    assert "--on-bad-video skip" in message


def test_bad_videos_can_be_skipped(records, tmp_path):
    cache = tmp_path / "index.npz"
    with pytest.warns(UserWarning, match="3 of 7 videos"):
        dataset = VideoDataset(
            with_bad_videos(records, tmp_path), **ARGS, on_bad_video="skip", index_cache=cache
        )
    assert list(dataset.skipped) == ["A/empty", "A/text", "A/vanished"]
    good = VideoDataset(records, **ARGS)
    assert dataset.records == good.records and good.skipped == {}
    assert dataset.describe() == good.describe()
    for number in range(len(records)):
        assert all(map(torch.equal, dataset[number][:3], good[number][:3]))
    with pytest.raises(ValueError, match="1 of 1 videos"):
        VideoDataset(with_bad_videos(records, tmp_path)[:1], train=True, on_bad_video="skip")


def test_a_video_damaged_later_is_named_and_never_filled_in(records, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(Path(records[0].path).read_bytes())
    dataset = VideoDataset([records[0]._replace(name="A/cut", path=str(path))], **ARGS)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="Take A/cut out of the list"):
        dataset[0]


def test_an_index_cache_serves_data_with_bad_videos_too(records, tmp_path, monkeypatch):
    """Opened again, only the bad ones are read."""
    options = {**ARGS, "on_bad_video": "skip", "index_cache": tmp_path / "c.npz"}
    bad = with_bad_videos(records, tmp_path)
    read, calls = index_cache.read_index, []
    monkeypatch.setattr(index_cache, "read_index", lambda path: (calls.append(path), read(path))[1])
    for _ in range(2):
        with pytest.warns(UserWarning, match="videos cannot be read"):
            dataset = VideoDataset(bad, **options)
        good = {record.path for record in dataset.records}
        assert [index.path for index in dataset.indexes] == [r.path for r in dataset.records]
    assert all(calls.count(path) == 1 for path in good)
    assert len(calls) <= len(good) + 2 * len(dataset.skipped)
