"""coviar.read_vectors against FFmpeg's libraries, known motion, and files it must refuse.

tests/vectors/ holds small videos of three codecs, and what reference.c printed of each (libavcodec
59.37). Where a C compiler and FFmpeg's headers are, the program is built and asked again.
"""

import shutil
import subprocess

import av
import numpy as np
import pytest

from coviar import vectors
from coviar.exported import VECTOR, dense_field, read_vectors
from coviar.source import decode_source
from tests.conftest import REPO
from tests.coviar_videos import ffmpeg, pictures, write_video

FOLDER = REPO / "tests" / "vectors"
VIDEOS = ("h264.mp4", "mpeg2.ts", "mpeg4.avi")
DELAYED = ("mpeg2.ts", "mpeg4.avi")  # their last picture has no vectors in FFmpeg's own export


def parse_reference(text):
    """[(type, rows)] of the pictures that reference.c printed."""
    found = []
    for line in text.splitlines():
        if line.startswith("picture "):
            found.append((line.split()[1], []))
        else:
            found[-1][1].append(tuple(map(int, line.split())))
    return found


def as_rows(picture):
    """The same of a PictureVectors."""
    names = ["source", "w", "h", "src_x", "src_y", "dst_x", "dst_y"]
    columns = picture.vectors[[*names, "motion_x", "motion_y", "motion_scale"]]
    return picture.type, columns.tolist()


def assert_as_reference(path, expected):
    if path.name == "mpeg4.avi":  # FFmpeg's export of its B-pictures is not what they hold
        expected = [(kind, [] if kind == "B" else rows) for kind, rows in expected]
        with pytest.warns(UserWarning, match="mpeg4.avi: its B-pictures are without vectors"):
            found = list(map(as_rows, read_vectors(path)))
    else:
        found = list(map(as_rows, read_vectors(path)))
    assert {kind for kind, _ in found} == {"I", "P", "B"}
    assert len(found) == len(expected) and sum(len(rows) for _, rows in found) > 60
    if path.name in DELAYED:
        assert found[-1][0] == expected[-1][0] == "P" and expected[-1][1] == []
        assert found.pop()[1] and expected.pop()
    assert found == expected


@pytest.mark.parametrize("name", VIDEOS)
def test_vectors_are_those_that_ffmpeg_exports(name):
    path = FOLDER / name
    assert_as_reference(path, parse_reference(path.with_suffix(".txt").read_text()))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """reference(path): what reference.c, built here, prints of a video."""
    program = tmp_path_factory.mktemp("reference") / "reference"
    libraries = ["libavformat", "libavcodec", "libavutil"]
    if not (shutil.which("cc") and shutil.which("pkg-config")):
        pytest.skip("no C compiler and pkg-config here")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", *libraries], capture_output=True, text=True
    )
    if flags.returncode:
        pytest.skip("no headers of FFmpeg here (libavformat-dev)")
    source = ["cc", str(FOLDER / "reference.c"), *flags.stdout.split(), "-o", str(program)]
    subprocess.run(source, check=True)
    return lambda path: (
        subprocess.run([program, path], check=True, capture_output=True, text=True).stdout
    )


@pytest.mark.parametrize(
    "name, codec, container, options",
    [
        ("h264.mkv", "libx264", "matroska", {"bf": "3", "refs": "4"}),
        ("mpeg2.ts", "mpeg2video", "mpegts", {"bf": "1"}),
        ("mpeg4.avi", "mpeg4", "avi", {"bf": "2", "flags": "+qpel"}),
    ],
)
def test_vectors_of_new_videos(reference, tmp_path, name, codec, container, options):
    frames = pictures(13, size=(112, 90), seed=8, speed=(-5, 2))
    path = write_video(tmp_path / name, frames, codec=codec, container=container, gop=30, **options)
    assert_as_reference(path, parse_reference(reference(path)))


@pytest.mark.parametrize("codec, container", [("mpeg2video", "mpeg2video"), ("mpeg4", "m4v")])
@pytest.mark.filterwarnings("ignore:.*B-pictures are without")
def test_the_last_picture_has_its_vectors(tmp_path, codec, container):
    """Of the stream twice in a row FFmpeg gives the vectors of all pictures but the last."""
    frames = pictures(7, size=(64, 48))
    path = write_video(tmp_path / "once", frames, codec=codec, container=container, bf="2")
    once = list(map(as_rows, read_vectors(path)))
    path.write_bytes(2 * path.read_bytes())
    twice = list(map(as_rows, read_vectors(path)))
    assert len(once) == 7 and once[-1][1]
    assert once == twice[:7]


def test_vectors_of_a_pan_are_its_speed(tmp_path):
    """The content moves by (3, 1) pixels a picture; a future reference lies the other way."""
    frames = pictures(10, size=(128, 96), speed=(3, 1))
    fine = {"bf": "2", "crf": "10"}  # so fine that every version of x264 follows the pan
    path = write_video(tmp_path / "v.mp4", frames, codec="libx264", container="mp4", **fine)
    kinds = {picture.type: picture for picture in read_vectors(path, 1, dense=True)}
    for picture in kinds.values():
        assert picture.mv.shape == (96, 128, 2) and picture.mask.shape == (96, 128)
        assert (picture.mv[picture.mask == 0] == 0).all()
        inner = slice(24, -24), slice(24, -24)
        steps = picture.mv[inner] / (3, 1)
        ahead = picture.mask[inner] == 1
        for direction, where in ((-1, ahead), (1, picture.mask[inner] == -1)):
            if where.sum() > 100:
                x, y = direction * np.median(steps[where], axis=0)
                assert x == y and x in (1, 2, 3)
    assert (kinds["P"].mask[inner] == -1).mean() > 0.9
    assert (kinds["P"].mv[inner] == kinds["P"].mv[48, 64]).mean() > 0.9


def test_dense_field_by_hand():
    """Clipped at the edges, the past over the future, fractions kept."""
    rows = np.zeros(4, VECTOR)
    names = ["source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale"]
    values = [
        (-1, 16, 16, 8, 8, 6, -3, 4),
        (1, 16, 16, 8, 8, 40, 40, 4),
        (1, 8, 8, 20, 4, -7, 0, 2),
        (-1, 16, 8, 24, 12, 0, 0, 2),
    ]
    for row, value in zip(rows, values):
        for name, number in zip(names, value):
            row[name] = number
    mv, mask = dense_field(rows, 22, 14)
    expected, expected_mask = np.zeros((14, 22, 2)), np.zeros((14, 22))
    expected[:14, :16], expected_mask[:14, :16] = (-1.5, 0.75), -1
    expected[:8, 16:22], expected_mask[:8, 16:22] = (3.5, 0), 1
    expected_mask[8:14, 16:22] = -1
    np.testing.assert_array_equal(mv, expected)
    np.testing.assert_array_equal(mask, expected_mask)


def test_ranges_and_times():
    whole = list(read_vectors(FOLDER / "h264.mp4"))
    assert [picture.index for picture in whole] == list(range(9))
    np.testing.assert_allclose([picture.time for picture in whole], np.arange(9) / 25)
    assert {picture.size for picture in whole} == {(96, 80)}
    part = list(read_vectors(FOLDER / "h264.mp4", 3, 8))
    assert [picture.index for picture in part] == [3, 4, 5, 6, 7]
    assert list(map(as_rows, part)) == list(map(as_rows, whole[3:8]))
    assert len(list(read_vectors(FOLDER / "mpeg2.ts", 7, 9))) == 2


def test_memory_stays_flat(tmp_path):
    frames = pictures(160, size=(320, 240))
    options = {"bf": "2", "preset": "ultrafast"}
    path = write_video(tmp_path / "v.mp4", frames, codec="libx264", container="mp4", **options)
    resident = []
    for _ in read_vectors(path, dense=True):
        with open("/proc/self/statm") as file:
            resident.append(int(file.read().split()[1]) * 4096 / 2**20)
    assert len(resident) == 160
    assert max(resident[40:]) - max(resident[:40]) < 8  # a kept picture is 0.1 to 0.9 MB


def refused(path, *arguments):
    with pytest.raises((ValueError, IndexError, OSError)) as caught:
        list(read_vectors(path, *arguments))
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "encoder, container, codec",
    [("libvpx", "webm", "vp8"), ("libvpx-vp9", "webm", "vp9"), ("ffv1", "matroska", "ffv1")],
)
def test_codecs_without_vectors_are_named(tmp_path, encoder, container, codec):
    path = write_video(tmp_path / "v", pictures(2), codec=encoder, container=container)
    said = refused(path)
    assert f"no motion vectors of the codec {codec} " in said and "coviar.reencode" in said


@pytest.mark.parametrize(
    "encoder, container, options",
    [
        ("libx264", "mp4", {"flags": "+ilme+ildct"}),
        ("mpeg2video", "mpegts", {"flags": "+ilme+ildct"}),
        ("mpeg4", "avi", {"flags": "+ilme+ildct"}),
        ("libx264", "matroska", {"x264-params": "bff=1"}),
    ],
)
def test_interlaced_pictures_are_named(tmp_path, encoder, container, options):
    path = tmp_path / "v"
    write_video(path, pictures(4, size=(96, 96)), codec=encoder, container=container, **options)
    said = refused(path)
    assert "picture 0 is interlaced" in said and "coviar.reencode" in said


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((0, 10), "picture 9 is not in 0..8"),
        ((9,), "picture 9 is not in 0..8"),
        ((20, 30), "picture 29 is not in 0..8"),
    ],
)
@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.filterwarnings("ignore:.*B-pictures are without")
def test_ranges_beyond_the_end_are_named(name, arguments, words):
    assert words in refused(FOLDER / name, *arguments)


@pytest.mark.parametrize("arguments", [(-1,), (3, 3), (4, 2), (0, -1)])
def test_ranges_that_are_none_are_refused(arguments):
    with pytest.raises(ValueError, match="are no range"):
        list(read_vectors(FOLDER / "h264.mp4", *arguments))


@pytest.mark.filterwarnings("ignore:.*B-pictures are without")
def test_files_that_are_damaged_or_no_video(tmp_path):
    path = tmp_path / "v.mp4"
    with pytest.raises(FileNotFoundError, match=r"v\.mp4"):
        list(read_vectors(path))
    path.write_text("no video\n")
    assert "this is a text file" in refused(path)
    whole = (FOLDER / "h264.mp4").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut off" in refused(path)
    for name in VIDEOS:
        data = bytearray((FOLDER / name).read_bytes())
        data[len(data) // 3 : len(data) // 3 + 400] = bytes(range(1, 201)) * 2
        path.write_bytes(data)
        said = refused(path)
        assert "damaged" in said or "cannot be decoded" in said


def test_a_picture_that_cannot_be_read_is_named_wherever_it_lies(tmp_path):
    """Also while the decoder still holds back pictures, as it does before the first B-picture."""
    frames = pictures(9, size=(96, 80))
    path = write_video(tmp_path / "v.mp4", frames, codec="libx264", container="mp4", bf="2")
    whole = path.read_bytes()
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    assert len(places) == 9
    for place in places:
        path.write_bytes(whole[:place] + b"\x7f" + whole[place + 1 :])  # a unit beyond the packet
        said = refused(path)
        assert "cannot be decoded" in said or "can be decoded" in said


def run_vectors(*arguments):
    parser = vectors.get_args_parser()
    return vectors.main(parser.parse_args(list(map(str, arguments))), parser)


def test_command_writes_what_is_read(tmp_path, capsys):
    out, picture = tmp_path / "deep" / "v.npz", tmp_path / "v.png"
    video = FOLDER / "mpeg2.ts"
    assert run_vectors(video, out, "--start", 1, "--stop", 8, "--picture", picture) == 0
    expected = list(read_vectors(video, 1, 8))
    with np.load(out) as file:
        arrays = dict(file)
    assert arrays["index"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert arrays["type"].tolist() == [one.type for one in expected]
    assert arrays["time"].tolist() == [one.time for one in expected]
    assert arrays["size"].tolist() == [96, 80]
    for number, one in enumerate(expected):
        first, end = arrays["first"][number : number + 2]
        assert arrays["vectors"][first:end].tolist() == one.vectors.tolist()
    assert picture.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert f"{arrays['first'][-1]} vectors of 7 pictures" in said and "which moves most" in said


def test_command_without_times_and_without_vectors(tmp_path):
    raw = write_video(tmp_path / "v.m4v", pictures(3), gop=1)
    assert run_vectors(raw, tmp_path / "v.npz", "--picture", tmp_path / "v.png") == 0
    with np.load(tmp_path / "v.npz") as file:
        assert file["type"].tolist() == ["I"] * 3 and len(file["vectors"]) == 0
        assert file["time"].dtype == float


@pytest.mark.parametrize(
    "options, words",
    [
        (["v.npz", "--stop", "10"], "picture 9 is not in 0..8"),
        (["v.npz", "--start", "-1"], "--start -1 is below 0"),
        (["v.npz", "--start", "9", "--picture", "v.png"], "picture 9 is not in 0..8"),
        (["v.png"], "v.png does not end in .npz"),
        (["v.npz", "--picture", "v.npz"], "v.npz does not end in .png"),
    ],
)
def test_command_refuses_and_leaves_no_file(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run_vectors(FOLDER / "h264.mp4", *options)
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*B-pictures are without")
def test_frames_are_as_pyav_counts_them():
    for name in VIDEOS:
        with av.open(str(FOLDER / name)) as container:
            count = sum(1 for _ in container.decode(video=0))
        assert len(list(read_vectors(FOLDER / name))) == count == 9


@pytest.mark.parametrize("start", [0.08, 0.2, 0.56])  # in the first GOP, in a later one
@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", "libx264"])
@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_a_file_that_an_edit_list_trims_keeps_its_last_picture(tmp_path, start, codec, container):
    whole, cut = (tmp_path / f"{name}.{container}" for name in ("whole", "cut"))
    write_video(whole, pictures(23), codec=codec, container=container, gop=12, bf="0")
    ffmpeg("-ss", start, "-i", whole, "-c", "copy", cut)
    expected, found = ([as_rows(p) for p in read_vectors(path)] for path in (whole, cut))
    assert len(found) == sum(1 for _ in decode_source(cut)) == 23 - round(start * 25)
    assert found == expected[-len(found) :] and found[-1][1]
    assert [as_rows(p) for p in read_vectors(cut, len(found) - 1)] == found[-1:]
