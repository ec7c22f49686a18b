"""Lists of own folders: what is of one recording, and that it is never divided."""

import shutil

import pytest

from dataset_team import folders
from dataset_team.groups import film_of, group_of, read_recordings, write_recordings
from dataset_team.heldout import split_heldout
from dataset_team.list_file import ListError
from dataset_team.lists import write_lists
from dataset_team.official_lists import Entry
from dataset_team.records import Record, read_list
from dataset_team.toy import Video, draw, encode
from tests.list_files import run, write


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Two classes; one recording in three parts, a copy under another name, a broken file."""
    folder = tmp_path_factory.mktemp("own")
    encode(list(draw(Video("DotsLeft", 1, 1, (64, 48), 0)))[:3], folder / "seed.mp4")
    stream = (folder / "seed.mp4").read_bytes()
    names = [f"{c}/IMG_{n:04}" for c in ("jump", "my run") for n in range(8)]
    for number, name in enumerate([*names, "jump/IMG_0003 (1)", "jump/IMG_0003_part2"]):
        path = folder / "clips" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stream + b"\0" * number)
    shutil.copy(folder / "clips/jump/IMG_0005.mp4", folder / "clips/jump/zz.mp4")
    (folder / "clips/jump/broken.mp4").write_text("no video")
    (folder / "clips/lost.mp4").write_bytes(stream)
    return folder / "clips"


def test_folders_offers_the_recordings_it_finds(own, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(capsys, "folders", own, tmp_path)
    error = capsys.readouterr().err
    assert "jump/IMG_0003 (1).mp4, jump/IMG_0003.mp4" in error and "--group-names" in error


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_folders_never_divides_a_recording(own, tmp_path, capsys, seed):
    args = ("--group-regex", r"IMG_(\d+)|zz", "--folds", 3, "--seed", seed)
    result, out = run(capsys, "folders", own, tmp_path / "lists", *args)
    assert len(result["lists"]) == 6 and result["left_out"] == 2
    assert "lost.mp4: lies in no class folder" in out and "broken.mp4: cannot be opened" in out
    tested = []
    for split in (1, 2, 3):
        train, test = (
            read_list(tmp_path / f"lists/split{split}_{part}.txt", own)
            for part in ("train", "test")
        )
        numbers = [
            {"0005" if "zz" in r.name else r.name.split("IMG_")[1][:4] for r in part}
            for part in (train, test)
        ]
        assert not numbers[0] & numbers[1]
        assert {r.class_name for r in test} == {r.class_name for r in train} == {"jump", "my run"}
        tested += [record.name for record in test]
    assert len(tested) == len(set(tested)) == 19


def test_folders_groups_of_a_file(own, tmp_path, capsys):
    names = [path.relative_to(own).as_posix() for path in own.glob("*/*.mp4")]
    (tmp_path / "g.csv").write_text("".join(f"{n};day{i % 4}\n" for i, n in enumerate(names)))
    result, _ = run(capsys, "folders", own, tmp_path / "l", "--group-csv", tmp_path / "g.csv")
    assert result["groups"] <= 4
    (tmp_path / "g.csv").write_text("jump/IMG_0000.mp4,day1\n")
    with pytest.raises(SystemExit):
        run(capsys, "folders", own, tmp_path / "l", "--group-csv", tmp_path / "g.csv")
    assert "lacks 18 videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    "rows, message",
    [
        ("A/x.mp4,day1\nA/y.mp4,day1\nA/x.mp4,day2\n", "row 3 says that A/x.mp4 is of 'day2'"),
        ("A/x.mp4;day1\n\nA\\y.avi;day1\nA/y;day2\n", "row 4 says that A/y is of 'day2'"),
        ("A/x.mp4,\nA/y.mp4,day1\n", "row 1 lacks a column"),
        ("A/x.mp4,day1\nA/y.mp4\n", "row 2 lacks a column"),
        ("A/x.mp4,day1\n,day1\nA/y.mp4,day1\n", "row 2 lacks a column"),
    ],
)
def test_recordings_of_a_file_that_contradict(tmp_path, rows, message):
    clips = [folders.ClassVideo(f"A/{name}.mp4", "", "A", 1.0) for name in "xy"]
    (tmp_path / "g.csv").write_text(rows)
    with pytest.raises(ListError, match="g.csv: ") as caught:
        folders.groups_by_csv(clips, tmp_path / "g.csv")
    assert message in str(caught.value)
    (tmp_path / "g.csv").write_text("video,recording\nA/x.mp4,d\n,\nA/y.mp4,e\nA/x,d\n")
    assert folders.groups_by_csv(clips, tmp_path / "g.csv") == {"A/x.mp4": "d", "A/y.mp4": "e"}

    (tmp_path / "g.csv").write_text('A/x.mp4,d\n"A/y.mp4,e\n')
    with pytest.raises(ListError, match="g.csv: row 2 is no row of a CSV file"):
        folders.groups_by_csv(clips, tmp_path / "g.csv")


@pytest.mark.parametrize("regex", ["(day.)", "(.*day.)", "(day.)_jump|(.*day.)"])
def test_recordings_are_kept_beside_lists_and_held_out_whole(tmp_path, capsys, regex):
    """Of one class, with days that several classes share, and with both."""
    for n, name in enumerate(
        f"{c}_day{d}_{k}" for c in ("jump", "run") for d in range(6) for k in range(4)
    ):
        path = tmp_path / "clips" / name.split("_")[0] / f"{name}, no. {n}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % n)
    clips = [
        folders.ClassVideo(p.relative_to(tmp_path / "clips").as_posix(), str(p), p.parent.name, 1.0)
        for p in sorted(tmp_path.glob("clips/*/*"))
    ]
    groups = folders.groups_by_regex(clips, regex)
    for part, entries in folders.make_splits(clips, groups, 0.25, None, 0).items():
        write_lists({tmp_path / f"{part}.txt": entries})
    write_recordings(tmp_path, groups)
    records = read_list(tmp_path / "split1_train.txt", tmp_path / "clips")
    assert {r.recording for r in records} == {r.group for r in records}
    for seed in range(4):
        train, heldout = split_heldout(records, 0.2, seed)
        sides = [{groups[f"{r.name}.avi"] for r in side} for side in (train, heldout)]
        assert not sides[0] & sides[1]
        assert all({r.class_name for r in side} == {"jump", "run"} for side in (train, heldout))
    (tmp_path / "recordings.csv").write_text("jump/x.avi\n")
    with pytest.raises(ListError, match="recordings.csv: row 1 lacks a column"):
        read_list(tmp_path / "split1_train.txt", tmp_path / "clips")


def test_recordings_of_another_folder_stay_in_the_file(tmp_path):
    write_recordings(tmp_path, {"A/x.mp4": "1", "A/a,b.mp4": "2"})
    write_recordings(tmp_path, {"A/x.avi": "3", "B/y.mp4": "4"})
    found = read_recordings(tmp_path / "recordings.csv")
    assert found == {"path": "recording", "A/x": "3", "A/a,b": "2", "B/y": "4"}


def two_days(folder, classes=("Jump", "My run"), days=6):
    """Clips of days that both classes share, two of each, and their list."""
    rows = []
    for label, name in enumerate(classes):
        for clip in (f"d{day}_{part}" for day in range(days) for part in "ab"):
            (folder / "clips" / name).mkdir(parents=True, exist_ok=True)
            (folder / "clips" / name / f"{clip}.mp4").write_text(f"{name}/{clip}")
            rows.append(f"{name}/{clip}.mp4\t{name}\t{label}\n")
    (folder / "train.txt").write_text("".join(rows))
    return [row.split("\t")[0] for row in rows]


@pytest.mark.parametrize(
    "spell",
    [
        str.lower,
        "./{}".format,
        "{}".format,
        lambda name: name.replace("/", "\\"),
        lambda name: name.replace("/", "/x/..//"),
        lambda name: name.replace(" ", "_").replace(".mp4", ".AVI"),
        lambda name: f"{{root}}/{name}",
    ],
)
def test_recordings_are_found_as_videos_are(tmp_path, recwarn, spell):
    names = two_days(tmp_path)
    root = tmp_path / "clips"
    rows = [
        f"{spell(name)},{name.split('/')[1][:2]}\n".replace("{root}", str(root)) for name in names
    ]
    (tmp_path / "recordings.csv").write_text("video,recording\n" + "".join(rows))
    records = read_list(tmp_path / "train.txt", root)
    assert [r.recording for r in records] == [name.split("/")[1][:2] for name in names]
    clips = [folders.ClassVideo(name, "", name.split("/")[0], 1.0) for name in names]
    found = folders.groups_by_csv(clips, tmp_path / "recordings.csv", root)
    assert list(found.values()) == [record.recording for record in records]
    assert not recwarn.list


def test_recordings_that_are_not_named_are_counted(tmp_path):
    names = two_days(tmp_path)
    for rows, count in (([f"{n.split('/')[1]},d\n" for n in names], 0), ([f"{names[3]},d\n"], 1)):
        (tmp_path / "recordings.csv").write_text("".join(rows))
        with pytest.warns(UserWarning, match=f"recordings.csv names {count} of the 24 videos"):
            read_list(tmp_path / "train.txt", tmp_path / "clips")


def test_a_name_that_is_alike_takes_no_recording_of_another(tmp_path):
    for name in ("a b", "a_b"):
        (tmp_path / "A").mkdir(exist_ok=True)
        (tmp_path / "A" / f"{name}.mp4").write_text(name)
    (tmp_path / "recordings.csv").write_text("A/a b,1\nA/a_b,2\n")
    listed = write(tmp_path, "A/a_b.mp4 A 0\nA/a b.mp4 A 0\n")
    assert [r.recording for r in read_list(listed, tmp_path)] == ["2", "1"]
    (tmp_path / "recordings.csv").write_text("A/A b,1\nA/A_b,2\n")
    with pytest.raises(
        ListError, match=r"list.txt:1: .*recordings.csv: A/a_b may be of '1' or '2'"
    ):
        read_list(listed, tmp_path)


@pytest.mark.parametrize("beside", ["/home/me/frames/{}", "{}", "clips/{}.avi"])
def test_convert_keeps_recordings(tmp_path, capsys, beside):
    names = two_days(tmp_path)
    stems = [name[: -len(".mp4")] for name in names]
    text = "".join(f"{beside.format(s)}\t{s.split('/')[0]}\t0\n" for s in stems[:12])
    (tmp_path / "old").mkdir()
    listed = write(tmp_path / "old", text)
    rows = [f"{beside.format(s)},{s.split('/')[1][:2]}\n" for s in stems]
    (tmp_path / "old/recordings.csv").write_text("".join(rows))
    out = tmp_path / "new/list.txt"
    run(capsys, "convert", listed, out, "--data-root", tmp_path / "clips")
    records = read_list(out, tmp_path / "clips")
    assert [r.recording for r in records] == [s.split("/")[1][:2] for s in stems[:12]]
    assert len(read_recordings(tmp_path / "new/recordings.csv")) == 13  # with its header


def test_copies_in_several_classes_are_held_out_together(tmp_path, capsys):
    names = two_days(tmp_path)
    first, second = (n for n in names if n.endswith("d0_a.mp4"))
    shutil.copy(tmp_path / "clips" / first, tmp_path / "clips" / second)
    records = read_list(tmp_path / "train.txt", tmp_path / "clips")
    copies = [[n[: -len(".mp4")] for n in (first, second)]]
    for seed in range(12):
        for part in split_heldout(records, 0.3, seed, copies):
            assert len({record.name for record in part}.intersection(*copies)) in (0, 2)
            assert {record.class_name for record in part} == {"Jump", "My run"}
        root = tmp_path / "clips"
        args = (tmp_path / "train.txt", tmp_path, "--data-root", root, "--seed", seed)
        run(capsys, "pools", *args)
        for number in (1, 2):
            pool = {record.name for record in read_list(tmp_path / f"train_pool{number}.txt", root)}
            assert len(pool.intersection(*copies)) in (0, 2)


def test_one_stated_recording_leaves_the_groups_of_other_names(tmp_path):
    """Of UCF-101, of films that several classes share, and of copies across classes."""
    names = [f"{c}/v_{c}_g{g:02}_c{k:02}" for c in ("A", "B") for g in range(8) for k in range(3)]
    film = "{0}/Film{1}_{0}_f_cm_np1_fr_goo_{2}"
    names += [film.format(c, f, k) for c in ("A", "B") for f in range(4) for k in range(2)]
    records = [Record(n, "", n[0], "AB".index(n[0]), group_of(n)) for n in names]
    records += [Record(f"{c}/extra", "", c, "AB".index(c), "day", "day") for c in ("A", "B")]
    copies = [[names[0], names[-1]]]
    for seed in range(12):
        sides = split_heldout(records, 0.3, seed, copies)
        for key in (
            lambda r: r.recording,
            lambda r: (r.class_name, r.group),
            lambda r: film_of(r.name),
        ):
            first, second = ({key(r) for r in side} - {None} for side in sides)
            assert not first & second


@pytest.mark.parametrize(
    "stems, groups",
    [
        (("clip 1", "clip 2", "clip 1 (1)"), ("clip 1", "clip 2", "clip 1")),
        (("(3)", "copy", "_part2", "trim"), ("(3)", "copy", "_part2", "trim")),
        (("a (1)", "a_part2", "A"), ("a", "a", "a")),
    ],
)
def test_a_name_that_is_only_an_ending_is_a_name(tmp_path, stems, groups):
    clips = [folders.ClassVideo(f"A/{stem}.mp4", "", "A", 1.0) for stem in stems]
    found = folders.groups_by_name(clips)
    assert tuple(found.values()) == groups
    write_recordings(tmp_path, found)
    assert len(read_recordings(tmp_path / "recordings.csv")) == len(stems) + 1


@pytest.mark.parametrize("pattern", [r"take_(\d*)", r"x?$", r"(?:take_)( ?)", r"(day)_"])
def test_a_regular_expression_that_matches_nothing_is_refused(pattern):
    clips = [folders.ClassVideo(f"A/take_{part}.mp4", "", "A", 1.0) for part in "1yz"]
    with pytest.raises(ListError, match=r"matches nothing in \d names, first A/take_"):
        folders.groups_by_regex(clips, pattern)
    found = folders.groups_by_regex(clips, r"take_(\d)|(.)$|nowhere")
    assert list(found.values()) == ["1", "y", "z"]


def test_recordings_are_refused_as_their_reader_does(tmp_path):
    write_recordings(tmp_path, {"A/IMG_1.MOV.mp4": "day1", "A/b": "day2"})
    before = (tmp_path / "recordings.csv").read_bytes()
    for empty in ("", " "):
        with pytest.raises(ListError, match="2 videos have an empty recording, first B/x.mp4"):
            write_recordings(tmp_path, {"B/x.mp4": empty, "B/y.mp4": empty, "B/z.mp4": "1"})
    assert (tmp_path / "recordings.csv").read_bytes() == before


def test_recordings_stay_as_they_are_written(tmp_path):
    (tmp_path / "recordings.csv").write_text("path,recording\nA\\IMG_1.MOV.mp4,1\n./A/b.c.avi,2\n")
    for number in range(3):
        write_recordings(tmp_path, {f"B/{number}.mp4": "3"})
    found = read_recordings(tmp_path / "recordings.csv")
    assert found["A/IMG_1.MOV"] == "1" and found["A/b.c"] == "2" and len(found) == 6
    write_recordings(tmp_path, {"A/IMG_1.MOV.mov": "9"})
    assert read_recordings(tmp_path / "recordings.csv")["A/IMG_1.MOV"] == "9"


@pytest.mark.parametrize("sizes", [(5, 1, 1), (9, 1, 1, 1), (1, 1, 1), (3, 3, 1), (4, 4)])
def test_training_keeps_two_recordings_of_a_class_if_it_has_three(sizes):
    names = [(f"A/{g}_{n}", str(g)) for g, size in enumerate(sizes) for n in range(size)]
    names += [(f"B/{n}", f"B{n}") for n in range(4)]
    clips = [folders.ClassVideo(name, "", name[0], 1.0) for name, _ in names]
    groups = dict(names)
    for seed in range(5):
        lists = folders.make_splits(clips, groups, 0.25, None, seed)
        found = {part: {groups[e.name] for e in own if e[1] == "A"} for part, own in lists.items()}
        assert len(found["split1_train"]) >= min(2, len(sizes) - 1) and found["split1_test"]
        lines = "\n".join(folders.class_table(clips, groups, lists))
        assert ("A has 1 group(s) in split1_train, which needs 2" in lines) == (len(sizes) == 2)


def test_small_classes_are_warned_of():
    clips = [folders.ClassVideo(f"A/{n}.mp4", "", "A", 60.0) for n in range(9)]
    clips.append(folders.ClassVideo("B/0.mp4", "", "B", 60.0))
    groups = {clip.name: clip.name for clip in clips}
    lines = folders.class_table(clips, groups, folders.make_splits(clips, groups, 0.3, None, 0))
    assert any("B has no group(s) in split1_test" in line for line in lines)
    assert any("A has 3 test clip(s)" in line for line in lines)


def test_lists_are_written_together_and_older_ones_are_named(own, tmp_path, capsys):
    good, bad = Entry("A/x.mp4", "A", 0), Entry('A/"x".mp4', "A", 0)
    with pytest.raises(ListError, match="a list cannot hold this name"):
        write_lists({tmp_path / "1.txt": [good], tmp_path / "2.txt": [good, bad]})
    assert not list(tmp_path.iterdir())
    run(capsys, "folders", own, tmp_path, "--group-names", "--folds", 3)
    _, out = run(capsys, "folders", own, tmp_path, "--group-names")
    older = [f"split{k}_{part}.txt" for k in (2, 3) for part in ("test", "train")]
    assert f"of other splits: {', '.join(older)}" in out
