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
        return {row["output"]: row for row in csv.DictReader(file)}


def within(label, row):
    return label // 2 * 2 + 1 - label % 2  # its neighbour in the sets {0, 1}, {2, 3}, {4, 5}


def evenly(label, row):
    return (label + 1 + row // CLASSES % (CLASSES - 1)) % CLASSES


def test_errors_that_stay_in_their_set_are_told_from_even_ones(tmp_path, capsys):
    runs = [write_run(tmp_path / f"in{k}", within, split=f"split{k}") for k in (1, 2)]
    call(confusions, *runs, "--first", 2, "--out", tmp_path / "within.csv")
    for row in table(tmp_path / "within.csv").values():
        assert (row["errors"], row["num_videos"], row["backbones"]) == ("120", "240", "2")
        assert float(row["within_pct"]) == 100
        # a third of the errors has 1 of 5 wrong classes in its set, the others 3 of 5
        assert float(row["even_pct"]) == pytest.approx(100 * (1 / 5 + 2 * 3 / 5) / 3)
        assert float(row["low"]) > 30
    call(
        confusions, write_run(tmp_path / "even", evenly), "--first", 2, "--out", tmp_path / "e.csv"
    )
    for row in table(tmp_path / "e.csv").values():
        assert float(row["difference"]) == pytest.approx(0, abs=1e-6)
        assert float(row["low"]) < 0 < float(row["high"])
    assert "| mv" in capsys.readouterr().out


def test_the_sum_is_that_of_the_streams(tmp_path):
    """Two streams are right by 1, one errs by 3: so does the sum."""
    file = make_logits_file(classes=CLASSES)
    part = file.parts["test"]
    part.logits[:] = 0
    part.logits[:, np.arange(len(part.labels)), :, part.labels] = 1
    part.logits[:, 0, file.outputs.index("mv"), within(part.labels[0], 0)] = 4
    rows = {row["output"]: row for row in confusions.confusion_rows([file], 2)}
    assert [rows[name]["errors"] for name in ("iframe", "mv", "residual", "full")] == [0, 1, 0, 1]


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
