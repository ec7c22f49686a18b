"""study.drops: what thresholds save, promised and counted, over backbones."""

import csv
from pathlib import Path

import numpy as np
import pytest

import team_net_wise_all_acc
import wise_team_net_logit
from study import drops
from study.run_tables import write_rows
from study.timings import COLUMNS, network_of
from tests.calls import call, refused
from tests.synthetic_logits import make_logits_file


def write_run(folder, videos=400, backbone="a", **meta):
    folder.mkdir()
    file = make_logits_file(videos=videos, quality=3.0, backbone_digest=backbone, **meta)
    file.save(folder / "logits.pt")
    call(wise_team_net_logit, "--logits", folder / "logits.pt")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of exits on one backbone, one on another."""
    folder = tmp_path_factory.mktemp("runs")
    first = write_run(folder / "a", seed=1)
    second = write_run(folder / "b", seed=2, backbone="b", split="split2")
    return [first, second, write_run(folder / "c", seed=3)]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_those_of_the_threshold_script(runs, tmp_path, capsys):
    """The same policies as team_net_wise_all_acc.py, with and without the promise."""
    call(drops, runs[0], "--drops", 5, "--out", tmp_path / "drops.csv")
    rows = {(row["combination"], row["chosen"]): row for row in read(tmp_path / "drops.csv")}
    for chosen, options in (("promised", ["--guarantee", 0.9]), ("counted", [])):
        capsys.readouterr()
        logits = ["--logits", runs[0] / "logits.pt", "--temperature", "fit"]
        call(team_net_wise_all_acc, *logits, "--max-drop", 5, *options)
        for policy in read(runs[0] / "policies.csv"):
            is_total = (policy["part"], policy["exit"]) == ("test", "all")
            if not is_total or policy["rule"] != "common" or policy["combination"] == "constant":
                continue
            row = rows[policy["combination"], chosen]
            assert float(row["top1_pct"]) == pytest.approx(float(policy["top1_pct"]), abs=1e-5)
            full = next(
                float(other["gmacs"])
                for other in read(runs[0] / "exits.csv")
                if other["exit"] == "full"
            )
            saved = 100 * (1 - float(policy["gmacs"]) / full)
            assert float(row["gmacs_saved_pct"]) == pytest.approx(saved, abs=1e-3)
            assert 0 < saved < 100 and row["kept_full"] == "0"


def test_seeds_are_averaged_and_backbones_counted(runs, tmp_path, capsys):
    call(drops, *runs, "--drops", 1, 5, "--out", tmp_path / "drops.csv")
    rows = read(tmp_path / "drops.csv")
    assert len(rows) == 3 * 2 * 2 * 2 and {row["ms_saved_pct"] for row in rows} == {""}
    table = drops.summary([{**row, **numbers(row)} for row in rows]).set_index(drops.CASE)
    assert set(table["backbones"]) == {2}
    case = ("toy", "team_ce", "depth", "vanilla", 5.0, "counted")
    own = [
        float(row["gmacs_saved_pct"])
        for row in rows
        if (row["combination"], row["max_drop"], row["chosen"]) == ("vanilla", "5.0", "counted")
    ]
    of_backbones = [(own[0] + own[2]) / 2, own[1]]
    assert table.loc[case, "gmacs_saved_pct"] == pytest.approx(np.mean(of_backbones))
    assert table.loc[case, "gmacs_saved_pct_std"] == pytest.approx(np.std(of_backbones, ddof=1))
    assert "| toy" in capsys.readouterr().out


def test_files_stand_for_runs_that_are_gone(runs, tmp_path, capsys):
    call(drops, *runs, "--drops", 5, "--out", tmp_path / "all.csv")
    whole = capsys.readouterr().out.splitlines()[:-1]
    call(drops, runs[0], "--drops", 5, "--out", tmp_path / "one.csv")
    capsys.readouterr()
    call(drops, tmp_path / "one.csv", *runs[1:], "--drops", 5, "--out", tmp_path / "again.csv")
    assert capsys.readouterr().out.splitlines()[:-1] == whole
    again, rows = read(tmp_path / "again.csv"), read(tmp_path / "all.csv")
    assert len(again) == len(rows)
    for row, other in zip(again, rows):
        row.update(command="", kept_full=f"{float(row['kept_full']):g}")
        assert row == {**other, "command": ""}
    out = ["--out", tmp_path / "no.csv"]
    twice = refused(capsys, drops, tmp_path / "one.csv", runs[0], "--drops", 5, *out)
    assert "toy split1 1 team_ce is there twice" in twice
    assert "study.drops writes it" in refused(capsys, drops, tmp_path / "none.csv", *out)
    (tmp_path / "other.csv").write_text("a,b\n")
    assert "is no file of study.drops" in refused(capsys, drops, tmp_path / "other.csv", *out)


def test_a_mean_of_fewer_backbones_says_so(runs, tmp_path, capsys):
    call(drops, *runs, "--drops", 5, "--out", tmp_path / "drops.csv")
    rows = read(tmp_path / "drops.csv")
    for row in rows:
        row["ms_saved_pct"] = "7" if row["split"] == "split2" else ""
    write_rows(tmp_path / "drops.csv", drops.COLUMNS, rows)
    capsys.readouterr()
    call(drops, tmp_path / "drops.csv", "--out", tmp_path / "drops.md")
    header, _, first, *_ = capsys.readouterr().out.splitlines()
    cells = dict(zip(*([cell.strip() for cell in line.split("|")] for line in (header, first))))
    assert cells["ms saved, %"] == "7.0 (of 1)" and cells["backbones"] == "2"
    assert "±" in cells["drop"] and "of" not in cells["drop"]


def numbers(row):
    names = ("max_drop", "kept_full", "full_top1_pct", "top1_pct", "gmacs_saved_pct")
    return {**{name: float(row[name]) for name in names}, "ms_saved_pct": np.nan}


def test_where_videos_are_too_few_the_full_network_is_kept(tmp_path):
    run = write_run(tmp_path / "few", videos=12)
    call(drops, run, "--drops", 1, "--out", tmp_path / "drops.csv")
    promised = [row for row in read(tmp_path / "drops.csv") if row["chosen"] == "promised"]
    for row in promised:
        assert row["kept_full"] == "1" and float(row["gmacs_saved_pct"]) == pytest.approx(0, abs=1)
        assert row["top1_pct"] == row["full_top1_pct"]


def test_promises_of_other_guarantees_are_other_rows(tmp_path, capsys):
    run = write_run(tmp_path / "run", videos=12)
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for file, guarantee in zip(files, (0.5, 0.9)):
        call(drops, run, "--drops", 1, "--guarantee", guarantee, "--out", file)
    counted = [row for row in read(files[0]) if row["chosen"] == "counted"]
    write_rows(files[0], drops.COLUMNS, [r for r in read(files[0]) if r not in counted])
    call(drops, *files, "--out", tmp_path / "both.md")
    text = (tmp_path / "both.md").read_text()
    assert text.count("promised 0.5") == text.count("promised 0.9") == 2


def write_timings(path, model, times):
    """times: {points: milliseconds of the network}"""
    with open(path, "w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        for points, milliseconds in times.items():
            about = {**network_of(model, 64), "points": " ".join(points), "num_videos": 1}
            about.update(precision="fp32", clock="wall", threads=1, machine="m", command="c")
            for point, ms in zip(points, milliseconds):
                writer.writerow({**about, "point": point, "decode_ms": 10, "network_ms": ms})


def test_milliseconds_are_saved_from_one_pass_over_all_segments(tmp_path):
    """One segment costs 20 of the 50 ms of one pass; all, one by one, 130."""
    run = write_run_with_segments(tmp_path / "run")
    model = {**make_logits_file().meta["model"], "num_segments": 4}
    depth, time = ("exit1", "exit2", "exit3", "full"), ("full@1", "full@2", "full@3", "full")
    write_timings(tmp_path / "t.csv", model, {depth: (10, 20, 30, 40), time: (10, 40, 80, 120)})
    options = ["--drops", 5, "--timings", tmp_path / "t.csv", "--route", "time"]
    call(drops, run, *options, "--out", tmp_path / "drops.csv")
    for row in read(tmp_path / "drops.csv"):
        saved = float(row["ms_saved_pct"])
        assert saved == pytest.approx(60) if row["points"] == "time" else 0 < saved < 60


def test_what_is_missing_is_named(runs, tmp_path, capsys):
    out = ["--out", tmp_path / "drops.csv"]
    assert "logits.pt" in refused(capsys, drops, tmp_path / "none", *out)
    assert "per segment" in refused(capsys, drops, runs[0], "--route", "time", *out)
    missing = Path("no/timings.csv")
    assert "no/timings.csv" in refused(capsys, drops, runs[0], "--timings", missing, *out)
    assert not out[1].exists()


def write_run_with_segments(folder, **meta):
    """All segments of a video say the same."""
    folder.mkdir()
    file = make_logits_file(videos=400, backbone_digest="a", **meta)
    file.meta["model"]["num_segments"] = 4
    file.parts = {
        name: part._replace(segments=np.repeat(part.logits[:, :, None], 4, axis=2))
        for name, part in file.parts.items()
    }
    file.save(folder / "logits.pt")
    call(wise_team_net_logit, "--logits", folder / "logits.pt")
    return folder


def test_a_route_is_decided_by_its_own_points(tmp_path):
    """One segment is as right as the whole video. Both methods have the same streams, so what the
    route does stands once; with exits on the route it stands for each."""
    methods = ("team_ce", "prog_kd")
    runs = [write_run_with_segments(tmp_path / name, method=name) for name in methods]
    call(drops, *runs, "--drops", 5, "--route", "time", "--out", tmp_path / "drops.csv")
    rows = [row for row in read(tmp_path / "drops.csv") if row["points"] == "time"]
    assert [(row["method"], row["chosen"]) for row in rows] == [
        ("streams", "promised"),
        ("streams", "counted"),
    ]
    for row in rows:
        assert row["combination"] == "vanilla" and row["top1_pct"] == row["full_top1_pct"]
        assert float(row["gmacs_saved_pct"]) == pytest.approx(75)
    route = ["--route", "exit1@1", "full@1"]
    call(drops, *runs, "--drops", 5, *route, "--out", tmp_path / "drops.csv")
    rows = [row for row in read(tmp_path / "drops.csv") if row["points"] == "exit1@1 full@1"]
    assert [row["method"] for row in rows] == ["team_ce"] * 2 + ["prog_kd"] * 2
