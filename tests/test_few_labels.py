"""The study of exits with few or wrong labels: which clips, which labels, what is compared."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dataset_team import lists
from study import few_labels, label_gain
from study.few_labels import Case, all_cases, choose_clips, wrong_labels
from tests.calls import call, refused
from training.features import Features


def features(labels, first=0):
    rows = torch.arange(first, first + len(labels))
    squeezes = (rows[:, None].float(), rows[:, None].float() * 2)
    streams = torch.zeros(len(labels), 3, 4)
    names = [f"video{row}" for row in rows.tolist()]
    return Features(squeezes, streams, torch.tensor(labels), names)


LABELS = [0, 1, 2, 3] * 10 + [0] * 5


def test_so_many_clips_of_each_class_are_chosen_and_more_hold_fewer():
    labels = torch.tensor(LABELS)
    chosen = {number: choose_clips(labels, number, 7) for number in (1, 3, 12)}
    for number, rows in chosen.items():
        assert np.bincount(labels[rows]).tolist() == [number, *[min(number, 10)] * 3]
    assert set(chosen[1]) < set(chosen[3]) < set(chosen[12])
    assert choose_clips(labels, "all", 7).tolist() == list(range(45))
    assert set(choose_clips(labels, 1, 8)) != set(chosen[1])


def test_wrong_labels_are_so_many_other_and_all_of_them():
    train = features([1] * 300)
    for pct in (0, 20, 60):
        labels = wrong_labels(train, pct, 7)
        assert (labels != 1).sum() == 3 * pct
        assert set(labels.tolist()) == ({1} if pct == 0 else {0, 1, 2, 3})
    assert train.labels.tolist() == [1] * 300


@pytest.mark.parametrize("case", list(all_cases([1, 4], [20])), ids=lambda case: str(case.key))
def test_every_case_has_as_many_clips_as_both_lists(case):
    train, unlabelled = features(LABELS), features([-1] * 30, first=45)
    seen = case.features(train, unlabelled, 7)
    assert len(seen.labels) == len(seen.names) == len(seen.streams) == 75
    once = set(seen.names)
    labelled = {name for name in once if int(name[5:]) < 45}
    assert len(once - labelled) == (30 if case.unlabelled else 0)
    assert len(labelled) == (45 if case.per_class == "all" else 4 * case.per_class)
    for name, *squeezes in zip(seen.names, *(s[:, 0].tolist() for s in seen.squeezes)):
        assert squeezes == [int(name[5:]), 2 * int(name[5:])]
    given = {int(name[5:]): label for name, label in zip(seen.names, seen.labels.tolist())}
    wrong = sum(given[row] != LABELS[row] for row in given if row < 45)
    assert wrong == round(case.wrong_pct / 100 * 45)


def test_a_teacher_never_reads_labels():
    assert not [c for c in all_cases([1], [20]) if c.wrong_pct and c.teacher != "labels"]
    assert Case("fused", "all", 0, True) in all_cases([1], [20])


@pytest.mark.usefixtures("tiny_resnets")
def test_cases_of_a_backbone_are_trained_once_and_compared(frozen_toy, tmp_path, capsys):
    options, backbone = frozen_toy
    words = list(map(str, options))
    listed = words[words.index("--train-list") + 1]
    root = words[words.index("--data-root") + 1]
    call(lists, "pools", listed, tmp_path, "--data-root", root)
    pools = [tmp_path / f"train_pool{number}.txt" for number in (1, 2)]
    names = [[line.split()[0] for line in pool.read_text().splitlines()] for pool in pools]
    everyone = [line.split()[0].rsplit(".", 1)[0] for line in Path(listed).read_text().splitlines()]
    assert sorted(names[0] + names[1]) == sorted(everyone) and not set(names[0]) & set(names[1])
    recordings = [{name.rsplit("_c", 1)[0] for name in pool} for pool in names]
    assert not recordings[0] & recordings[1]

    words = [*words, "--train-list", pools[0], "--unlabelled", pools[1], "--select-on", "test"]
    words += ["--pretrained", backbone, "--cache-dir", tmp_path / "bank", "--views", 1]
    words += ["--exits", 1, 3, "--seeds", 1, 2, "--per-class", 1, "--wrong-pct", 40]
    out = tmp_path / "study"
    call(few_labels, *words, "--out", out)
    assert '"trained": 9' in capsys.readouterr().out
    with open(out / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18 and {row["exit"] for row in rows} == {"exit1", "exit3"}
    table = pd.read_csv(out / "recordings.csv")
    for row in rows:
        of_case = table.astype(str)[few_labels.CASE] == pd.Series(
            {k: row[k] for k in few_labels.CASE}
        )
        found = table[of_case.all(axis=1)]
        right = 100 * found[row["exit"]].sum() / found["num_videos"].sum()
        assert right == pytest.approx(float(row["top1_pct"]), abs=1e-3)
    before = (out / "cases.csv").read_bytes()
    call(few_labels, *words, "--out", out)
    assert '"trained": 0' in capsys.readouterr().out
    assert (out / "cases.csv").read_bytes() == before
    # A case that one of the files has not whole is trained again, and its rows are there once.
    kept = (out / "recordings.csv").read_bytes()
    for name, lines, trained in (
        ("cases.csv", slice(-2), 1),  # interrupted between the two files
        ("cases.csv", slice(-1), 1),
        ("recordings.csv", slice(-1), 1),
        ("recordings.csv", slice(1), 9),
    ):
        text = (out / name).read_text().splitlines(keepends=True)
        (out / name).write_text("".join(text[lines]))
        call(few_labels, *words, "--out", out)
        assert f'"trained": {trained}' in capsys.readouterr().out
        assert (out / "cases.csv").read_bytes() == before
        assert (out / "recordings.csv").read_bytes() == kept
    for option in ("--seeds", "--per-class", "--wrong-pct"):
        again = refused(capsys, few_labels, *words, option, 5, 5, "--out", out)
        assert f"{option} 5" in again and "name each once" in again
    with pytest.raises(SystemExit):
        call(few_labels, *words, "--seeds", 1, "--out", out)
    assert "settings.json: the rows beside it were made with other settings (seeds [1, 2])" in (
        capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        call(few_labels, *words, "--independent-crops", "--out", out)
    assert "(independent_crops False)" in capsys.readouterr().err
    (out / "cases.csv").write_text("a,b\n")
    with pytest.raises(SystemExit):
        call(few_labels, *words, "--out", out)
    assert "name another --out" in capsys.readouterr().err
    (out / "cases.csv").write_bytes(before)

    other = tmp_path / "other"
    other.mkdir()
    table.drop(columns="exit3").to_csv(other / "recordings.csv", index=False)
    with pytest.raises(SystemExit):
        call(label_gain, out, other, "--out", tmp_path / "gains.csv")
    assert f"{other}: exit1, but {out}: exit1, exit3" in capsys.readouterr().err
    call(label_gain, out, "--out", tmp_path / "gains.csv", "--figures", tmp_path)
    assert {path.name for path in tmp_path.glob("few_labels.*")} == {
        "few_labels.png",
        "few_labels.pdf",
    }
    gains = pd.read_csv(tmp_path / "gains.csv")
    top1 = (
        pd.DataFrame(rows).astype({"top1_pct": float}).groupby(few_labels.CASE)["top1_pct"].mean()
    )
    assert len(gains) == 2 * 2 + 2 * 2  # 1 and all labels; 0 and 40 % of wrong ones
    for gain in gains.to_dict("records"):
        own = 0 if gain["unlabelled"] else gain["wrong_pct"]
        theirs = top1[gain["teacher"], str(gain["per_class"]), "0", str(gain["unlabelled"])]
        labels = top1["labels", str(gain["per_class"]), str(own), "0"]
        assert gain["difference_pct"] == pytest.approx(theirs - labels, abs=1e-3)
        assert gain["low_pct"] <= gain["difference_pct"] <= gain["high_pct"]


def write_gain_folder(folder, backbone="a", split="split1", change=None):
    """recordings.csv of all cases with 1 labelled clip and 40 % of wrong labels; three recordings
    of 4 videos. change: takes the table and returns it."""
    folder.mkdir(parents=True)
    cases = pd.DataFrame([case.key for case in all_cases([1], [40])])
    table = cases.merge(pd.DataFrame({"recording": ["r1", "r2", "r3"], "num_videos": 4}), "cross")
    table = table.assign(data="toy", split=split, backbone_digest=backbone, exit1=2.0, exit2=3.0)
    table = table[[*few_labels.RECORDINGS, "exit1", "exit2"]]
    table = table if change is None else change(table)
    table.to_csv(folder / "recordings.csv", index=False)
    return folder


def of(table, teacher, **case):
    rows = table["teacher"] == teacher
    for name, value in case.items():
        rows &= table[name] == value
    return rows


@pytest.mark.parametrize(
    ("change", "case"),
    [
        (lambda t: t[~(of(t, "labels", wrong_pct="40") & (t.recording == "r2"))], "labels"),
        (lambda t: t[~(of(t, "fused", per_class="1") & (t.recording == "r3"))], "fused"),
        (lambda t: t.assign(num_videos=t.num_videos - of(t, "prog_kd")), "prog_kd"),
    ],
    ids=["of labels", "of a teacher", "fewer videos"],
)
def test_a_case_that_lacks_test_videos_is_refused(tmp_path, capsys, change, case):
    whole = write_gain_folder(tmp_path / "whole")
    bad = write_gain_folder(tmp_path / "bad", "b", change=change)
    out = tmp_path / "gains.csv"
    message = refused(capsys, label_gain, whole, bad, "--out", out)
    assert f"{bad}: toy split1 b lacks test videos of teacher {case}, per_class " in message
    assert "study.few_labels makes it again" in message and not out.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[t.recording != "r2"],
        lambda t: t.assign(recording="film " + t.recording),
        lambda t: t.assign(num_videos=5),
    ],
    ids=["fewer", "other names", "other numbers"],
)
def test_backbones_of_a_split_were_tested_on_the_same_videos(tmp_path, capsys, change):
    """Else they are drawn apart, and the interval is too narrow."""
    one = write_gain_folder(tmp_path / "one")
    other = write_gain_folder(tmp_path / "other", "b", change=change)
    words = refused(capsys, label_gain, one, other, "--out", tmp_path / "gains.csv")
    assert "toy split1 b was not tested on the recordings" in words
    assert not (tmp_path / "gains.csv").exists()
    elsewhere = write_gain_folder(tmp_path / "elsewhere", "b", "split2", change)
    call(label_gain, one, elsewhere, "--out", tmp_path / "gains.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:0], "/bad/recordings.csv has no rows; study.few_labels writes it"),
        (lambda t: t[:9], "bad: toy split1 b lacks the case teacher labels, per_class all, wr"),
        (lambda t: t[:-3], "bad: toy split1 b lacks the case teacher prog_kd, per_class all, wr"),
        (lambda t: t[t.per_class == "all"], "lacks the case teacher labels, per_class 1, wrong"),
        (lambda t: t[t.wrong_pct == "0"], "lacks the case teacher labels, per_class all, wrong_p"),
    ],
    ids=["no rows", "cut", "one less", "not the few", "no wrong labels"],
)
@pytest.mark.parametrize("beside", [True, False], ids=["beside a whole one", "alone"])
def test_a_backbone_that_lacks_cases_is_refused(tmp_path, capsys, change, message, beside):
    """Alone a backbone may have been trained for fewer, but not for half of them."""
    folders = [write_gain_folder(tmp_path / "whole")] if beside else []
    folders.append(write_gain_folder(tmp_path / "bad", "b", change=change))
    out = tmp_path / "gains.csv"
    out.write_text("as before")
    words = [*folders, "--out", out, "--figures", tmp_path / "figures"]
    fewer = not beside and message.startswith("lacks")
    if fewer:
        call(label_gain, *words)
        return
    assert message in refused(capsys, label_gain, *words)
    assert out.read_text() == "as before" and not (tmp_path / "figures").exists()
