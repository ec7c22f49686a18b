"""A data set of original files gives, view by view, what the re-encoded folder gives."""

import pytest
import torch

from coviar.reencode import GOP, QUANTISER, SIZE, reencode
from coviar.source_index import read_source_index
from dataset_team.dataset import VideoDataset
from dataset_team.records import Record
from tests.coviar_videos import pictures, write_video
from tests.test_coviar_whole import remux

FILES = {
    "h264.mkv": ("libx264", "matroska", {"bf": "2"}),
    "long_gops.avi": ("mpeg4", "avi", {"gop": 40}),
    "mpeg2.mpg": ("mpeg2video", "mpeg", {"bf": "2"}),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Records of original files and of their re-encoded copies."""
    folder = tmp_path_factory.mktemp("both")
    original, copies = [], []
    for label, (name, (codec, container, options)) in enumerate(FILES.items()):
        frames = pictures(40, (160, 112), seed=label)
        path = write_video(folder / name, frames, codec, container, **options)
        reencode(path, folder / f"{name}.mp4", SIZE, GOP, QUANTISER)
        original.append(Record(name, str(path), name, label, None))
        copies.append(Record(name, f"{path}.mp4", name, label, None))
    return original, copies


@pytest.mark.parametrize("options", [{"train": True}, {"train": False, "clips": 2, "crops": 3}])
def test_views_are_those_of_the_copies(both, options):
    common = {"num_segments": 3, "crop_size": 32, **options}
    original = VideoDataset(both[0], on_the_fly=True, **common)
    copies = VideoDataset(both[1], **common)
    assert original.describe() == copies.describe() and original.encoding == copies.encoding
    for number in range(len(copies)):
        for view in (0, 3):
            one, other = original[number, view], copies[number, view]
            assert one[3:] == other[3:]
            assert all(torch.equal(*pair) for pair in zip(one[:3], other[:3]))


def test_interlaced_pictures_in_the_middle(tmp_path):
    parts = []
    for name, options in (("plain", {}), ("fields", {"flags": "+ildct+ilme"})):
        frames = pictures(36, (160, 112), seed=len(parts))
        parts += [write_video(tmp_path / name, frames, "mpeg2video", "mpeg2video", **options)]
    (tmp_path / "both.m2v").write_bytes(b"".join(part.read_bytes() for part in parts))
    path = tmp_path / "both.mkv"
    remux(tmp_path / "both.m2v", path, step=48000)  # 40 ms
    assert read_source_index(path).streamed is None
    reencode(path, tmp_path / "both.mp4", SIZE, GOP, QUANTISER)
    common = {"num_segments": 2, "crop_size": 32, "train": True}
    found = VideoDataset([Record("A/v", str(path), "A", 0, None)], on_the_fly=True, **common)
    copy = VideoDataset([Record("A/v", str(tmp_path / "both.mp4"), "A", 0, None)], **common)
    for view in range(4):
        assert all(torch.equal(*pair) for pair in zip(found[0, view][:3], copy[0, view][:3]))


def test_bad_originals_are_all_named(both, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    bad = Record("text", str(tmp_path / "text.mp4"), "text", 0, None)
    with pytest.raises(ValueError, match="1 of 4 videos cannot be read:\n.*a text file"):
        VideoDataset([*both[0], bad], train=True, on_the_fly=True)
    options = {"train": True, "on_the_fly": True, "on_bad_video": "skip"}
    with pytest.warns(UserWarning, match="1 of 4 videos"):
        assert len(VideoDataset([*both[0], bad], **options)) == 3
