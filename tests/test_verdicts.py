"""study.verdicts: a difference is decided by its intervals on all data sets."""

import pandas as pd
import pytest

from study import compare, label_gain, verdicts
from tests.calls import call, refused

PAIR = {"first": "prog_kd/vanilla", "second": "ce_equal/vanilla", "protocol": "1 clip"}
PAIR.update({"resample": "backbone", "runs": 9, "std_over_splits_pct": 0.5, "confidence_pct": 95})


def write(path, data, intervals, columns=compare.COLUMNS, **changes):
    """Comparisons of `data` with the intervals (low, high) of their exits."""
    rows = [
        {**PAIR, "data": data, "exit": exit_, "difference_pct": (low + high) / 2, **changes}
        | {"low_pct": low, "high_pct": high}
        for exit_, (low, high) in intervals.items()
    ]
    pd.DataFrame(rows).reindex(columns=columns).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    "ours, theirs, verdict",
    [
        ((1, 3), (0.1, 4), "decided"),
        ((-3, -1), (-2, -0.1), "decided"),
        ((1, 3), (-3, -1), "not decided"),  # each leaves out 0, with another sign
        ((1, 3), (0, 2), "not decided"),
        ((1, 3), (-0.1, 2), "not decided"),
        ((0, 0), (0, 0), "equal"),
        ((0, 0), (-1, 1), "not decided"),
    ],
)
def test_the_rule(tmp_path, ours, theirs, verdict):
    first = write(tmp_path / "a.csv", "a", {"exit1": ours})
    second = write(tmp_path / "b.csv", "b", {"exit1": theirs})
    call(verdicts, first, second, "--out", tmp_path / "out.csv")
    rows = pd.read_csv(tmp_path / "out.csv").set_index("data")
    assert list(rows["verdict"]) == [verdict] * 2
    assert rows.loc["a", "half_width_pct"] == (ours[1] - ours[0]) / 2
    assert list(rows["backbones"]) == [9, 9] and list(rows["std_over_splits_pct"]) == [0.5] * 2


def test_the_table_has_a_line_for_each_exit_and_says_of_how_many_backbones(tmp_path, capsys):
    same = {"exit0": (0, 0)}
    first = write(tmp_path / "a.csv", "a", {**same, "exit1": (1, 3), "full": (-2, 3)})
    second = write(tmp_path / "b.csv", "b", {**same, "full": (-1, 5), "exit1": (2, 5)}, runs=6)
    call(verdicts, first, second, "--out", tmp_path / "out.md")
    lines = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in (tmp_path / "out.md").read_text().splitlines()
    ]
    name = "prog_kd/vanilla - ce_equal/vanilla"
    assert lines[0][2:] == ["a", "b", "n", "verdict", "could have seen"]
    intervals = "+2.0 [1.0, 3.0]", "+3.5 [2.0, 5.0]"
    assert lines[2] == [name, "exit1", *intervals, "9, 6", "decided", "1.0, 1.5"]
    assert lines[3][1:3] == ["full", "+0.5 [-2.0, 3.0]"]
    assert lines[3][4:] == ["9, 6", "not decided", "2.5, 3.0"]
    assert '"decided": 1' in capsys.readouterr().out


def test_other_intervals_than_of_95_pct_are_refused(tmp_path, capsys):
    first = write(tmp_path / "a.csv", "a", {"exit1": (1, 3)}, confidence_pct=50)
    second = write(tmp_path / "b.csv", "b", {"exit1": (1, 4)})
    message = refused(capsys, verdicts, first, second, "--out", tmp_path / "out.csv")
    assert f"{first} has other intervals than of 95 %" in message


def test_one_split_has_no_deviation_over_splits(tmp_path):
    none = {"std_over_splits_pct": None}
    first = write(tmp_path / "a.csv", "a", {"exit1": (1, 3)}, **none)
    second = write(tmp_path / "b.csv", "b", {"exit1": (1, 4)}, **none)
    call(verdicts, first, second, "--out", tmp_path / "out.csv")
    rows = pd.read_csv(tmp_path / "out.csv")
    assert list(rows["verdict"]) == ["decided"] * 2 and rows["std_over_splits_pct"].isna().all()


def test_gains_over_labels_are_judged_alike(tmp_path):
    about = {"teacher": "fused", "per_class": "2", "wrong_pct": 0, "unlabelled": 1}
    about.update({"top1_pct": 60, "labels_top1_pct": 50, "backbones": 9, "command": "python"})
    parts = [
        pd.read_csv(write(tmp_path / name, name, {"": (1, 3)}, label_gain.COLUMNS, **about))
        for name in ("a", "b")
    ]
    pd.concat(parts).to_csv(tmp_path / "gains.csv", index=False)
    call(verdicts, "--gains", tmp_path / "gains.csv", "--out", tmp_path / "out.csv")
    rows = pd.read_csv(tmp_path / "out.csv")
    assert set(rows["comparison"]) == {"fused - labels, 2 a class, unlabelled videos beside"}
    assert set(rows["exit"]) == {"mean"} and set(rows["verdict"]) == {"decided"}


def test_means_over_classes_are_a_comparison_of_their_own(tmp_path):
    by_class = {"protocol": "1 clip, mean over classes"}
    files = [
        write(tmp_path / f"{data}{number}.csv", data, {"exit1": (1, 3)}, **changes)
        for data in "ab"
        for number, changes in enumerate(({}, by_class))
    ]
    call(verdicts, *files, "--out", tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["comparison"].nunique() == 2


def test_what_cannot_be_judged_is_refused(tmp_path, capsys):
    ours = write(tmp_path / "a.csv", "a", {"exit1": (1, 3)})
    theirs = write(tmp_path / "b.csv", "b", {"exit2": (1, 3)})
    videos = write(tmp_path / "v.csv", "b", {"exit1": (1, 3)}, resample="video")
    out = "--out", tmp_path / "out.csv"
    assert "all rows are of a" in refused(capsys, verdicts, ours, *out)
    assert "exit1 is not there for b" in refused(capsys, verdicts, ours, theirs, *out)
    assert "is there twice" in refused(capsys, verdicts, ours, ours, theirs, *out)
    assert "--resample backbone" in refused(capsys, verdicts, ours, videos, *out)
    assert "--gains" in refused(capsys, verdicts, *out)
    assert not (tmp_path / "out.csv").exists()
