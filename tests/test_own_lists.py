"""Lists made by other programs and on other machines, files under two names, hostile names."""

import os
import unicodedata

import pytest

from dataset_team.finder import VideoFinder
from dataset_team.heldout import split_heldout
from dataset_team.identity import equal_files
from dataset_team.list_file import ListError, read_rows
from dataset_team.lists import write_lists
from dataset_team.official_lists import Entry
from dataset_team.records import Record, list_digest, read_list, read_paths, read_unlabelled
from dataset_team.registry import class_names
from tests.list_files import run, write

NESTED = ("7/mon/m.mp4", "A/7/k.mp4")


@pytest.fixture
def root(tmp_path):
    """Class folders with files that no test opens."""
    names = ("A/x.mp4", "A/#y 1.avi", "B b/my clip.mov", "B b/z,1.mp4", "7/n.mp4", *NESTED)
    for number, name in enumerate(names):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"%d" % number)
    return tmp_path / "data"


TEXT = "A/x.avi{0}A{0}0{1}B b/my clip.avi{0}B b{0}1{1}"


@pytest.mark.parametrize("separator", ["\t", ",", ";", ", "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_what_programs_make_of_a_list(root, separator, end, encoding):
    content = TEXT.format(separator, end).encode(encoding)
    found = [(r.name, r.class_name, r.label) for r in read_list(write(root, content), root)]
    assert found == [("A/x", "A", 0), ("B b/my clip", "B b", 1)]


@pytest.mark.parametrize(
    "line, name, class_name, label",
    [
        ("A/x.mp4 120 0", "A/x", "A", 0),  # TSN: path, frames, label
        ("A/x 120 0", "A/x", "A", 0),
        ("A/x.mp4 4", "A/x", "A", 4),  # mmaction: path, label
        ("A/x,4", "A/x", "A", 4),
        ("B b/my clip.mov 2", "B b/my clip", "B b", 2),
        ("7/n.mp4 7 3", "7/n", "7", 3),  # a class whose name is a number
        ("7/mon/m.mp4 7 3", "7/mon/m", "7", 3),
        ("A/7/k.mp4 120 3", "A/7/k", "7", 3),
        (".//A\\x.mp4 A 0", "A/x", "A", 0),
        ("B b/../A/x.mp4 A 0", "A/x", "A", 0),
        ('"B b/z,1.mp4",B b,1', "B b/z,1", "B b", 1),
        ("A/x.mp4;A;0;;", "A/x", "A", 0),
        ("A/#y 1.avi\tA\t0", "A/#y 1", "A", 0),
        ("sep=;\r\nvideo;class;label\r\nA/x.mp4;A;0", "A/x", "A", 0),
    ],
)
def test_ways_to_write_a_row(root, line, name, class_name, label):
    (record,) = read_list(write(root, line), root)
    assert (record.name, record.class_name, record.label) == (name, class_name, label)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\x00\x00\x01\xb3video", "no list file: it holds zero bytes"),
        ("A/x.mp4 A 0\n".encode("utf-16-le"), "no list file: it holds zero bytes"),
        ("A/\xe9.mp4 A 0\n".encode("latin-1"), "list.txt:1: is not UTF-8 text"),
        ("x.mp4 5", "'path label' without a class folder"),
        ("x.mp4 120 5", "'path frames label' without a class folder"),
        ("/elsewhere/A/x.mp4 A 0", "absolute path outside of --data-root"),
        ("C:\\videos\\A\\x.mp4 A 0", "absolute path outside of --data-root"),
        ("../A/x.mp4 A 0", "leads out of --data-root"),
        ("A/x.mp4", "found a path alone"),
        ("#gone.mp4 A 0", "nor one without the #"),
        ("A/x.mp4 A 99999999999999999999", "label must be a number"),
    ],
)
def test_what_is_refused_by_name(root, content, message):
    with pytest.raises(ListError, match="list.txt") as caught:
        read_list(write(root, content), root)
    assert message in str(caught.value)


def test_absolute_paths_below_the_root_are_names(root):
    assert read_list(write(root, f"{root}/A/x.mp4 A 0"), root)[0].name == "A/x"


def test_a_name_may_begin_with_the_sign_of_a_comment(tmp_path):
    for name in ("#1_wave.mp4", "kept.mp4"):
        (tmp_path / name).write_bytes(b"")
    text = "# a comment\n#kept.mp4 wave 0\n#1_wave.mp4 wave 0\n"
    assert [record.name for record in read_list(write(tmp_path, text), tmp_path)] == ["#1_wave"]
    assert read_paths(write(tmp_path, "#1_wave.mp4\n#kept.mp4\n"), tmp_path) == [
        tmp_path / "#1_wave.mp4"
    ]


@pytest.mark.parametrize("kind", ["link", "hard link", "folder"])
def test_one_file_under_two_names_is_listed_twice(root, kind):
    if kind == "link":
        (root / "A/other.mp4").symlink_to(root / "A/x.mp4")
    elif kind == "hard link":
        os.link(root / "A/x.mp4", root / "A/other.mp4")
    else:
        (root / "C").symlink_to(root / "A")
    second = "C/x.mp4" if kind == "folder" else "A/other.mp4"
    with pytest.raises(ListError, match=":2: .* is the same file as A/x of line 1"):
        read_list(write(root, f"A/x.mp4 A 0\n{second} A 0\n"), root)


def test_equal_files(tmp_path):
    contents = {"a": b"1" * 9, "b": b"2" * 9, "c": b"1" * 9, "d": b"1" * 8}
    big = bytearray(300_000)
    contents["e"], contents["f"] = bytes(big), bytes(big[:-1] + b"x")  # equal in their middle
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in contents]
    assert equal_files(paths) == [[paths[0], paths[2]]]


def test_empty_files_are_no_copies(tmp_path):
    """Downloads that failed: they are unreadable videos, not a leak."""
    paths = [str(tmp_path / name) for name in "ab"]
    for path in paths:
        open(path, "wb").close()
    assert equal_files(paths) == []


def test_equal_videos_are_held_out_together(root):
    records = [Record(f"A/{n}", "", "A", 0, None) for n in range(12)]
    for seed in range(8):
        train, heldout = split_heldout(records, 0.3, seed, copies=[["A/0", "A/7", "A/9"]])
        sides = [{"A/0", "A/7", "A/9"} & {r.name for r in side} for side in (train, heldout)]
        assert sorted(map(len, sides)) == [0, 3]


@pytest.mark.parametrize(
    "labels, message",
    [([1, 2], "label 0: labels count from 0"), ([0, 5], "no gaps"), ([0, 10_000_000], "no gaps")],
)
def test_labels_that_are_no_classes(labels, message):
    records = [Record(f"{n}", "", f"C{n}", n, None) for n in labels]
    with pytest.raises(ValueError, match=message):
        class_names("mine", records)
    with pytest.raises(ValueError, match="outside 0..1"):
        class_names("mine", records, num_classes=2)


def test_a_digest_is_of_what_a_list_says(root):
    digests = {
        list_digest(write(root, text), root)
        for text in ("A/x.mp4 A 0\n", "# new\n\n./A\\x.avi,A,0\r\n", f"{root}/A/x.mp4 A 0")
    }
    assert len(digests) == 1
    for comment in ("#note", "# note", "#note 1", "#A/x.mp4 A 0", "#", "# A/gone.mp4 A 0"):
        assert list_digest(write(root, f"{comment}\nA/x.mp4 A 0\n{comment}\n"), root) in digests
    (root / "#z.mp4").write_bytes(b"")
    assert list_digest(write(root, "A/x.mp4 A 0\n#z.mp4 A 0\n"), root) not in digests
    assert list_digest(write(root, "A/x.mp4 A 1\n"), root) not in digests


@pytest.mark.parametrize("line", ["flat.mp4 3", "flat.mp4 120 3", "flat.mp4", "A/x.mp4 walking 3"])
def test_rows_without_a_class_are_read_alike(root, line):
    (root / "flat.mp4").write_bytes(b"flat")
    listed = write(root, f"{line}\n")
    (record,) = read_unlabelled(listed, root)
    assert [str(path) for path in read_paths(listed, root)] == [record.path]
    assert len(list_digest(listed, root)) == 16


def test_convert_finds_videos_of_another_machine(root, tmp_path, capsys):
    text = "/home/me/frames/x 120 1\n/home/me/frames/my clip.avi 2\n"
    out = tmp_path / "new.txt"
    run(capsys, "convert", write(tmp_path, text), out, "--data-root", root)
    found = [(r.name, r.class_name, r.label) for r in read_list(out, root)]
    assert found == [("A/x", "A", 1), ("B b/my clip", "B b", 2)]
    run(capsys, "convert", out, out, "--data-root", root, "--renumber")
    assert [record.label for record in read_list(out, root)] == [1, 2]  # after "7"


@pytest.mark.parametrize(
    "text, message",
    [
        ("# note\n\nA/x 1\n\nx.mp4 1\n", "list.txt:5: A/x.mp4 is listed twice, first in line 3"),
        ("A/x 1\n\nB b/z,1.mp4\t1\n", "list.txt:3: class 'B b' with label 1"),
        ("# A/x 1\n\n", "list.txt: no videos in this list"),
        ("", "list.txt: no videos in this list"),
    ],
)
def test_convert_names_lines_of_the_list(root, tmp_path, capsys, text, message):
    out = tmp_path / "new.txt"
    with pytest.raises(SystemExit) as stop:
        run(capsys, "convert", write(tmp_path, text), out, "--data-root", root)
    assert stop.value.code == 2 and message in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    "row, other",
    [
        ("7/z,1.mp4 7 1", "7"),  # by folder and by column
        ("7/z,1.mp4 1", "7"),
        ("/home/me/A/z,1.mp4 120 1", "A"),
        ("/home/me/Gone/z,1.mp4\tGone\t1", "Gone"),  # a class without a folder
        ("/home/me/z,1.mp4\tGone\t1", "Gone"),
    ],
)
def test_convert_takes_no_video_of_another_class(root, tmp_path, capsys, row, other):
    with pytest.raises(SystemExit):
        args = ("convert", write(tmp_path, f"A/#y 1.avi 0\n{row}\n"), tmp_path / "new.txt")
        run(capsys, *args, "--data-root", root)
    error = capsys.readouterr().err
    assert f"list.txt:2: {row.split('.mp4')[0]}.mp4: no video of this name in {other}" in error


def test_lists_of_classes_that_are_numbers_are_read_again(tmp_path):
    names = [f"{c}/{day}/x{c}{day}.mp4" for c in (1, 2) for day in ("mon", "tue", "3")]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    entries = [Entry(name, name[0], int(name[0]) - 1) for name in names]
    write_lists({tmp_path / "l.txt": entries})
    found = [(r.class_name, r.label) for r in read_list(tmp_path / "l.txt", tmp_path)]
    assert found == [("1", 0)] * 3 + [("2", 1)] * 3


def test_convert_leaves_comments_out(root, tmp_path, capsys):
    (root / "#C").mkdir()
    for name in ("A/#x.mp4", "#C/x.mp4", "#C/y.mp4"):
        (root / name).write_bytes(name.encode())
    comments = "# A/x.mp4 A 0\n#A/x.mp4 A 0\n# x.mp4 0\n#/home/me/x 120 0\n#n 7 0\n# note\n"
    names = "#C/x.mp4 C 1\n#x 120 0\n#y 1.avi 0\n/home/me/#C/y.mp4 1\n"
    out = tmp_path / "new.txt"
    run(capsys, "convert", write(tmp_path, comments + names), out, "--data-root", root)
    assert [r.name for r in read_list(out, root)] == ["#C/x", "A/#x", "A/#y 1", "#C/y"]


def test_every_row_has_its_line(root):
    rows = list(read_rows(write(root, "\r\n# no\nA/x.mp4 A 0\n\nA/x.mp4 A b c\n")))
    assert rows[0].line == 3 and ":5: expected" in str(rows[1])


@pytest.mark.parametrize(
    "name, class_name",
    [
        ("Cl,/x y.mp4", "Cl,"),
        ("Cl;/x y.mp4", "Cl;"),
        ("A /x.mp4", "A "),
        ("A/x ", "A"),
        (" A/x.mp4", " A"),
        ("A/x\\y.mp4", "A"),
        ("sep=A/x.mp4", "sep=A"),
        ("A/x\ny.mp4", "A"),
        ("A/\udce9.mp4", "A"),
    ],
)
def test_names_that_a_list_cannot_hold_are_refused(tmp_path, name, class_name):
    entries = [Entry("A/good.mp4", "A", 0), Entry(name, class_name, 1)]
    with pytest.raises(ListError, match="a list cannot hold this name; rename the file"):
        write_lists({tmp_path / "l.txt": entries}, {"A/good.mp4": "1", name: "2"})
    assert not list(tmp_path.iterdir())


def test_names_that_a_list_can_hold_are_read_again(tmp_path):
    names = ("A,b/x,1.mp4", "A,b/x 1, 2.mp4", "#A/#x y.mp4", "name/label 3.mp4", "A;/x;y.mp4")
    classes = {"A,b": 0, "#A": 1, "name": 2, "A;": 3, "B": 4}
    entries = []
    for name in (*names, "B/ x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
        class_name = name.split("/")[0]
        entries.append(Entry(name, class_name, classes[class_name]))
    write_lists({tmp_path / "l.txt": entries})
    found = [(r.path, r.class_name, r.label) for r in read_list(tmp_path / "l.txt", tmp_path)]
    assert found == [(str(tmp_path / e.name), *e[1:]) for e in entries]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_that_are_alike(tmp_path, form):
    name = unicodedata.normalize(form, "Caf\u00e9 No 1")
    for entry in (f"A/{name}.mp4", "A/a b.mp4", "A/a_b.mp4"):
        (tmp_path / entry).parent.mkdir(exist_ok=True)
        (tmp_path / entry).write_text(entry)
    finder = VideoFinder(tmp_path)
    for other in ("NFC", "NFD"):
        wanted = unicodedata.normalize(other, "a/caf\u00e9_no_1")
        assert finder.find(wanted) == str(tmp_path / "A" / f"{name}.mp4")
    assert finder.find("A/a_b") == str(tmp_path / "A/a_b.mp4")
    for read in (read_list, read_unlabelled, read_paths):
        with pytest.raises(ListError, match=":2: .*'a b.mp4' or 'a_b.mp4'"):
            read(write(tmp_path, "A/a_b.mp4 A 0\nA/A_b.mp4 A 0\n"), tmp_path)
