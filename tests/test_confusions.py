"""study.confusions: whether errors stay within one of two sets of classes."""

import csv

import numpy as np
import pytest

from study import confusions
from tests.calls import call, refused
from tests.synthetic_logits import make_logits_file

CLASSES = 6


def write_run(folder, mistaken_for, wrong=60, **meta):
    """A run whose streams call the first `wrong` test videos what `mistaken_for` says."""
    file = make_logits_file(classes=CLASSES, **meta)
    part = file.parts["test"]
    part.logits[:] = 0
    for row, label in enumerate(part.labels):
        said = mistaken_for(label, row) if row < wrong else label
        part.logits[:, row, :, said] = 1
    folder.mkdir()
    file.save(folder / "logits.pt")
    return folder


def table(path):
    with open(path, newline="") as file:
        return confusions.summary(list(csv.DictReader(file)))


def within(label, row):
    return label // 2 * 2 + 1 - label % 2  # its neighbour in the sets {0, 1}, {2, 3}, {4, 5}


def evenly(label, row):
    return (label + 1 + row // CLASSES % (CLASSES - 1)) % CLASSES


def test_errors_that_stay_in_their_set_are_told_from_even_ones(tmp_path, capsys):
    runs = [write_run(tmp_path / f"in{k}", within, split=f"split{k}") for k in (1, 2)]
    call(confusions, *runs, "--first", 2, "--out", tmp_path / "within.csv")
    found = table(tmp_path / "within.csv")
    assert list(found.index) == ["iframe", "mv", "residual", "full"]
    for _, row in found.iterrows():
        assert (row["errors"], row["backbones"]) == (120, 2)
        assert row["within_pct"] == 100
        # a third of the errors has 1 of 5 wrong classes in its set, the others 3 of 5
        assert row["even_pct"] == pytest.approx(100 * (1 / 5 + 2 * 3 / 5) / 3)
        assert row["low"] > 30
    call(
        confusions, write_run(tmp_path / "even", evenly), "--first", 2, "--out", tmp_path / "e.csv"
    )
    for _, row in table(tmp_path / "e.csv").iterrows():
        assert row["difference"] == pytest.approx(0, abs=1e-4)
        assert row["low"] < 0 < row["high"]
    assert "| mv" in capsys.readouterr().out


def test_the_sum_is_that_of_the_streams(tmp_path):
    """Two streams are right by 1, one errs by 3: so does the sum."""
    file = make_logits_file(classes=CLASSES)
    part = file.parts["test"]
    part.logits[:] = 0
    part.logits[:, np.arange(len(part.labels)), :, part.labels] = 1
    part.logits[:, 0, file.outputs.index("mv"), within(part.labels[0], 0)] = 4
    file.save(tmp_path / "logits.pt")
    rows = confusions.confusion_rows([tmp_path], 2)
    assert [(row["output"], row["errors"]) for row in rows] == [("mv", 1), ("full", 1)]


def test_files_stand_for_runs_that_are_gone(tmp_path, capsys):
    runs = [write_run(tmp_path / f"in{k}", evenly, split=f"split{k}") for k in (1, 2)]
    call(confusions, *runs, "--first", 2, "--out", tmp_path / "both.csv")
    call(confusions, runs[0], "--first", 2, "--out", tmp_path / "one.csv")
    call(confusions, tmp_path / "one.csv", runs[1], "--first", 2, "--out", tmp_path / "again.csv")
    assert table(tmp_path / "again.csv").equals(table(tmp_path / "both.csv"))
    capsys.readouterr()
    out = ["--out", tmp_path / "no.csv"]
    for inputs, message in (
        ([tmp_path / "both.csv", runs[0], "--first", 2], "toy split1  is there twice"),
        ([tmp_path / "one.csv", "--first", 3], "another --first than 3"),
        ([tmp_path / "none.csv", "--first", 2], "study.confusions writes it"),
    ):
        assert message in refused(capsys, confusions, *inputs, *out)


def test_bad_sets_and_runs_are_refused(tmp_path, capsys):
    run = write_run(tmp_path / "a", within)
    other = write_run(tmp_path / "b", within, data="others")
    out = ["--out", tmp_path / "c.csv"]
    for first in (1, 5, 99):
        message = refused(capsys, confusions, run, "--first", first, *out)
        assert f"--first {first}: toy has 6 classes" in message
    assert "toy and of others" in refused(capsys, confusions, run, other, "--first", 2, *out)
    assert "logits.pt" in refused(capsys, confusions, tmp_path, "--first", 2, *out)
    assert not (tmp_path / "c.csv").exists()
