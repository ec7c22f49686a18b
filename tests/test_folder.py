"""One walk of a folder gives its videos and counts its other files."""

import os
from collections import Counter

import pytest

from coviar import check, reencode
from coviar.folder import describe, list_folder
from dataset_team.finder import VideoFinder
from dataset_team.records import read_paths
from tests.coviar_videos import pictures, write_video


@pytest.fixture
def folder(tmp_path):
    """One video and three other files; a link to itself, and a folder that lies elsewhere."""
    folder, elsewhere = tmp_path / "videos", tmp_path / "disk2"
    for parent in (folder / "A", elsewhere):
        parent.mkdir(parents=True)
    write_video(folder / "A/v.M4V", pictures(2))
    write_video(elsewhere / "w.avi", pictures(2), container="avi")
    (elsewhere / "notes.docx").write_text("")
    (folder / "A/.hidden.avi").write_text("")
    (folder / "README").write_text("")
    (folder / "A/loop").symlink_to(folder)
    (folder / "B").symlink_to(elsewhere)
    (folder / "C").symlink_to(elsewhere)
    return folder


def test_each_file_is_counted_once_whatever_the_links(folder):
    found = list_folder(folder)
    assert list(map(str, found.videos)) == ["A/v.M4V", "B/w.avi"]
    assert found.others == {".docx": 1, "hidden": 1, "no suffix": 1}


def test_a_folder_that_cannot_be_read_is_counted(folder, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if os.fspath(path).endswith(("B", "C")):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = list_folder(folder)
    assert "2 unreadable folder(s)" in describe(found.others)
    assert list(map(str, found.videos)) == ["A/v.M4V"]


def test_check_and_reencode_count_alike_in_one_walk(folder, tmp_path, monkeypatch, capsys):
    walks = Counter()
    walk = os.walk

    def counted(top, **options):
        for here, *rest in walk(top, **options):
            walks[os.path.realpath(here)] += os.fspath(here) == os.path.realpath(here)
            yield (here, *rest)

    monkeypatch.setattr(os, "walk", counted)
    commands = ((check, [folder], [read_paths]), (reencode, [folder, tmp_path / "out"], []))
    for script, words, more in commands:
        walks.clear()
        parser = script.get_args_parser()
        script.main(parser.parse_args([*map(str, words), "--workers", "1"]), parser, *more)
        assert walks[str(folder)] == 1
        printed = capsys.readouterr()
        assert '"videos": 2' in printed.out and '"skipped": 3' in printed.out
        assert "1 .docx, 1 hidden, 1 no suffix" in printed.err


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device"])
def test_what_is_no_file_is_no_video(folder, tmp_path, capsys, kind):
    """To read it would wait for ever."""
    special = folder / "A/x.mp4"
    if kind == "device":
        special.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "x.mp4" if kind == "link to a pipe" else special)
        if kind == "link to a pipe":
            special.symlink_to(tmp_path / "x.mp4")
    (folder / "A/lost.mp4").symlink_to(folder / "nowhere.mp4")  # to be told, not passed over
    found = list_folder(folder)
    assert list(map(str, found.videos)) == ["A/lost.mp4", "A/v.M4V", "B/w.avi"]
    assert found.others["pipe(s) or device(s)"] == 1
    finder = VideoFinder(folder)
    assert finder.find("A/x") is None and finder.find("A/lost") == str(folder / "A/lost.mp4")
    assert "a pipe or a device" in check.check(special).reason
    parser = reencode.get_args_parser()
    with pytest.raises(SystemExit):
        reencode.main(parser.parse_args([str(special), str(tmp_path / "out")]), parser)
    assert "is a pipe or a device" in capsys.readouterr().err
