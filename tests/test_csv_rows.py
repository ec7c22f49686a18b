"""Tables that are cut or damaged are refused by file and line, whichever script reads them."""

import shutil
from pathlib import Path

import pytest

from dataset_team.csv_rows import read_csv_text
from study import confusions, drops, frontier, label_gain, over_time, teacher_order
from study.run_tables import read_rows
from tests.calls import refused

RESULTS = Path(__file__).parents[1] / "results"
GOOD = b"name,top1_pct,note\na,50.5,x\nb,,\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", " is empty;"),
        (GOOD[:19], " has no rows;"),
        (GOOD[:-3], ", line 3: 1 cells in place of 3;"),
        (GOOD[:-2] + b"\n", ", line 3: 2 cells in place of 3;"),
        (GOOD[:-1], ", line 3: the line has no end;"),
        (GOOD + b"c,1,2,3\n", ", line 4: 4 cells in place of 3;"),
        (GOOD + b",1,2\n", ", line 4: name is empty;"),
        (GOOD.replace(b"50.5", b"half"), ", line 2: top1_pct is 'half', no number;"),
        (GOOD.replace(b"50.5", b"nan"), ", line 2: top1_pct is 'nan', no number;"),
        pytest.param(
            GOOD + b"c," + b"1" * 140_000 + b",\n",
            ", line 4: field larger than field limit (131072);",
            id="a long cell",
        ),
        (GOOD + b"caf\xe9,1,2\n", ":4: is not UTF-8 text (byte 0xe9);"),
    ],
)
def test_what_is_not_whole_is_refused_by_its_line(tmp_path, content, words):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_csv_text(path, "study.x", ["name"], ["top1_pct"])
    assert str(error.value) == f"{path}{words} study.x writes it again"


@pytest.mark.parametrize("cell", ["1.5", "-1", "1e3", "1" * 19, "²"])
def test_counts_are_whole_numbers(tmp_path, cell):
    path = tmp_path / "table.csv"
    path.write_text(f"name,number\na,7\nb,{cell}\nc,\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"line 3: number is '{cell}', no whole number; mend it"):
        read_csv_text(path, whole=["number"], remedy="mend it")


def test_rows_and_lines_of_a_whole_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(GOOD.replace(b"x\n", b'"two\nlines"\n\n'))
    found = read_csv_text(path, "study.x", ["name"], None, texts=["name", "note"])
    assert found.header == ["name", "top1_pct", "note"] and found.lines == [3, 5]
    assert found.rows[0] == {"name": "a", "top1_pct": "50.5", "note": "two\nlines"}


def test_another_file_is_left_out_as_an_input_and_never_written_over(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(GOOD)
    for columns, words in ((["name", "frames"], "no column frames"), (["name"], "other columns")):
        for is_input, remedy in (
            (True, "study.x writes such files; leave it out or make it again"),
            (False, "name another --out"),
        ):
            with pytest.raises(ValueError) as error:
                read_rows(path, columns, "study.x", is_input=is_input)
            assert str(error.value) == f"{path} is no file of study.x ({words}): {remedy}"
    path.write_text("name\n")
    assert read_rows(path, ["name"], "study.x") == []


def cut_cells(text):
    """The last row loses its last two cells."""
    return text.rstrip("\n").rsplit(",", 2)[0].encode() + b"\n"


DAMAGE = {
    "cut": (lambda text: text[: text.rstrip().rindex(",")].encode(), ", line "),
    "cells": (cut_cells, " cells in place of "),
    "empty": (lambda text: b"", " is empty;"),
    "header": (lambda text: text.splitlines(keepends=True)[0].encode(), " has no rows;"),
    "latin": (lambda text: text.encode() + b"\xe9", "is not UTF-8 text"),
}
STUDY, POOLS = RESULTS / "jhmdb_21/split1/backbone1", RESULTS / "few_labels/jhmdb_21"
READ = [
    (teacher_order, STUDY, "exits.csv"),
    (teacher_order, STUDY, "flatness.csv"),
    (teacher_order, STUDY, "points.csv"),
    (frontier, STUDY, "exits.csv"),
    (frontier, STUDY, "points.csv"),
    (frontier, STUDY, "probes.csv"),
    (drops, STUDY, "drops.csv"),
    (label_gain, POOLS / "split1/backbone1", "recordings.csv"),
]


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("script, source, name", READ, ids=str)
def test_scripts_refuse_a_damaged_table_and_write_nothing(
    script, source, name, how, tmp_path, capsys
):
    study = shutil.copytree(source, tmp_path / "study")
    change, words = DAMAGE[how]
    (study / name).write_bytes(change((study / name).read_text()))
    out = tmp_path / "out" / ("table.md" if script is drops else "table.csv")
    command = [study / name if script is drops else study, "--out", out]
    if script is frontier:
        command += ["--figures", tmp_path / "out"]
    message = refused(capsys, script, *command)
    assert f"{study / name}" in message and words in message and " writes it again" in message
    assert not out.parent.exists()


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_ways_are_refused_before_anything_is_written(how, tmp_path, capsys):
    change, words = DAMAGE[how]
    text = (RESULTS / "over_time/ways.csv").read_text()
    (tmp_path / "ways.csv").write_bytes(change(text))
    message = refused(capsys, over_time, tmp_path / "run", "--out", tmp_path)
    assert f"{tmp_path / 'ways.csv'}" in message and words in message
    assert f"python -m benchmarks.over_time --out {tmp_path / 'ways.csv'} writes it" in message
    assert [path.name for path in tmp_path.iterdir()] == ["ways.csv"]


def test_a_table_of_an_older_version_is_named(tmp_path, capsys):
    """Sums over splits, as study.confusions once wrote them."""
    old = tmp_path / "confusions.csv"
    header = "data,output,errors,within_pct,even_pct,difference,low,high,num_videos,backbones"
    old.write_text(f"{header}\nucf101_13,mv,188,66.2,46.3,19.9,6.2,32.8,813,3\n")
    message = refused(capsys, confusions, old, "--first", 7, "--out", tmp_path / "c.md")
    assert f"{old} is no file of study.confusions (no column split): study.confusions" in message
    assert "leave it out or make it again" in message
