"""Collecting runs into a study: every number against the runs' own files and slow arithmetic."""

import csv
import json
import shutil

import numpy as np
import pytest

import team_net_wise_all_acc
from early_exit.logits import LogitsFile
from early_exit.policy import decide, load_policy
from study import collect, over_time, summary, tables
from study.collect import MAX_THRESHOLDS, gather, thin
from study.columns import RUN, STUDY_COLUMNS
from study.report import __main__ as report
from study.run_tables import write_rows
from study.sides import load_runs
from tests.calls import call, refused
from tests.synthetic_study import METHODS, SEEDS, SPLITS, make_backbone, make_run


def rows_of(path, **where):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if where.items() <= row.items()]


def test_every_run_is_there_with_its_own_rows(synthetic_runs, synthetic_study):
    made = {tuple(run[key] for key in RUN): run for run in rows_of(synthetic_study / "runs.csv")}
    for name in ("exits.csv", "policies.csv"):
        own = [row for path in sorted(synthetic_runs.rglob(name)) for row in rows_of(path)]
        rows = rows_of(synthetic_study / name)
        for row in rows:
            run = made[tuple(row[key] for key in RUN)]
            wise = row["combination"] == "wise"
            row.update(protocol=run["wise_protocol" if wise else "protocol"])
            row.update(command=run["command"])
        assert sorted(sorted(row.items()) for row in rows) == sorted(
            sorted(row.items()) for row in own
        )
    for name, columns in STUDY_COLUMNS.items():
        with open(synthetic_study / name, newline="") as file:
            assert next(csv.reader(file)) == columns
        rows = rows_of(synthetic_study / name)
        if name == "runs.csv":
            assert all(row["protocol"] and row["command"] for row in rows)
            assert all(bool(r["wise_command"]) == (r["method"] != "team_net") for r in rows)
            rows = [row for row in rows if row["method"] != "team_net"]
        seen = {(row["split"], int(row["seed"]), row["method"]) for row in rows}
        if name == "backbones.csv":
            assert seen == {(split, 1, "team_net") for split in SPLITS}
        else:
            assert seen == {(s, k, m) for s in SPLITS for k in SEEDS for m in METHODS}


def test_trade_off_keeps_test_videos_and_even_thresholds(synthetic_runs, synthetic_study):
    kept = rows_of(synthetic_study / "trade_off.csv", method="prog_kd", split="split2", seed="1")
    path = synthetic_runs / "toy" / "prog_kd" / "split2_seed1" / "trade_off.csv"
    whole = rows_of(path, part="test")
    columns = STUDY_COLUMNS["trade_off.csv"]
    assert [
        {key: row[key] for key in columns}
        for row in whole
        if row["threshold"] in {row["threshold"] for row in kept}
    ] == kept
    thresholds = sorted({float(row["threshold"]) for row in kept})
    every = sorted({float(row["threshold"]) for row in whole})
    assert len(thresholds) == MAX_THRESHOLDS and (thresholds[0], thresholds[-1]) == (0, 1)
    gaps = np.diff([every.index(threshold) for threshold in thresholds])
    assert gaps.max() - gaps.min() <= 1
    # 3 combinations, 5 rows a threshold: all, three exits, full
    assert len(kept) == MAX_THRESHOLDS * 3 * 5


def test_a_short_sweep_is_kept_whole():
    rows = [{"threshold": text} for text in ("0.5", "0.0", "0.5", "1.0")]
    assert thin(rows) == rows
    assert thin(rows, 2) == [rows[1], rows[3]]


def test_weights_are_those_of_the_run(synthetic_runs, synthetic_study):
    run = {"method": "i_frame", "split": "split1", "seed": "736"}
    content = json.loads((synthetic_runs / "toy/i_frame/split1_seed736/wise.json").read_text())
    found = {}
    for row in rows_of(synthetic_study / "weights.csv", **run):
        found.setdefault(row["point"], {})[row["output"]] = float(row["beta"])
    (made,) = rows_of(synthetic_study / "runs.csv", **run)
    assert made["wise_protocol"].endswith("WISE (exact) fitted on heldout")
    assert made["wise_command"] == content["provenance"]["command"]
    expected = {
        point: {output: pytest.approx(beta, abs=1e-6) for output, beta in betas.items()}
        for point, betas in content["betas"].items()
    }
    assert found == expected


def test_decisions_are_those_of_the_policy(synthetic_runs, synthetic_study):
    folder = synthetic_runs / "toy" / "prog_kd" / "split1_seed736"
    logits, policy = LogitsFile.load(folder / "logits.pt"), load_policy(folder / "policy.json")
    samples, labels = logits.samples("test")
    expected = decide(policy, samples)
    run = {"method": "prog_kd", "split": "split1", "seed": "736"}
    rows = rows_of(synthetic_study / "decisions.csv", **run)
    points = ["exit1", "exit2", "exit3", "full"]
    assert [row["exit"] for row in rows] == points * len(labels)
    left = [row for row in rows if row["left"] == "1"]
    assert [row["video"] for row in left] == logits.part("test").names
    assert [points.index(row["exit"]) for row in left] == expected.points.tolist()
    names = logits.class_names
    assert [row["prediction"] for row in left] == [names[label] for label in expected.labels]
    assert [row["class_name"] for row in left] == [names[label] for label in labels]
    for n, row in enumerate(rows):
        assert row["correct"] == str(int(row["prediction"] == row["class_name"]))
        d = n % len(points)
        scores = np.array(policy.weights[d]) @ samples[n // len(points)].astype(float)
        assert row["prediction"] == names[scores.argmax()]
        softmax = np.exp(scores) / np.exp(scores).sum()
        assert float(row["confidence"]) == pytest.approx(softmax.max(), abs=1e-6)  # six decimals
    (total,) = rows_of(
        folder / "policies.csv", part="test", combination="wise", rule="common", exit="all"
    )
    share = 100 * np.mean([row["correct"] == "1" for row in left])
    assert float(total["top1_pct"]) == pytest.approx(share, abs=1e-5)


def test_backbones_stream_by_stream(synthetic_study):
    rows = rows_of(synthetic_study / "backbones.csv", split="split2")
    found = {row["output"]: float(row["top1_pct"]) for row in rows}
    assert found == {"fused": 80, "iframe": 70, "mv": 50, "residual": 75}


def test_networks_that_backbones_started_from_are_shown_apart(runs, tmp_path):
    make_backbone(runs, top1=80.0)
    make_backbone(runs, top1=60.0, method="pretrain")
    found = gather([runs])
    assert not found.left_out
    fused = {
        row["method"]: row["top1_pct"]
        for row in found.rows["backbones.csv"]
        if row["output"] == "fused"
    }
    assert fused == {"pretrain": 60, "team_net": 80}
    call(collect, runs, "--out", tmp_path / "study")
    table = tables.backbone_table(summary.read_study(tmp_path / "study"))
    assert [row[:3] for row in table[1:]] == [["pretrain", "1", "60.0"], ["team_net", "1", "80.0"]]


@pytest.fixture
def runs(synthetic_runs, tmp_path):
    """Two runs that a test may spoil."""
    for method in ("team_ce", "prog_kd"):
        shutil.copytree(synthetic_runs / "toy" / method, tmp_path / "runs" / "toy" / method)
    return tmp_path / "runs"


def without_weights(folder):
    (folder / "wise.json").unlink()


def other_logits(folder):
    shutil.copy(folder.with_name("split2_seed1") / "logits.pt", folder / "logits.pt")


def older_tables(folder):
    shutil.copy(folder.with_name("split2_seed1") / "policies.csv", folder / "policies.csv")


def tables_of_another_call(folder):
    path = folder / "trade_off.csv"
    command = load_policy(folder / "policy.json").provenance["command"]
    path.write_text(path.read_text().replace(command, "python other.py"))


def only_started(folder):
    for path in folder.iterdir():
        path.unlink()
    (folder / "args.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_weights, "no wise.json yet, wise_team_net_logit.py writes it"),
        (other_logits, "wise.json was fitted on other logits"),
        (older_tables, "the tables are of other logits: team_net_wise_all_acc.py again"),
        (tables_of_another_call, "policy.json and the tables are of several commands"),
        (only_started, "no logits.pt yet, save_logits.py writes it"),
    ],
)
def test_unfinished_runs_are_named_and_left_out(runs, spoil, reason):
    folder = runs / "toy" / "prog_kd" / "split1_seed1"
    spoil(folder)
    gathered = gather([runs])
    assert list(gathered.left_out) == [folder] and reason in gathered.left_out[folder]
    assert len(gathered.used) == 7
    for name, rows in gathered.rows.items():
        mine = [r for r in rows if r["split"] == "split1" and str(r["seed"]) == "1"]
        assert all(row["method"] == "team_ce" for row in mine), name


def test_a_backbone_without_result_is_left_out(runs):
    folder = make_backbone(runs)
    (folder / "result.json").unlink()
    assert gather([runs]).left_out == {folder: "no result.json yet, training writes it"}


def test_the_same_folder_named_twice_counts_once(runs):
    assert len(gather([runs, runs / "toy"]).used) == 8


def test_two_runs_of_the_same_name_are_refused(runs, tmp_path):
    shutil.copytree(runs / "toy" / "prog_kd", tmp_path / "again" / "toy" / "prog_kd")
    with pytest.raises(ValueError, match="again.* and .*both hold toy split1 1 prog_kd"):
        gather([tmp_path])


def test_a_table_of_other_columns_is_refused(runs):
    path = runs / "toy" / "prog_kd" / "split1_seed1" / "exits.csv"
    whole = path.read_text()
    path.write_text("data,part\ntoy,test\n")
    words = r"split1_seed1/exits.csv is no file of team_net_wise_all_acc.py \(no column \w+\)"
    with pytest.raises(ValueError, match=words):
        gather([runs])
    path.write_text(whole.replace("\n", ",x\n"))
    with pytest.raises(ValueError, match="split1_seed1/exits.csv: expected the columns data,split"):
        gather([runs])


def with_cell(column, value, row=1):
    """A change of a table: another value in one of its rows."""

    def change(text):
        header, *lines = csv.reader(text.splitlines())
        lines[row][header.index(column)] = value
        return "".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in [header, *lines])

    return change


EDITS = {
    "no top-1": ("exits.csv", with_cell("top1_pct", ""), "line 3: top1_pct is empty"),
    "no cost": ("exits.csv", with_cell("gmacs", ""), "line 3: gmacs is empty"),
    "word": (
        "exits.csv",
        with_cell("top1_pct", "eighty"),
        "line 3: top1_pct is 'eighty', no number",
    ),
    "nan": ("policies.csv", with_cell("top1_pct", "nan"), "line 3: top1_pct is 'nan', no number"),
    "half": ("exits.csv", with_cell("num_videos", "1.5"), "line 3: num_videos is '1.5', no whole"),
    "no exit": ("trade_off.csv", with_cell("exit", "", 4), "line 6: exit is empty"),
    "seed": ("exits.csv", with_cell("seed", "2"), "line 3: seed is 2, and the run's is 1"),
    "method": ("trade_off.csv", with_cell("method", "x"), "line 3: method is x, and the run's is"),
    "cut": ("policies.csv", lambda text: text[:-9], "the line has no end"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_table_of_a_run_is_named_and_the_study_stays(runs, tmp_path, capsys, edit):
    call(collect, runs, "--out", tmp_path / "study")
    before = {path: path.read_bytes() for path in (tmp_path / "study").iterdir()}
    name, change, words = EDITS[edit]
    path = runs / "toy/prog_kd/split1_seed1" / name
    path.write_text(change(path.read_text()))
    message = refused(capsys, collect, runs, "--out", tmp_path / "study")
    assert f"{path}, line " in message and words in message
    assert message.endswith("; team_net_wise_all_acc.py writes it again\n")
    assert {path: path.read_bytes() for path in (tmp_path / "study").iterdir()} == before
    assert str(path) in refused(capsys, report, runs, "--out", tmp_path / "page.html")


def test_a_table_without_test_videos_is_left_out_by_name(runs):
    path = runs / "toy/prog_kd/split1_seed1/trade_off.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *(line for line in lines if ",heldout," in line)]))
    assert "no results on test videos" in gather([runs]).left_out[path.parent]


def test_linked_folders_are_searched_once(runs, tmp_path):
    """A run on another disk, and a link that leads round in a circle."""
    expected = len(gather([runs]).used)
    moved = tmp_path / "elsewhere"
    shutil.move(runs / "toy/prog_kd/split1_seed1", moved)
    (runs / "toy/prog_kd/split1_seed1").symlink_to(moved)
    (runs / "toy/again").symlink_to(runs)
    assert len(gather([runs]).used) == expected == len(collect.find_runs([runs]))
    assert sum(map(len, load_runs([runs]).values())) == expected


def test_a_temperature_of_each_exit_is_collected(runs, tmp_path, capsys):
    """Then the cell holds several numbers."""
    for logits in sorted(runs.rglob("logits.pt")):
        how = ["--max-drop", 50, "--guarantee", 0.5, "--temperature", "fit_per_exit"]
        call(team_net_wise_all_acc, "--logits", logits, *how)
    call(collect, runs, "--out", tmp_path / "study")
    study = summary.read_study(tmp_path / "study")
    assert {len(cell.split()) for cell in study.policies["temperature"]} == {len(study.points)}


def test_ways_over_time_need_logits_of_segments(runs, tmp_path, capsys):
    path = next(runs.rglob("logits.pt"))
    message = refused(capsys, over_time, path.parent, "--out", tmp_path / "over_time")
    assert f"{path} has no logits of single segments: save_logits.py --per-segment" in message


def with_columns_of_a_run(study, runs):
    """Put a run's own file, with protocol and command in every row, in the place of the study's."""
    shutil.copy(next(runs.rglob("exits.csv")), study)


def without_a_run(study, runs):
    rows = rows_of(study / "runs.csv")
    of_exits = next(row for row in rows if row["method"] == "prog_kd")
    write_rows(study / "runs.csv", STUDY_COLUMNS["runs.csv"], [r for r in rows if r != of_exits])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_columns_of_a_run, "exits.csv: expected the columns .*protocol,command; python -m"),
        (without_a_run, "runs.csv does not hold each run of exits.csv once"),
        (lambda study, runs: (study / "runs.csv").unlink(), "runs.csv is missing"),
    ],
)
def test_a_study_that_lacks_something_names_the_command(
    synthetic_study, runs, tmp_path, spoil, message
):
    study = shutil.copytree(synthetic_study, tmp_path / "study")
    spoil(study, runs)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        summary.read_study(study)
    assert f"python -m study.collect RUNS --out {study} writes" in str(error.value)


def test_the_command_prints_tables_and_what_it_left_out(server, runs, tmp_path):
    without_weights(runs / "toy" / "prog_kd" / "split1_seed1")
    done = server.call("-m", "study.collect", runs, "--out", tmp_path / "study")
    assert done.returncode == 0, done.stderr
    assert f"left out: {runs}/toy/prog_kd/split1_seed1: no wise.json yet" in done.stdout
    assert "n = 3 to 4 runs per method" in done.stdout
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("result: "))
    counts = {"used": 7, "left_out": 1}
    assert result == {"study": str(tmp_path / "study"), "runs": counts, "settings": 1}


def test_mixed_protocols_stand_side_by_side(tmp_path, capsys):
    make_run(tmp_path / "runs", "team_ce")
    make_run(tmp_path / "runs", "prog_kd", protocol="10 crops")
    call(collect, tmp_path / "runs", "--out", tmp_path / "study")
    printed = capsys.readouterr().out
    assert "toy holds runs of 2 settings" in printed
    ce, pkd = sorted(printed.split("## toy")[1:], key=lambda section: "10 crops" in section)
    assert "Protocol: 8 segments" in ce and "| CE " in ce and "| PKD " not in ce
    assert "Protocol: 10 crops" in pkd and "| PKD " in pkd and "| CE " not in pkd


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "is no folder of runs"),
        (lambda root: root.mkdir(), "no run below"),
        (lambda root: only_started(make_run(root)), " is finished\n  left out: "),
    ],
)
def test_nothing_to_collect_ends_in_an_error(tmp_path, capsys, make, message):
    make(tmp_path / "runs")
    with pytest.raises(SystemExit) as stop:
        call(collect, tmp_path / "runs", "--out", tmp_path / "study")
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
