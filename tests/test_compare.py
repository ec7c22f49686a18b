"""study.compare: pairing by name and run, over videos and over backbones."""

import csv
import itertools

import numpy as np
import pandas as pd
import pytest

from early_exit import wise
from early_exit.part import Part
from study import compare, recordings
from study.sides import Side, load_runs
from tests.calls import call, refused
from tests.synthetic_logits import make_logits_file


def test_sides_are_parsed_or_refused():
    assert Side.parse("prog_kd/vanilla") == Side("prog_kd", "vanilla")
    assert Side.parse("a/wise:train_views:sgd") == Side("a", "wise", "train_views", "sgd")
    for wrong in (
        "prog_kd",
        "/wise",
        "a/best",
        "a/vanilla:train",
        "a/wise:test",
        "a/wise:train:x:y",
        "a/iframe+rgb",
        "a/mv:train",
    ):
        with pytest.raises(ValueError, match="METHOD/COMBINATION"):
            Side.parse(wrong)


def test_top1_and_difference_are_means_over_the_same_videos(tmp_path):
    """Splits of 20 and of 200 videos."""
    for split, videos in (("split1", 20), ("split2", 200)):
        for method, quality in (("a", 1.5), ("b", 0.2)):
            save(tmp_path, method, split=split, videos=videos, quality=quality)
    runs = load_runs([tmp_path])
    for row in compare.compare(
        runs, runs, *map(Side.parse, ("a/vanilla", "b/vanilla")), "video", 95
    ):
        between = row["first_top1_pct"] - row["second_top1_pct"]
        assert row["difference_pct"] == pytest.approx(between)


def save(folder, method, seed=1, split="split1", shuffle=False, **changes):
    logits = make_logits_file(seed=seed, method=method, split=split, **changes)
    if shuffle:
        part = logits.parts["test"]
        order = np.random.default_rng(0).permutation(len(part.names))
        rows = [part.names[n] for n in order], part.labels[order], part.logits[:, order]
        logits.parts["test"] = Part(*rows)
    path = folder / method / f"{split}_seed{seed}"
    path.mkdir(parents=True)
    logits.save(path / "logits.pt")
    return logits


def test_streams_stand_against_their_sum_at_the_end_only(tmp_path):
    logits = save(tmp_path, "a")
    runs = load_runs([tmp_path])
    for streams in (["iframe"], ["mv", "residual"]):
        side = Side.parse("a/" + "+".join(streams))
        (row,) = compare.compare(runs, runs, side, Side("a", "vanilla"), "video", 95)
        assert row["exit"] == "full"
        test = logits.part("test")
        mean = test.logits.mean(axis=0)
        summed = sum(mean[:, logits.outputs.index(stream)] for stream in streams)
        right = (summed.argmax(axis=1) == test.labels).mean()
        assert row["first_top1_pct"] == pytest.approx(100 * right)


def test_second_sides_may_be_runs_of_another_folder(tmp_path, capsys):
    save(tmp_path / "ours", "a", seed=1)
    save(tmp_path / "theirs", "a", seed=2)
    other = tmp_path / "theirs" / "a" / "split1_seed2" / "logits.pt"
    theirs = load_runs([other.parent])
    (key,) = theirs["a"]
    theirs["a"] = {(key[0], key[1], 1, None): theirs["a"][key]}
    ours = load_runs([tmp_path / "ours"])
    vanilla = Side("a", "vanilla")
    rows = compare.compare(ours, theirs, vanilla, vanilla, "video", 95)
    back = compare.compare(theirs, ours, vanilla, vanilla, "video", 95)
    assert [row["first_top1_pct"] for row in rows] == [row["second_top1_pct"] for row in back]
    assert any(row["difference_pct"] for row in rows)
    parser = compare.get_args_parser()
    same = str(tmp_path / "ours")
    words = [same, "--against", same, "--pair", "a/vanilla", "a/vanilla", "--out"]
    compare.main(parser.parse_args([*words, str(tmp_path / "c.csv")]), parser)
    written = list(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))
    assert {row["against"] for row in written} == {same}
    header, _, line, *rest = (tmp_path / "c.md").read_text().splitlines()
    points = [row["exit"] for row in written]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["first - second", *points]
    assert line.count(": +0.0 [0.0, 0.0]") == len(points) and "**" not in line
    assert rest[-1].startswith("    "), "the command that made it"
    words[3:3] = ["--pair", "a/mv", "a/vanilla"]  # a pair with the last point alone, ahead
    compare.main(parser.parse_args([*words, str(tmp_path / "c.csv")]), parser)
    header = (tmp_path / "c.md").read_text().splitlines()[0]
    assert [cell.strip() for cell in header.split("|")[2:-1]] == points, "in their order"


def test_videos_are_paired_by_name(tmp_path):
    """The same logits in another order differ nowhere."""
    save(tmp_path, "a")
    save(tmp_path, "b", shuffle=True)
    runs = load_runs([tmp_path])
    rows = compare.compare(runs, runs, Side("a", "wise"), Side("b", "wise"), "video", 95)
    assert [row["exit"] for row in rows] == ["exit1", "exit2", "exit3", "full"]
    assert all(row["difference_pct"] == row["low_pct"] == row["high_pct"] == 0 for row in rows)


@pytest.mark.parametrize("resample", ["video", "group"])
@pytest.mark.parametrize("mean_over", ["videos", "classes"])
def test_seeds_of_a_split_are_joined_by_name(tmp_path, resample, mean_over):
    """Rows of the second seed in another order say the same, weights of classes included."""
    for method, quality in (("a", 1.5), ("b", 0.2)):
        for seed in (1, 2):
            save(tmp_path / "same", method, seed, quality=quality)
            save(tmp_path / "other", method, seed, quality=quality, shuffle=seed == 2)
    sides = list(map(Side.parse, ("a/vanilla", "b/vanilla")))
    same, other = (load_runs([tmp_path / name]) for name in ("same", "other"))
    how = resample, 95, mean_over
    pairs = zip(
        compare.compare(same, same, *sides, *how), compare.compare(other, other, *sides, *how)
    )
    for row, again in pairs:
        for name, value in row.items():
            assert again[name] == (
                value if isinstance(value, str) else pytest.approx(value, nan_ok=True)
            )


def test_seeds_of_a_split_that_saw_other_videos_are_refused(tmp_path):
    for seed, videos in ((1, 40), (2, 60)):
        for method in "ab":
            save(tmp_path, method, seed, videos=videos)
    save(tmp_path, "a", 1, split="split2", videos=60)  # another split may have others
    save(tmp_path, "b", 1, split="split2", videos=60)
    runs = load_runs([tmp_path])
    sides = list(map(Side.parse, ("a/vanilla", "b/vanilla")))
    with pytest.raises(ValueError, match="a of toy split1 2 was tested on other videos"):
        compare.compare(runs, runs, *sides, "video", 95)
    for of_method in runs.values():
        del of_method["toy", "split1", 2, None]
    assert compare.compare(runs, runs, *sides, "video", 95)


def test_rows_and_csv(server, tmp_path):
    better = [save(tmp_path, "good", seed=s, quality=2.0) for s in (1, 2)]
    worse = [save(tmp_path, "bad", seed=s, quality=0.3) for s in (1, 2)]
    save(tmp_path, "good", seed=3)  # has no partner
    out = tmp_path / "comparisons.csv"
    command = ["-m", "study.compare", tmp_path, "--out", out]
    command += ["--pair", "good/vanilla", "bad/vanilla", "--pair", "good/wise", "good/vanilla"]
    run = server.call(*command)
    assert run.returncode == 0, run.stderr
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and {row["runs"] for row in rows[:4]} == {"2"}
    assert rows[0]["command"].startswith("python -m study.compare ")

    def top1(logits):
        return 100 * logits.samples("test")[0][:, 1].argmax(1).__eq__(logits.parts["test"].labels)

    ours, theirs = (np.mean([top1(logits).mean() for logits in side]) for side in (better, worse))
    exit2 = rows[1]
    assert float(exit2["first_top1_pct"]) == pytest.approx(ours)
    assert float(exit2["difference_pct"]) == pytest.approx(ours - theirs, abs=1e-5)
    assert float(exit2["low_pct"]) > 0
    assert float(rows[3]["difference_pct"]) == 0  # the full network is the same


def test_wise_sides_are_fitted_where_they_say(tmp_path):
    logits = save(tmp_path, "a", seed=5)
    for part, solver in (("train_views", "exact"), ("heldout", "sgd")):
        rows, labels = logits.samples(part)
        expected = wise.fit(rows, labels, logits.outputs, 0.01, solver).weights
        assert np.array_equal(Side("a", "wise", part, solver).weights(logits), expected)


def test_what_cannot_be_paired_is_an_error(tmp_path):
    save(tmp_path, "a", seed=1)
    save(tmp_path, "b", seed=2)
    save(tmp_path, "c", seed=1, videos=60)
    runs = load_runs([tmp_path])
    with pytest.raises(ValueError, match="no logits of 'x'"):
        compare.compare(runs, runs, Side("x", "wise"), Side("a", "wise"), "video", 95)
    with pytest.raises(ValueError, match="in common"):
        compare.compare(runs, runs, Side("a", "wise"), Side("b", "wise"), "video", 95)
    with pytest.raises(ValueError, match="other videos"):
        compare.compare(runs, runs, Side("a", "wise"), Side("c", "wise"), "video", 95)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """Folders of three backbones of one split with two methods, two seeds each."""
    folder = tmp_path_factory.mktemp("backbones")
    for digest in "abc":
        for method, seed in itertools.product(("team_ce", "prog_kd"), (1, 2)):
            quality = 0.5 + (method == "prog_kd")
            save(folder / digest, method, seed, quality=quality, backbone_digest=digest)
    return [folder / digest for digest in "abc"]


PAIR = ["--resample", "backbone", "--pair", "prog_kd/vanilla", "team_ce/vanilla"]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_each_backbone_counts_as_one(backbones, tmp_path, capsys):
    call(compare, *backbones, *PAIR, "--out", tmp_path / "o.csv")
    rows = read(tmp_path / "o.csv")
    assert {row["runs"] for row in rows} == {"3"} and {row["resample"] for row in rows} == {
        "backbone"
    }
    printed = capsys.readouterr().out
    assert "(bootstrap over backbones)" in printed
    assert "3 backbones, 120 test videos;" in printed, "a video counts once, not with each backbone"
    assert {row["num_videos"] for row in rows} == {"120"}
    runs = load_runs(backbones, by_backbone=True)
    for row in rows:
        top1 = {
            method: np.mean([side_right(file, row["exit"]) for file in runs[method].values()])
            for method in ("prog_kd", "team_ce")
        }
        assert float(row["first_top1_pct"]) == pytest.approx(top1["prog_kd"], abs=1e-5)
        difference = top1["prog_kd"] - top1["team_ce"]
        assert float(row["difference_pct"]) == pytest.approx(difference, abs=1e-5)
    groups = [*backbones, *PAIR[2:], "--resample", "group"]
    assert "another file holds" in refused(capsys, compare, *groups)
    message = refused(capsys, compare, *backbones, *PAIR, "--against", backbones[0])
    assert "not with --against" in message


def side_right(logits, point):
    part = logits.part("test")
    return 100 * Side("m", "vanilla").right(logits, part.names, [point]).mean()


def test_recordings_stand_for_runs_that_are_gone(backbones, tmp_path, capsys):
    call(compare, *backbones, *PAIR, "--out", tmp_path / "all.csv")
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    call(compare, *backbones[:2], *PAIR, "--recordings", files[0])
    call(compare, backbones[2], *PAIR, "--recordings", files[1])
    for number, inputs in enumerate((files, [files[0], backbones[2]])):
        call(compare, *inputs, *PAIR, "--out", tmp_path / f"again{number}.csv")
        for again, row in zip(read(tmp_path / f"again{number}.csv"), read(tmp_path / "all.csv")):
            assert {**again, "command": ""} == {**row, "command": ""}
    call(compare, *files, *PAIR, "--mean-over", "classes")

    capsys.readouterr()
    other = [*PAIR[:2], "--pair", "prog_kd/wise", "team_ce/vanilla"]
    assert "no logits of 'prog_kd/wise', only of" in refused(capsys, compare, files[0], *other)
    twice = refused(capsys, compare, files[0], backbones[0], *PAIR)
    assert "toy split1 a is there twice" in twice
    assert "--recordings writes it" in refused(capsys, compare, tmp_path / "no.csv", *PAIR)
    assert "is no file of" in refused(capsys, compare, tmp_path / "all.csv", *PAIR)
    by_video = [backbones[0], *PAIR[2:], "--recordings", tmp_path / "c.csv"]
    assert "--resample backbone counts" in refused(capsys, compare, *by_video)


def test_backbones_of_a_split_were_tested_on_the_same_videos(backbones, tmp_path, capsys):
    """Else they are drawn apart, and the interval is too narrow."""
    for number in (0, 1):
        call(compare, backbones[number], *PAIR, "--recordings", tmp_path / f"{number}.csv")
    table = pd.read_csv(tmp_path / "1.csv", dtype={"recording": str})
    for change in (
        table[:-1],
        table.assign(recording="film " + table["recording"]),
        table.assign(num_videos=table["num_videos"] + 1),
    ):
        change.to_csv(tmp_path / "other.csv", index=False)
        words = refused(capsys, compare, tmp_path / "0.csv", tmp_path / "other.csv", *PAIR)
        assert "toy split1 b was not tested on the recordings" in words and "that a was" in words


def test_the_table_is_not_written_over_its_rows(backbones, tmp_path, capsys):
    words = refused(capsys, compare, backbones[0], *PAIR, "--out", tmp_path / "o.md")
    assert "does not end in .csv" in words and not (tmp_path / "o.md").exists()


def test_sides_of_a_backbone_have_the_same_seeds_and_videos(tmp_path, capsys):
    save(tmp_path / "a", "prog_kd", 1)
    save(tmp_path / "a", "team_ce", 2)
    assert "has the seeds [1]" in refused(capsys, compare, tmp_path / "a", *PAIR)
    save(tmp_path / "b", "prog_kd", 1)
    save(tmp_path / "b", "team_ce", 1, videos=60)
    assert "on the same videos" in refused(capsys, compare, tmp_path / "b", *PAIR)
    save(tmp_path / "c", "prog_kd", 1)
    assert "has no logits of 'team_ce'" in refused(capsys, compare, tmp_path / "c", *PAIR)


def test_classes_of_few_videos_count_as_much_as_others(tmp_path):
    """Class 0 has 9 of 12 test videos. The first method is right there alone, the second about the
    one video of class 1 and the two of class 2."""
    labels = np.array([0] * 9 + [1] + [2] * 2)
    for method, known in (("team_ce", [0]), ("prog_kd", [1, 2])):
        file = make_logits_file(classes=3, videos=12, method=method)
        part = file.parts["test"]
        said = np.where(np.isin(labels, known), labels, (labels + 1) % 3)
        logits = np.zeros_like(part.logits)
        logits[:, np.arange(12), :, said] = 1
        file.parts["test"] = part._replace(labels=labels, logits=logits)
        (tmp_path / method).mkdir()
        file.save(tmp_path / method / "logits.pt")
    runs = load_runs([tmp_path])
    sides = map(Side.parse, ("team_ce/vanilla", "prog_kd/vanilla"))
    words = "team_ce/vanilla", "prog_kd/vanilla"
    table = recordings.load([tmp_path], words)
    for row in [
        *compare.compare(runs, runs, *sides, "video", 95.0, "classes"),
        *compare.compare_backbones(table, *words, 95.0, "classes"),
    ]:
        assert row["first_top1_pct"] == pytest.approx(100 / 3)
        assert row["second_top1_pct"] == pytest.approx(200 / 3)
        assert row["difference_pct"] == pytest.approx(-100 / 3)
        assert "mean over classes" in row["protocol"]


def test_names_like_missing_values_are_kept(tmp_path):
    names = ["NA", "null", "None", ""]
    values = {**dict.fromkeys(recordings.RECORDING, "1"), "class_name": names}
    table = pd.DataFrame({**values, "recording": names, "a/vanilla full": [1, 2, 3, 4]})
    recordings.write(tmp_path / "kept.csv", table)
    again = recordings.load([tmp_path / "kept.csv"], [])
    for column in ("class_name", "recording"):
        assert again[column].tolist() == names
