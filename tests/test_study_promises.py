"""study.promises goes on where it was stopped."""

import csv

import pytest

from study import promises
from study.cascade import scores_name
from tests.calls import call, refused


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """The script without its computations; returns the words of a call for some splits."""
    (tmp_path / scores_name("ucf101")).touch()
    draw = {"recordings": 50, "drop": 1.0, "guarantee": 0.9, "refused": False}
    draw.update(broken=False, broken_clips=False, saved=0.5)
    wise = {"wise": "constant", "point": "flow", "top1_pct": 90.0, "cross_entropy": 0.5}
    wise["calibration_error_pct"] = 5.0
    for name, value in {
        "cascade_gmacs": lambda: None,
        "load_population": lambda *where: where,
        "promised": lambda *how: [draw] * 4,
        "best_saved": lambda *how: {1.0: 0.6},
        "wise_rows": lambda population: [wise],
        "draw_promises": lambda *how: [],
    }.items():
        monkeypatch.setattr(promises, name, value)
    common = [tmp_path, "--data", "ucf101", "--methods", "max", "--out", tmp_path / "out"]
    return lambda *splits: [*common, "--splits", *splits]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_splits_are_added_to_both_tables(quick, tmp_path):
    tables = [tmp_path / "out" / name for name in ("draws.csv", "wise.csv")]
    call(promises, *quick(1))
    before = [table.read_text() for table in tables]
    call(promises, *quick(1, 3))
    for table, text in zip(tables, before):
        assert [row["split"] for row in read(table)] == ["1", "3"]
        assert table.read_text().startswith(text)
    assert list(read(tables[0])[0]) == promises.DRAWN_COLUMNS
    assert list(read(tables[1])[0]) == promises.WISE_COLUMNS
    tables[1].unlink()
    call(promises, *quick(3))
    assert [row["split"] for row in read(tables[1])] == ["3"]


@pytest.mark.parametrize("name", ["draws.csv", "wise.csv"])
def test_a_damaged_table_is_named(quick, tmp_path, capsys, name):
    call(promises, *quick(1))
    path = tmp_path / "out" / name
    whole = path.read_text()
    for text, words in {
        "": " is empty; remove it, and study.promises writes it again",
        whole[:-1].rpartition(",")[0] + "\n": ", line 2: ",
        "a,b\n": " is no file of study.promises (no column data): name another --out",
    }.items():
        path.write_text(text)
        assert f"{path}{words}" in refused(capsys, promises, *quick(1, 2))
        assert path.read_text() == text
