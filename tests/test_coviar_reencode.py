"""Re-encoding: every input becomes a stream the loader reads; a broken one stops nothing else."""

import errno
import json
import shutil
import signal
import struct
import subprocess
import sys
import time
import weakref
from functools import partial

import av
import numpy as np
import pytest

import coviar
import coviar.reencode
from coviar.reencode import reencode_in_memory
from tests.calls import call
from tests.conftest import REPO
from tests.coviar_videos import SIZE, pictures, write_video
from tests.shell_jobs import heed_interrupts

run = partial(call, coviar.reencode)
INPUTS = {
    "Class A/mpeg4.avi": {"container": "avi"},
    "Class A/b frames.avi": {"container": "avi", "bf": "2"},
    "B/h264.mp4": {"codec": "libx264", "container": "mp4"},
    "B/deep/vp9.webm": {"codec": "libvpx-vp9", "container": "webm", "deadline": "realtime"},
    "B/MPEG2.MPG": {"codec": "mpeg2video", "container": "mpeg"},
}

COUNT = 7


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for name, options in INPUTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, pictures(COUNT), **options)
    (folder / "list.txt").write_text("not a video\n")
    (folder / ".hidden.avi").write_text("not a video\n")
    return folder


@pytest.fixture
def output(inputs, tmp_path, capsys):
    assert run(inputs, tmp_path / "out", "--size", "64x48", "--gop", 4, "--q", 2) == 0
    assert json.loads(capsys.readouterr().out.split("result: ")[1])["encoded"] == len(INPUTS)
    return tmp_path / "out"


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_every_input_keeps_its_place_and_loads(output):
    names = [f"{name.rsplit('.', 1)[0]}.mp4" for name in INPUTS]
    assert files(output) == sorted([*names, "reencode.json"])
    for name in names:
        index = coviar.read_index(output / name)
        assert (index.width, index.height, index.gop_lengths) == (64, 48, (4, 3)), name
        assert (output / name).read_bytes()[:4] == b"\0\0\1\xb0"  # a raw stream
        coviar.load_clip(output / name, [(1, 2)])


def test_pictures_are_those_of_the_input(inputs, output):
    source, target = inputs / "B" / "h264.mp4", output / "B" / "h264.mp4"
    with av.open(str(source)) as container:
        originals = [
            frame.reformat(64, 48, "bgr24", interpolation="BICUBIC").to_ndarray()
            for frame in container.decode(video=0)
        ]
    for number in range(COUNT):
        found = coviar.load(target, number // 4, number % 4, 0, True).astype(int)
        distances = [np.abs(found - original).mean() for original in originals]
        assert np.argmin(distances) == number


def test_a_video_in_memory_loads_like_its_file(inputs, output):
    content, count, _ = reencode_in_memory(inputs / "B" / "h264.mp4", (64, 48), 4, 2)
    path = output / "B" / "h264.mp4"
    assert (content, count) == (path.read_bytes(), COUNT)
    index = coviar.read_index("in memory", content)
    positions = [(0, 0), (0, 3), (1, 1)]
    for found, expected in zip(
        coviar.load_clip("in memory", positions, index=index), coviar.load_clip(path, positions)
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("matrix", "quarters"),
    [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
    ids=["clockwise", "upside down", "counterclockwise"],
)
def test_pictures_are_turned_as_the_container_asks(inputs, tmp_path, matrix, quarters):
    if not hasattr(av.VideoFrame, "rotation"):
        pytest.skip("this PyAV does not tell how a picture is to be turned")
    content = bytearray((inputs / "B" / "h264.mp4").read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    place = content.index(b"tkhd") + 44  # the track header's matrix, 3 x 3
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(content)
    size = SIZE if quarters == 2 else SIZE[::-1]
    turned, *_ = reencode_in_memory(tmp_path / "turned.mp4", size, 12, 1)
    index = coviar.read_index("turned", turned)
    found = coviar.load_clip("turned", [(0, 0)], index=index).iframe[0].astype(int)
    plain, *_ = reencode_in_memory(inputs / "B" / "h264.mp4", SIZE, 12, 1)
    index = coviar.read_index("plain", plain)
    expected = coviar.load_clip("plain", [(0, 0)], index=index).iframe[0].astype(int)
    distances = [
        np.abs(found - np.rot90(expected, k)).mean()
        for k in range(4)
        if np.rot90(expected, k).shape == found.shape
    ]
    # Colours pass through RGB once more: a few grey levels; the wrong way up is far off.
    assert np.abs(found - np.rot90(expected, quarters)).mean() == min(distances) < 6


def test_a_second_run_keeps_what_is_there(inputs, output, capsys):
    (output / "B" / "h264.mp4").unlink()
    (output / "Class A" / "mpeg4.mp4").write_bytes(b"kept")
    assert run(inputs, output, "--size", "64x48", "--gop", 4, "--q", 2) == 0
    result = json.loads(capsys.readouterr().out.split("result: ")[1])
    assert (result["encoded"], result["kept"]) == (1, len(INPUTS) - 1)
    assert (output / "Class A" / "mpeg4.mp4").read_bytes() == b"kept"
    assert coviar.get_num_frames(output / "B" / "h264.mp4") == COUNT


def test_other_settings_do_not_mix_with_what_is_there(inputs, output, capsys):
    with pytest.raises(SystemExit):
        run(inputs, output, "--size", "64x48", "--gop", 12)
    assert "was made with" in capsys.readouterr().err


def test_one_file_and_the_published_defaults(inputs, tmp_path):
    assert run(inputs / "B" / "h264.mp4", tmp_path / "out") == 0
    index = coviar.read_index(tmp_path / "out" / "h264.mp4")
    assert (index.width, index.height, index.gop_lengths) == (340, 256, (COUNT,))


def test_broken_inputs_are_reported_and_the_rest_is_done(inputs, tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    good = (inputs / "Class A" / "mpeg4.avi").read_bytes()
    (source / "good.avi").write_bytes(good)
    (source / "cut.avi").write_bytes(good[: len(good) // 2])
    (source / "empty.mp4").write_bytes(b"")
    (source / "text.webm").write_text("no video\n")
    (source / "headless.mp4").write_bytes((inputs / "B" / "h264.mp4").read_bytes()[:800])
    assert run(source, tmp_path / "out", "--workers", 2) == 1
    assert files(tmp_path / "out") == ["good.mp4", "reencode.json"]
    broken = {str(source / name) for name in ("cut.avi", "empty.mp4", "text.webm", "headless.mp4")}
    report = json.loads((tmp_path / "out" / "reencode.json").read_text())
    assert "cut off" in report["failed"][str(source / "cut.avi")]
    assert set(report["failed"]) == broken
    assert all(report["failed"].values())
    printed = capsys.readouterr()
    assert "cut.avi" in printed.err
    assert json.loads(printed.out.split("result: ")[1])["failed"] == 4


def test_inputs_of_one_output_name_are_left_out_or_chosen(inputs, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.m4v", "a.mp4", "b.mp4"):
        shutil.copy(inputs / "B" / "h264.mp4", source / name)
    (source / "empty.mp4").write_bytes(b"")
    assert run(source, out) == 1
    printed = capsys.readouterr()
    assert f"failed: {source / 'a.m4v'}: a.m4v and a.mp4 would all become" in printed.err
    result = json.loads(printed.out.split("result: ")[1])
    assert (result["videos"], result["encoded"], result["failed"]) == (4, 1, 3)
    assert files(out) == ["b.mp4", "reencode.json"]
    (source / "empty.mp4").unlink()
    assert run(source, out, "--prefer", "MP4") == 0
    assert files(out) == ["a.mp4", "b.mp4", "reencode.json"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["{in}/nowhere", "{out}"], "does not exist"),
        (["{in}", "{in}"], "must not be inside"),
        (["{in}", "{in}/out"], "must not be inside"),
        (["{in}", "{file}"], "file) is a file; name a folder"),
        (["{in}", "{file}/out"], "name an OUT that can be written"),
        (["{in}", "{out}", "--size", "340"], "WIDTHxHEIGHT"),
        (["{in}", "{out}", "--size", "8x8"], "outside 16..4096"),
        (["{in}", "{out}", "--q", "0"], "1..31"),
        (["{in}", "{out}", "--workers", "0"], "above 0"),
    ],
)
def test_arguments_that_make_no_sense(inputs, tmp_path, capsys, arguments, words):
    (tmp_path / "file").write_text("")
    paths = {"in": inputs, "out": tmp_path / "out", "file": tmp_path / "file"}
    with pytest.raises(SystemExit) as stop:
        run(*(text.format(**paths) for text in arguments))
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_modules_run_without_a_warning():
    for module in ("reencode", "check", "visualize", "vectors"):
        command = [
            sys.executable,
            "-W",
            "error::RuntimeWarning",
            "-m",
            f"coviar.{module}",
            "--help",
        ]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("source", ["v.mp4", "again.mp4", "other"])
def test_an_output_is_never_an_input(tmp_path, capsys, source):
    write_video(tmp_path / "v.mp4", pictures(2))
    (tmp_path / "again.mp4").symlink_to(tmp_path / "v.mp4")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/v.mp4").symlink_to(tmp_path / "v.mp4")
    before = files(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / source, tmp_path)
    assert stop.value.code == 2 and "is a video of IN" in capsys.readouterr().err
    assert files(tmp_path) == before
    assert run(tmp_path / source, tmp_path / "out") == 0


def test_an_empty_folder_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, tmp_path.parent / "out")
    assert "holds no video" in capsys.readouterr().err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_partial_and_goes_on(tmp_path, how):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    first = write_video(source / "v0.avi", pictures(40), container="avi")
    for number in range(1, 12):
        (source / f"v{number}.avi").write_bytes(first.read_bytes())
    command = [sys.executable, "-m", "coviar.reencode", str(source), str(target), "--workers", "1"]
    process = subprocess.Popen(
        command, cwd=REPO, stderr=subprocess.DEVNULL, preexec_fn=heed_interrupts
    )
    deadline = time.monotonic() + 60
    while not list(target.glob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    assert process.wait(60) in (130, -signal.SIGKILL)
    done = files(target)
    assert len(done) < 13
    for name in set(done) - {"reencode.json"}:
        if not name.startswith("."):  # killed while writing, the temporary name may remain
            assert coviar.get_num_frames(target / name) == 40
    subprocess.run(command, cwd=REPO, check=True, stderr=subprocess.DEVNULL)
    assert len(list(target.glob("v*.mp4"))) == 12


def test_a_tall_video_is_noted_and_counted(tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    write_video(source / "tall.avi", pictures(3, (48, 96)), container="avi")
    (source / "notes.txt").write_text("no video")
    assert run(source, tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "tall.avi: pictures of 0.50:1 are stretched" in printed.err
    assert json.loads(printed.out.split("result: ")[1])["skipped"] == 1


def test_memory_does_not_grow_with_the_number_of_videos(tmp_path, monkeypatch):
    """Neither of those that become streams nor of those that fail."""
    count = 40
    for number in range(count):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.avi").touch()
    alive, most = weakref.WeakSet(), []

    class Content:
        note = None

    def fake(path, *rest):
        content = Content()
        alive.add(content)
        time.sleep(0.01)  # as an encoder, slower than what takes the results
        most.append(len(alive))
        if int(path.stem) % 2:
            raise ValueError(f"{path}: is broken")
        return content

    monkeypatch.setattr(coviar.reencode, "reencode", fake)
    assert run(tmp_path / "in", tmp_path / "out", "--workers", 1) == 1
    report = json.loads((tmp_path / "out" / "reencode.json").read_text())
    assert len(most) == count and len(report["failed"]) == count // 2
    assert max(most) < count / 2


def test_a_disk_that_is_full_at_the_end_hides_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.avi").touch()
    calls = []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(coviar.reencode.Made, "write", full)
    assert run(tmp_path / "in", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "failed: " in printed.err and "No space left on device" in printed.err
    assert json.loads(printed.out.split("result: ")[1])["failed"] == 1


def test_another_choice_of_suffix_does_not_keep_the_old_stream(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("v.avi", "v.mkv")):
        container = {".avi": "avi", ".mkv": "matroska"}[name[1:]]
        write_video(tmp_path / "in" / name, pictures(3 + number), container=container)
    for arguments, code in (((), 1), (("--prefer", "avi"), 0), ((), 1), (("--prefer", "avi"), 0)):
        assert run(tmp_path / "in", tmp_path / "out", *arguments) == code
    with pytest.raises(SystemExit):
        run(tmp_path / "in", tmp_path / "out", "--prefer", "mkv")
    assert "use the same settings or another OUT" in capsys.readouterr().err
