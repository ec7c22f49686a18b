"""Toy clips: the same bytes for the same seed, readable streams, motion that vectors show."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from coviar import load_clip, read_index
from dataset_team.heldout import split_heldout
from dataset_team.records import read_list
from dataset_team.toy import (
    CLASSES,
    FRAMES_RANGE,
    GOP,
    Video,
    draw,
    encode,
    get_args_parser,
    main,
)

REPO = Path(__file__).resolve().parent.parent
SIZE = (128, 96)


@pytest.fixture(scope="module")
def toy(server, tmp_path_factory):
    """The smallest toy data: three groups of three videos per class."""
    out = tmp_path_factory.mktemp("toy")
    done = server.call("-m", "dataset_team.toy", out, "--videos-per-class", 9, "--size", "128x96")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout.splitlines()[-1].removeprefix("result: "))


def test_lists(toy):
    out, result = toy
    train, test = (read_list(result[f"{part}_list"], out) for part in ("train", "test"))
    assert (len(train), len(test), result["videos"]) == (48, 24, 72)
    for records, per_class in ((train, 6), (test, 3)):
        assert Counter(record.label for record in records) == dict.fromkeys(range(8), per_class)
        assert all(list(CLASSES)[record.label] == record.class_name for record in records)
    groups = [{(record.class_name, record.group) for record in part} for part in (train, test)]
    assert groups[0].isdisjoint(groups[1])
    assert len(split_heldout(train)[1]) == 24  # the smallest toy data has a group to hold out


def test_streams(toy):
    out, result = toy
    lengths = set()
    for record in read_list(result["train_list"], out):
        index = read_index(record.path)
        assert (index.width, index.height) == SIZE
        assert FRAMES_RANGE[0] <= index.num_frames <= FRAMES_RANGE[1]
        assert set(index.gop_lengths[:-1]) == {GOP} and 1 <= index.gop_lengths[-1] <= GOP
        lengths.add(index.num_frames)
    assert len(lengths) > 5


def test_same_seed_same_bytes(toy, tmp_path):
    out, _ = toy
    name = "WheelClockwise/v_WheelClockwise_g02_c03.mp4"
    for seed, same in ((0, True), (1, False)):
        encode(draw(Video("WheelClockwise", 2, 3, SIZE, seed)), tmp_path / "again.mp4")
        assert ((tmp_path / "again.mp4").read_bytes() == (out / name).read_bytes()) == same


def test_videos_of_a_group_share_their_background_and_groups_do_not():
    """Corners lie outside every disc. Pictures differ by light, noise and panning only."""

    def corner(group, clip):
        first = next(draw(Video("DotsLeft", group, clip, (160, 128), 0))).astype(float)
        grey = first[:20, :30].reshape(20, 30, 3)
        return (grey / grey.mean((0, 1))).ravel()

    same = np.corrcoef(corner(1, 1), corner(1, 2))[0, 1]
    other = np.corrcoef(corner(1, 1), corner(2, 1))[0, 1]
    assert same > 0.8 > 0.5 > other


def measured_motion(class_name, folder):
    """Rightward, clockwise and outward mean of the motion vectors around the picture's centre."""
    motion = []
    for clip in range(1, 4):
        path = folder / f"{class_name}{clip}.mp4"
        encode(list(draw(Video(class_name, 1, clip, (160, 128), 0)))[:GOP], path)
        mv = load_clip(path, [(0, 5)]).mv[0].astype(float)
        y, x = np.mgrid[-64:64, -80:80] + 0.5
        radius = np.hypot(x, y)
        inside = radius < 36
        clockwise = (mv[..., 1] * x - mv[..., 0] * y) / radius  # y points down
        outward = (mv[..., 0] * x + mv[..., 1] * y) / radius
        motion.append([part[inside].mean() for part in (mv[..., 0], clockwise, outward)])
    return np.mean(motion, axis=0)


@pytest.mark.parametrize(
    "axis, forward, backward",
    [
        (0, "StripesRight", "StripesLeft"),
        (0, "DotsRight", "DotsLeft"),
        (1, "WheelClockwise", "WheelCounterclockwise"),
        (2, "TunnelApproach", "TunnelRecede"),
    ],
)
def test_the_direction_shows_in_the_motion_vectors(tmp_path, axis, forward, backward):
    for class_name, sign in ((forward, 1), (backward, -1)):
        motion = measured_motion(class_name, tmp_path)
        assert np.argmax(np.abs(motion)) == axis
        assert sign * motion[axis] > 1, motion  # pixels in five frames


def test_a_file_is_no_folder_for_toy_videos(tmp_path, capsys):
    (tmp_path / "file").touch()
    parser = get_args_parser()
    with pytest.raises(SystemExit) as stop:
        main(parser.parse_args([str(tmp_path / "file" / "deep")]), parser)
    assert stop.value.code == 2 and "Not a directory" in capsys.readouterr().err
