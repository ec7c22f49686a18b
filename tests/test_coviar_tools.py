"""coviar.check and coviar.visualize, and the index cache."""

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import matplotlib.image
import numpy as np
import pytest

import coviar
from coviar import check, command, files, index_cache, visualize
from coviar.index_cache import read_indexes
from dataset_team.records import read_paths
from tests.conftest import REPO
from tests.coviar_videos import pictures, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder with one good, one damaged and three unusable videos."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "Class").mkdir()
    write_video(folder / "Class" / "good.mp4", pictures(14))
    write_video(folder / "Class" / "bframes.avi", pictures(8), container="avi", bf="2")
    write_video(folder / "Class" / "h264.mp4", pictures(3), codec="libx264", container="mp4")
    (folder / "Class" / "empty.mp4").write_bytes(b"")
    data = bytearray((folder / "Class" / "good.mp4").read_bytes())
    index = coviar.read_index(folder / "Class" / "good.mp4")
    start, end = index.offsets[12] + 100, index.offsets[13] - 50  # in the second I-frame
    data[start:end] = b"\xaa" * (end - start)
    (folder / "Class" / "damaged.mp4").write_bytes(data)
    return folder


def run_check(*arguments):
    parser = check.get_args_parser()
    args = parser.parse_args([str(argument) for argument in arguments])
    return check.main(args, parser, read_paths)


def test_check_says_what_every_video_of_a_folder_is(videos, capsys):
    assert run_check(videos) == 1
    *lines, result = capsys.readouterr().out.splitlines()
    of = {name: line for line in lines for name in os.listdir(videos / "Class") if name in line}
    assert of["good.mp4"].split()[:6] == ["ok", "14", "frames", "2", "GOPs", "96x64"]
    assert of["damaged.mp4"].startswith("damaged ") and "GOP 1 (1 pictures)" in of["damaged.mp4"]
    assert of["bframes.avi"].startswith("convert ") and "B-frames" in of["bframes.avi"]
    assert of["h264.mp4"].startswith("convert ") and "codec is h264" in of["h264.mp4"]
    assert of["empty.mp4"].startswith("unusable ") and "file is empty" in of["empty.mp4"]
    counts = json.loads(result.removeprefix("result: "))
    states = {"ok": 1, "convert": 2, "damaged": 1, "unusable": 1}
    assert counts == {"videos": 5, **states, "frames": 39, "skipped": 0}


def test_check_reads_lists(videos, tmp_path, capsys):
    listing = tmp_path / "train.txt"
    listing.write_text("# comment\n\nClass/good.avi Class 0\nClass/nowhere.avi Class 0\n")
    assert run_check(listing, "--data-root", videos) == 1
    out = capsys.readouterr().out
    assert "Class/good.mp4" in out  # the re-encoded one is found under the listed name
    assert "nowhere.avi  (" in out and "No such file" in out
    listing.write_text("Class/good.mp4 Class 0\n")
    assert run_check(listing, "--data-root", videos) == 0


def test_check_refuses_what_it_cannot_look_at(videos, tmp_path, capsys):
    for arguments, words in [
        ([tmp_path / "nowhere"], "does not exist"),
        ([tmp_path], "holds no video"),
        ([videos, "--data-root", videos], "is for a list"),
    ]:
        with pytest.raises(SystemExit):
            run_check(*arguments)
        assert words in capsys.readouterr().err


def test_check_from_the_shell(server, videos):
    done = server.call("-m", "coviar.check", videos / "Class/good.mp4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("result: {")


def test_visualize_writes_a_picture(server, videos, tmp_path):
    out = tmp_path / "deep" / "picture.png"
    command = ["-m", "coviar.visualize", videos / "Class/good.mp4"]
    assert server.call(*command, "--out", out).returncode == 0
    picture = matplotlib.image.imread(out)
    assert picture.shape[0] > 300 and picture.shape[1] > 500
    assert picture[..., :3].std() > 0.1  # not blank
    done = server.call(*command, "--gop", 9)
    assert done.returncode == 2 and "--gop 9 is not in 0..1" in done.stderr


def test_visualize_says_what_cannot_be_written(videos, tmp_path):
    (tmp_path / "file").write_text("")
    parser = visualize.get_args_parser()
    for out in ("file/x.png", "x.mp4", "file", "x.PNG.avi"):
        words = [str(videos / "Class/good.mp4"), "--out", str(tmp_path / out)]
        with pytest.raises(SystemExit) as stop:
            visualize.main(parser.parse_args(words), parser)
        assert stop.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_that_are_no_text_are_printed(videos, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    shutil.copy(os.fsencode(videos / "Class/good.mp4"), name)
    command = [sys.executable, "-m", "coviar.check", name]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert r"caf\udce9.mp4" in done.stdout and "result: {" in done.stdout


def test_flow_colours_by_hand():
    mv = np.array([[0, 0], [4, 0], [-4, 0], [2, 0], [0, 4]])
    right, left, down = [1, 0, 0], [0, 1, 1], [0.5, 1, 0]
    expected = [[1, 1, 1], right, left, [1, 0.5, 0.5], down]
    np.testing.assert_allclose(visualize.flow_colours(mv, 4), expected, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 12, 250])
def test_default_positions_are_in_the_gop(length):
    positions = visualize.default_positions(length)
    assert positions == sorted(set(positions)) and len(positions) <= 4
    assert positions[-1] == length - 1


@pytest.fixture
def paths(tmp_path):
    return [write_video(tmp_path / f"v{i}.mp4", pictures(3 + i), gop=4) for i in range(4)]


def assert_same(indexes, paths):
    for index, path in zip(indexes, paths):
        expected = coviar.read_index(path)
        assert index[:4] == expected[:4] and index.header == expected.header
        np.testing.assert_array_equal(index.offsets, expected.offsets)
        np.testing.assert_array_equal(index.sizes, expected.sizes)
        assert index.offsets.dtype == expected.offsets.dtype


def test_index_cache_answers_without_reading_videos(paths, tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "index.npz"
    assert_same(read_indexes(paths), paths)
    assert not cache.exists()
    assert_same(read_indexes(paths[:2], cache), paths[:2])
    assert_same(read_indexes(paths, cache), paths)  # the other two are added
    monkeypatch.setattr("coviar.index_cache.read_index", None)
    again = read_indexes([str(path) for path in paths[::-1]], cache)
    monkeypatch.undo()
    assert_same(again, [str(path) for path in paths[::-1]])


def test_index_cache_notices_changed_files(paths, tmp_path):
    cache = tmp_path / "index.npz"
    read_indexes(paths, cache)
    write_video(paths[1], pictures(9))
    assert read_indexes(paths, cache)[1].num_frames == 9
    status = os.stat(paths[2])
    os.utime(paths[2], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert_same(read_indexes(paths, cache), paths)


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04 cut off"])
def test_index_cache_that_cannot_be_read_is_rebuilt(paths, tmp_path, content):
    cache = tmp_path / "index.npz"
    cache.write_bytes(content)
    assert_same(read_indexes(paths, cache), paths)
    assert len(cache.read_bytes()) > 500
    cut = cache.read_bytes()[:-40]
    cache.write_bytes(cut)
    assert_same(read_indexes(paths, cache), paths)


def test_index_cache_that_cannot_be_written_is_a_warning(paths, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="index cache could not be written"):
        assert_same(read_indexes(paths, tmp_path / "file" / "index.npz"), paths)


def test_index_cache_shared_by_many_writers(paths, tmp_path):
    cache = tmp_path / "index.npz"

    def work(i):
        return read_indexes([paths[i % 4], paths[(i + 1) % 4]], cache)

    with ThreadPoolExecutor(8) as pool:
        for i, indexes in enumerate(pool.map(work, range(40))):
            assert_same(indexes, [paths[i % 4], paths[(i + 1) % 4]])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_index_cache_moves_with_its_data(paths, tmp_path, monkeypatch):
    read_indexes(paths, tmp_path / "index.npz")
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)
    monkeypatch.setattr("coviar.index_cache.read_index", None)
    found = read_indexes([moved / path.name for path in paths], moved / "index.npz")
    assert [index.num_frames for index in found] == [3, 4, 5, 6]


def test_index_cache_errors_name_the_file(paths, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_indexes([*paths, tmp_path / "nowhere.mp4"], tmp_path / "index.npz")


def test_index_cache_is_kept_after_an_error_and_without_bad_videos(paths, tmp_path, monkeypatch):
    paths[2].write_bytes(b"no video")
    read, calls = index_cache.read_index, []
    monkeypatch.setattr(index_cache, "read_index", lambda p: (calls.append(p), read(p))[1])
    with pytest.raises(ValueError, match="v2.mp4"):
        read_indexes(paths, tmp_path / "c.npz")
    for _ in range(2):  # the good ones of it are there, only the bad one is read again
        bad = {}
        indexes = read_indexes(paths, tmp_path / "c.npz", bad)
        assert [index is None for index in indexes] == [False, False, True, False]
        assert list(bad) == [str(paths[2])] and "v2.mp4" in str(bad[str(paths[2])])
    names = [os.path.basename(path) for path in calls]
    assert names == ["v0.mp4", "v1.mp4", "v2.mp4", "v2.mp4", "v3.mp4", "v2.mp4"]


def test_index_cache_of_which_a_byte_is_wrong_is_rebuilt(paths, tmp_path):
    cache = tmp_path / "c.npz"
    expected = read_indexes(paths, cache)
    content = cache.read_bytes()
    header, directory = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    for place in (*range(header, header + 60), *range(directory, directory + 46), len(content) - 8):
        cache.write_bytes(content[:place] + b"\x63" + content[place + 1 :])
        assert_same(read_indexes(paths, cache), paths)
    assert len(expected) == len(paths)


def test_ctrl_c_ends_with_a_line_and_without_the_rest(tmp_path, monkeypatch, capsys):
    for number in range(60):
        (tmp_path / f"{number}.mp4").touch()
    calls = []

    def interrupted(path):
        calls.append(path)
        time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check", interrupted)
    monkeypatch.setattr(sys, "argv", ["check", str(tmp_path), "--workers", "1"])
    with pytest.raises(SystemExit) as stop:
        command.run(functools.partial(check.main, read_paths=None), check.get_args_parser())
    assert stop.value.code == 130 and len(calls) < 30
    assert capsys.readouterr().err.splitlines()[-1] == "stopped"


def test_a_new_file_has_the_rights_of_any_other(tmp_path, monkeypatch):
    """The process's umask is shared by its threads: it is not set to be read."""
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", None)
        files.write_json(tmp_path / "x.json", {})
        monkeypatch.undo()
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
