"""List files, held-out splits, and lists made from official split files."""

import itertools
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dataset_team import official_lists
from dataset_team.groups import film_of, group_of
from dataset_team.heldout import split_heldout
from dataset_team.list_file import ListError
from dataset_team.records import Record, read_list, read_paths
from dataset_team.registry import class_names

REPO = Path(__file__).resolve().parent.parent


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def data_root(folder, *names):
    for name in names:
        write(folder / "data" / name)
    return folder / "data"


def errors_of(list_path, root, data_name=None):
    with pytest.raises(ListError) as caught:
        read_list(list_path, root, data_name)
    return str(caught.value)


def test_read_list(tmp_path):
    root = data_root(tmp_path, "Jump/v_Jump_g01_c01.mp4", "Run/v_Run_g25_c03.mp4")
    text = "# a comment\n\nJump/v_Jump_g01_c01.avi Jump 0\n  Run/v_Run_g25_c03 Run\t1  \n"
    assert read_list(write(tmp_path / "train.txt", text), root) == [
        Record("Jump/v_Jump_g01_c01", str(root / "Jump/v_Jump_g01_c01.mp4"), "Jump", 0, "g01"),
        Record("Run/v_Run_g25_c03", str(root / "Run/v_Run_g25_c03.mp4"), "Run", 1, "g25"),
    ]


def test_the_reencoded_file_comes_first(tmp_path):
    root = data_root(tmp_path, "A/x.avi", "A/x.mp4", "A/y.avi", "A/x.json")
    records = read_list(write(tmp_path / "l.txt", "A/x.avi A 0\nA/y.mp4 A 0\n"), root)
    assert [Path(record.path).name for record in records] == ["x.mp4", "y.avi"]


def test_an_extension_within_a_name_is_part_of_it(tmp_path):
    """As a converter writes x.mov.mp4; the same in every list that is made and read."""
    names = ["a.mp4", "a.mov.mp4", "IMG.MOV.mp4", "b.avi"]
    root = data_root(tmp_path, *(f"{c}/{name}" for c in "AB" for name in names))
    for number, path in enumerate(sorted(root.glob("*/*"))):
        path.write_bytes(b"%d" % number)

    def found(list_path):
        return [Path(r.path).relative_to(root).as_posix() for r in read_list(list_path, root)]

    text = "".join(f"A/{name} A 0\n" for name in names)
    own = write(tmp_path / "own.txt", text)
    assert found(own) == [f"A/{name}" for name in names]
    assert read_paths(own, root) == [root / "A" / name for name in names]
    assert "no video A/b.mov.*" in errors_of(write(tmp_path / "l.txt", "A/b.mov.mp4 A 0\n"), root)
    make_lists("convert", own, tmp_path / "converted.txt", "--data-root", root)
    assert found(tmp_path / "converted.txt") == found(own)
    make_lists("pools", own, tmp_path, "--data-root", root)
    pools = [found(tmp_path / f"own_pool{number}.txt") for number in (1, 2)]
    assert sorted(pools[0] + pools[1]) == sorted(found(own)) and all(pools)


def test_names_of_hmdb51(tmp_path):
    """Its names hold #, &, ( and ;, dots too: only a line that starts with # is a comment."""
    stems = [
        "#122_Cleaning_#8_catch_u_nm_np1_fr_med_0",
        "50_FIRST_DATES_(2004)_kick_f_cm_np1_ba_med_1",
        "Tom_&_Jerry;_part.2_jump_f_nm_np1_le_bad_3",
    ]
    root = data_root(tmp_path, *(f"catch/{stem}.avi" for stem in stems))
    text = "".join(f"catch/{stem}.avi catch 0\n" for stem in stems)
    records = read_list(write(tmp_path / "l.txt", text), root)
    assert [record.name for record in records] == [f"catch/{stem}" for stem in stems]


def test_class_names_with_blanks(tmp_path):
    root = data_root(
        tmp_path, "air drumming/a_1.mp4", "air drumming/b 2.mp4", "train/air bag/c.mp4"
    )
    text = (
        "air drumming/a_1.mp4 air drumming 0\n"
        "air drumming/b 2.mp4 air drumming 0\n"
        "train/air bag/c.mp4 air bag 1\n"
    )
    records = read_list(write(tmp_path / "l.txt", text), root)
    assert [record.class_name for record in records] == ["air drumming", "air drumming", "air bag"]
    assert [record.name for record in records][1:] == ["air drumming/b 2", "train/air bag/c"]


@pytest.mark.parametrize(
    "on_disk, listed",
    [
        ("HandstandPushups/v_HandStandPushups_g01_c01.avi", "HandStandPushups"),
        ("HandStandPushups/v_HandStandPushups_g01_c01.avi", "HandstandPushups"),
    ],
)
def test_letter_case_may_differ(tmp_path, on_disk, listed):
    root = data_root(tmp_path, on_disk)
    line = f"{listed}/v_{listed}_g01_c01.avi {listed} 36\n"
    (record,) = read_list(write(tmp_path / "l.txt", line), root)
    assert Path(record.path) == root / on_disk
    assert record.name == f"{listed}/v_{listed}_g01_c01"


def test_an_exact_name_goes_before_a_similar_one(tmp_path):
    root = data_root(tmp_path, "A/abC.mp4", "A/abc.mp4")
    records = read_list(write(tmp_path / "l.txt", "A/abc.mp4 A 0\nA/abC.mp4 A 0\n"), root)
    assert [Path(record.path).name for record in records] == ["abc.mp4", "abC.mp4"]


@pytest.mark.parametrize(
    "line, message",
    [
        ("A/a.avi A", "expected 'Class/video.avi ClassName label', found 'A/a.avi A'"),
        ("A/a.avi A 0 0", "expected 'Class/video.avi"),
        ("A/a.avi A zero", "the label must be a number from 0 on, found 'zero'"),
        ("A/a.avi A -1", "the label must be a number"),
        ("A/a.avi A 101", "label 101 is outside 0..100"),
        ("A/missing.avi A 0", "no video A/missing.* under"),
        ("Nowhere/b.avi Nowhere 3", "no video Nowhere/b.* under"),
        ("A/x.mp4 A 0", "A/x is listed twice, first in line 2"),
        ("A/a.avi A 1", "'A' with label 0"),
        ("B/b.avi B 0", "label 0 for 'A'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    root = data_root(tmp_path, "A/x.mp4", "A/a.mp4", "B/b.mp4")
    list_path = write(tmp_path / "train.txt", f"# header\nA/x.avi A 0\n\n{line}\n")
    found = errors_of(list_path, root, "ucf101")
    assert found.startswith(f"{list_path}:4: ") and message in found


def test_all_bad_lines_are_named_together(tmp_path):
    root = data_root(tmp_path, "A/x.mp4")
    lines = "".join(f"A/{i}.avi A 0\n" for i in range(13))
    found = errors_of(write(tmp_path / "l.txt", lines), root).splitlines()
    assert len(found) == 11 and found[0].count(":1:") == 1 and found[-1] == "... and 3 more"


def test_unusable_lists(tmp_path):
    root = data_root(tmp_path, "A/x.mp4")
    assert "no videos" in errors_of(write(tmp_path / "l.txt", "# nothing\n"), root)
    assert "no such folder" in errors_of(tmp_path / "l.txt", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere.txt"):
        read_list(tmp_path / "nowhere.txt", root)


def test_groups():
    assert group_of("Jump/v_Jump_g07_c02") == "g07"
    assert group_of("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0") == "April_09_brush_hair"
    assert group_of("air drumming/aBc_g_000012_000022") is None


def records_of(num_classes, num_groups, videos_per_group, with_groups=True):
    return [
        Record(f"C{c}/v_C{c}_g{g:02}_c{v:02}", "", f"C{c}", c, f"g{g:02}" if with_groups else None)
        for c in range(num_classes)
        for g in range(num_groups)
        for v in range(videos_per_group)
    ]


@pytest.mark.parametrize("with_groups", [True, False])
@pytest.mark.parametrize("fraction", [0.01, 0.15, 0.5, 0.99])
def test_heldout(with_groups, fraction):
    records = records_of(5, 18, 4, with_groups)
    train, heldout = split_heldout(records, fraction, seed=3)
    key = (lambda r: (r.class_name, r.group)) if with_groups else (lambda r: r.name)
    assert {key(record) for record in train}.isdisjoint(map(key, heldout))
    assert sorted(train + heldout) == sorted(records)
    assert train == [record for record in records if record in train]  # list order
    for part in (train, heldout):
        assert {record.class_name for record in part} == {f"C{c}" for c in range(5)}
    wanted, unit = fraction * 18 * 4, 4 if with_groups else 1
    for count in Counter(record.class_name for record in heldout).values():
        assert abs(count - min(max(wanted, unit), 72 - unit)) <= unit / 2 + 1e-9
    shuffled = random.Random(0).sample(records, len(records))
    assert set(split_heldout(shuffled, fraction, seed=3)[1]) == set(heldout)
    assert fraction == 0.99 or split_heldout(records, fraction, seed=4)[1] != heldout


def test_heldout_of_uneven_groups_leaves_something_to_train():
    sizes = [20, 1, 1]
    records = [Record(f"A/{g}_{v}", "", "A", 0, str(g)) for g in range(3) for v in range(sizes[g])]
    for seed in range(20):
        train, heldout = split_heldout(records, 0.15, seed)
        assert {record.group for record in heldout} <= {"1", "2"} and len(heldout) >= 1
        assert {record.group for record in train} >= {"0"}


def of_film(class_name, film, number):
    name = f"{class_name}/{film}_{class_name}_f_cm_np1_fr_goo_{number}"
    return Record(name, "", class_name, 0, group_of(name))


def test_films_of_several_classes_are_never_held_out():
    records = [of_film(c, f"Film_{c}", n) for c in ("sit", "walk") for n in range(3)]
    records += [of_film(c, "Film", n) for c in ("sit", "walk") for n in range(3)]
    records += [of_film("sit", "film_sit", 0), of_film("walk", "other", 0)]
    for seed, fraction in itertools.product(range(5), (0.1, 0.9)):
        train, heldout = split_heldout(records, fraction, seed)
        assert {film_of(record.name) for record in train}.isdisjoint(
            film_of(record.name) for record in heldout
        )
        assert {record.class_name for record in heldout} == {"sit", "walk"}
    with pytest.raises(ListError, match="'sit' has only groups with clips of other classes"):
        split_heldout([of_film(c, f"F{n}", n) for c in ("sit", "walk") for n in range(3)])


def test_films_are_the_groups_of_j_hmdb(shared):
    films, numbers = {}, {}
    for line in (shared / "videos/jhmdb_21/jhmdb_21_groups.txt").read_text().splitlines():
        name, number = line.split()
        film = film_of(name[: -len(".mp4")])
        assert films.setdefault(number, film) == film and numbers.setdefault(film, number) == number
    assert len(films) == 336


def test_heldout_errors():
    with pytest.raises(ListError, match="'C0' has one group only"):
        split_heldout(records_of(1, 1, 5))
    for fraction in (0, 1, -0.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split_heldout(records_of(1, 2, 2), fraction)


def test_class_names():
    records = [Record("", "", "A", 0, None), Record("", "", "C", 2, None)]
    assert class_names("mine", records, num_classes=3) == ["A", "1", "C"]
    assert len(class_names("ucf101", records)) == 101


def make_lists(*args):
    command = [sys.executable, "-m", "dataset_team.lists", *map(str, args)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True)


def ucf_splits(folder):
    write(folder / "classInd.txt", "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n")
    for split in (1, 2, 3):
        train = "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
        test = "HandStandPushups/v_HandStandPushups_g01_c01.avi\r\n"
        write(folder / f"trainlist0{split}.txt", train)
        write(folder / f"testlist0{split}.txt", test)
    return folder


def test_ucf101_lists(tmp_path):
    done = make_lists("ucf101", ucf_splits(tmp_path / "splits"), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    names = {f"ucf101_split{k}_{part}.txt" for k in (1, 2, 3) for part in ("train", "test")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert (tmp_path / "out/ucf101_split1_train.txt").read_text() == (
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi ApplyEyeMakeup 0\n"
    )
    test_list = tmp_path / "out/ucf101_split3_test.txt"
    assert test_list.read_text() == (
        "HandStandPushups/v_HandStandPushups_g01_c01.avi HandstandPushups 1\n"
    )
    root = data_root(tmp_path, "HandstandPushups/v_HandStandPushups_g01_c01.mp4")
    assert [record.label for record in read_list(test_list, root, "ucf101")] == [1]
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("result: "))
    assert result[str(test_list)] == {"videos": 1, "missing": 0}


def test_ucf101_label_that_disagrees(tmp_path):
    splits = ucf_splits(tmp_path / "splits")
    write(splits / "trainlist02.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 2\n")
    done = make_lists("ucf101", splits, tmp_path / "out")
    assert done.returncode == 1 and "trainlist02.txt:1:" in done.stderr
    assert "classInd.txt" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["classInd.txt", "testlist03.txt"])
def test_split_files_of_another_encoding(tmp_path, name):
    splits = ucf_splits(tmp_path / "splits")
    (splits / name).write_bytes(b"1 ApplyEyeMakeup\n2 Caf\xe9\n")
    done = make_lists("ucf101", splits, tmp_path / "out")
    assert done.returncode == 1 and f"{name}:2: is not UTF-8 text (byte 0xe9)" in done.stderr
    kinetics = tmp_path / "kinetics"
    head = "label,youtube_id,time_start,time_end,split\n"
    write(kinetics / "train.csv", head)
    (kinetics / "val.csv").write_bytes(head.encode() + b"caf\xe9,id,0,10,val\n")
    done = make_lists("kinetic400", kinetics, tmp_path / "out")
    assert done.returncode == 1 and "val.csv:2: is not UTF-8 text" in done.stderr


def test_pools_of_one_recording_name_the_list(tmp_path):
    root = data_root(tmp_path, "A/v_A_g01_c01.avi", "A/v_A_g01_c02.avi")
    listed = write(tmp_path / "l.txt", "A/v_A_g01_c01 A 0\nA/v_A_g01_c02 A 0\n")
    done = make_lists("pools", listed, tmp_path / "out", "--data-root", root)
    assert done.returncode == 2 and f"{listed}: class 'A' has one group only" in done.stderr
    assert "--select-on" not in done.stderr


def test_hmdb51_lists(tmp_path):
    splits = tmp_path / "testTrainMulti_7030_splits"
    film = "#20_Rhythm_clap_u_nm_np1_fr_goo"
    for split in (1, 2, 3):
        lines = f"{film}_0.avi 1 \n{film}_1.avi 2 \n{film}_2.avi 0 \n"
        write(splits / f"clap_test_split{split}.txt", lines)
        write(splits / f"brush_hair_test_split{split}.txt", "Tom_&_(x;y).avi 1 \n")
    done = make_lists("hmdb51", splits, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/hmdb51_split2_train.txt").read_text() == (
        f"brush_hair/Tom_&_(x;y).avi brush_hair 0\nclap/{film}_0.avi clap 1\n"
    )
    assert (tmp_path / "out/hmdb51_split2_test.txt").read_text() == f"clap/{film}_1.avi clap 1\n"
    (splits / "clap_test_split2.txt").unlink()
    assert "clap_test_split2.txt: no such file" in make_lists("hmdb51", splits, "out").stderr


def test_kinetics_lists(tmp_path):
    header = "label,youtube_id,time_start,time_end,split\n"
    train = '"air drumming",-abc_DE,12,22,train\nzumba,Xyz#1,0,10,train\n'
    write(tmp_path / "splits/train.csv", header + train)
    write(tmp_path / "splits/validate.csv", header + "zumba,q1,100,110,validate\n")
    root = data_root(
        tmp_path, "air drumming/-abc_DE_000012_000022.mp4", "zumba/q1_000100_000110.avi"
    )
    args = ("kinetic400", tmp_path / "splits", tmp_path / "out")
    assert make_lists(*args).returncode == 0
    assert (tmp_path / "out/kinetic400_train.txt").read_text() == (
        "air_drumming/-abc_DE_000012_000022.mp4 air_drumming 0\n"
        "zumba/Xyz#1_000000_000010.mp4 zumba 1\n"
    )
    done = make_lists(*args, "--data-root", root)
    assert "kinetic400_train.txt: 1 videos, 1 missing" in done.stdout
    (record,) = read_list(tmp_path / "out/kinetic400_train.txt", root, "kinetic400")
    assert Path(record.path) == root / "air drumming/-abc_DE_000012_000022.mp4"
    (record,) = read_list(tmp_path / "out/kinetic400_test.txt", root, "kinetic400")
    assert (record.class_name, record.label) == ("zumba", 1)


def test_kinetics_with_other_columns(tmp_path):
    write(tmp_path / "splits/train.csv", "label,id\nzumba,q1\n")
    write(tmp_path / "splits/val.csv", "label,id\nzumba,q1\n")
    done = make_lists("kinetic400", tmp_path / "splits", tmp_path / "out")
    assert done.returncode == 1 and "train.csv:2: expected the columns label" in done.stderr


def test_official_lists_of_a_program_that_marks_utf8(tmp_path):
    texts = {"classInd": "1 A\n", "trainlist0{}": "A/x.avi 1\n", "testlist0{}": "A/y.avi\n"}
    for split in (1, 2, 3):
        for name, text in texts.items():
            (tmp_path / f"{name.format(split)}.txt").write_text(text, encoding="utf-8-sig")
    lists = official_lists.ucf101(tmp_path)
    assert lists["split2_train"] == [("A/x.avi", "A", 0)]
    assert lists["split3_test"] == [("A/y.avi", "A", 0)]
