"""second_edition.sh: the protocol's jobs, and when a unit has its rows."""

import itertools
import re
import subprocess
from pathlib import Path

import pytest

from tests.printed_jobs import MULTIRUNNER, commands_of, jobs_of, would_run
from tests.shell_jobs import run


def test_second_edition_is_the_one_of_its_protocol():
    jobs = commands_of("second_edition.sh", WEIGHTS="w", SPLITS="split2")
    results = [result for result, *_ in jobs if result != "-"]
    assert len(set(results)) == len(results)
    backbones = [(result, args) for result, module, args in jobs if module == "train_team_net"]
    assert len(backbones) == 2 * 3  # data sets, seeds
    for result, args in backbones:
        assert result.endswith(
            f"/{args.data_name}/streams/split2_seed{args.random_seed}/result.json"
        )
        assert args.checkpoint_dir.name == f"backbone{args.random_seed}"
        assert (args.fusion, args.pretrained, args.select_on) == ("sum", "imagenet", "last")
        assert args.num_segments == {"ucf101_13": 8, "jhmdb_21": 4}[args.data_name]
    exits = [args for _, module, args in jobs if module in ("train_prog_kd", "train_team_ce")]
    made = {result.replace("result.json", "best.pt") for result, _ in backbones}
    assert {str(args.pretrained) for args in exits} == made
    assert {args.random_seed for args in exits} == {1, 736, 4711}
    assert {args.ic_pool for args in exits} == {"mean"} and {args.views for args in exits} == {4}
    orders = {tuple(re.sub(r":\d+", "", a.schedule).split(",")) for a in exits if "schedule" in a}
    assert set(itertools.permutations(("mv", "residual", "iframe"))) <= orders
    fitted = {args.fit_on for _, module, args in jobs if module == "wise_team_net_logit"}
    assert fitted == {"train_views"}, "held-out videos are for thresholds"
    probes = [(result, args) for result, module, args in jobs if module == "train_i_frame_probe"]
    frames = [(args.data_name, args.num_segments) for _, args in probes]
    assert frames == [
        *(("ucf101_13", frames) for frames in (8, 1, 2, 4)),
        *(("jhmdb_21", frames) for frames in (4, 1, 2)),
    ]
    assert all(result.startswith(f"{args.checkpoint_dir}/") for result, args in probes)


def test_second_edition_has_backbones_of_half_the_videos_for_exits_with_few_labels(tmp_path):
    places = {"SPLITS": "split2", "RUNS": "new", "RESULTS": tmp_path}
    jobs = would_run("second_edition.sh", "--pools", WEIGHTS="w", **places)
    assert [module for module, _ in jobs] == ["train_team_net", "study.few_labels"] * 6
    for (_, backbone), (_, exits) in zip(jobs[::2], jobs[1::2]):
        for args in (backbone, exits):
            assert args.train_list.name == f"{args.data_name}_split2_train_pool1.txt"
            assert (args.select_on, args.heldout) == ("last", 0)
            assert "pools" in args.checkpoint_dir.parts
        assert exits.unlabelled.name == f"{exits.data_name}_split2_train_pool2.txt"
        folder = f"{backbone.checkpoint_dir}/{backbone.data_name}/streams/split2"
        assert exits.pretrained == f"{folder}_seed{backbone.random_seed}/best.pt"
        assert exits.exits == [1, 2, 3, 4] and exits.ic_pool == "mean"
    assert len({args.pretrained for module, args in jobs[1::2]}) == 6
    assert len({args.out for module, args in jobs[1::2]}) == 6
    rows = tmp_path / "few_labels/jhmdb_21/split2/backbone3"
    lines = run(MULTIRUNNER / "second_edition.sh", "--pools", "--dry-run", **places).splitlines()
    made = Path("new/pools/split2/backbone3/jhmdb_21/few_labels")
    assert f"cp {made}/cases.csv {rows} && " in lines[-1] and jobs[-1][1].out == made


@pytest.mark.parametrize("rows, options", [("", ()), ("few_labels/", ("--pools",))])
def test_a_unit_that_has_its_rows_is_done_though_its_runs_are_gone(rows, options, tmp_path):
    places = {"SPLITS": "split2", "RUNS": tmp_path / "runs", "RESULTS": tmp_path}
    places["BACKBONES"] = "2"
    done = tmp_path / rows / "jhmdb_21/split2/backbone2/recordings.csv"
    before = would_run("second_edition.sh", *options, **places)
    done.parent.mkdir(parents=True)
    done.touch()
    jobs = would_run("second_edition.sh", *options, **places)

    def units(jobs):
        folders = {"data_name", "checkpoint_dir"}
        return {
            (args.data_name, args.checkpoint_dir.name)
            for _, args in jobs
            if folders <= vars(args).keys()
        }

    assert units(before) - units(jobs) == {("jhmdb_21", "backbone2")}
    if not options:
        every = dict(jobs_of("second_edition.sh", WEIGHTS="w", **places))
        assert str(done) in every, "a row of it can run again"


def test_rows_of_a_unit_that_failed_are_not_taken_for_whole(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    made = runs / "pools/split2/backbone2/jhmdb_21/few_labels"
    made.mkdir(parents=True)
    for name in ("cases.csv", "recordings.csv"):  # of the cases that had run
        (made / name).touch()
    places = {"RUNS": runs, "RESULTS": results, "SPLITS": "split2", "SETS": "jhmdb_21"}
    places["BACKBONES"] = "2"
    options = "--pools", "--keep-going"
    script = MULTIRUNNER / "second_edition.sh"
    run(script, *options, fails=True, PYTHON="false", **places)
    assert not results.exists()
    done = runs / "pools/split2/backbone2/jhmdb_21/streams/split2_seed2"
    done.mkdir(exist_ok=True)
    (done / "result.json").touch()
    run(script, *options, PYTHON="true", **places)
    rows = results / "few_labels/jhmdb_21/split2/backbone2"
    assert {path.name for path in rows.iterdir()} == {"cases.csv", "recordings.csv"}


def test_tables_of_the_second_edition_are_of_the_units_that_have_all_rows(tmp_path):
    places = {"RUNS": "gone", "RESULTS": tmp_path}
    units = [tmp_path / f"jhmdb_21/{unit}" for unit in ("split1/backbone1", "split2/backbone3")]
    left_out = tmp_path / "jhmdb_21/split2/backbone1"
    for unit in (*units, left_out):
        unit.mkdir(parents=True)
        (unit / "exits.csv").touch()
    assert would_run("second_edition.sh", "--tables", **places) == []
    for unit in units:
        (unit / "recordings.csv").touch()
    jobs = would_run("second_edition.sh", "--tables", **places)
    assert not any(str(left_out) in f"{vars(args)}" for _, args in jobs)
    compared = [args for module, args in jobs if module == "study.compare"]
    assert {args.resample for args in compared} == {"backbone"}
    assert all(args.runs == [unit / "recordings.csv" for unit in units] for args in compared)
    assert len({args.out for args in compared}) == len(compared) == 8
    assert [args.mean_over for args in compared] == ["videos"] * 7 + ["classes"]
    by_name = dict(jobs)
    assert by_name["study.drops"].runs == [unit / "drops.csv" for unit in units]
    for name in ("study.top1", "study.teacher_order", "study.frontier"):
        assert by_name[name].studies == units
    assert not {"study.label_gain", "study.confusions", "study.verdicts"} & by_name.keys()
    few = tmp_path / "few_labels/jhmdb_21/split3/backbone2"
    other = tmp_path / "ucf101_13/split1/backbone1"
    for unit in (few, other):
        unit.mkdir(parents=True)
        (unit / "recordings.csv").touch()
    jobs = would_run("second_edition.sh", "--tables", **places)
    by_name = dict(jobs)
    assert by_name["study.label_gain"].folders == [few]
    assert by_name["study.confusions"].runs == [other / "confusions.csv"]
    outs = [args.out for module, args in jobs if module == "study.compare"]
    verdicts = by_name["study.verdicts"]
    assert sorted(verdicts.comparisons) == sorted(out for out in outs if out.stem != "by_class")
    assert verdicts.gains == [], "those are of one data set yet"


def test_rows_of_a_unit_are_made_below_its_runs_and_come_together(tmp_path):
    results = tmp_path / "results"
    places = {"RUNS": "new", "RESULTS": results, "SPLITS": "split1", "BACKBONES": "2"}
    (results / "jhmdb_21").mkdir(parents=True)
    (results / "jhmdb_21/timings.csv").touch()
    jobs = would_run("second_edition.sh", **places)
    made = {name: Path("new/split1/backbone2/rows") / name for name in ("ucf101_13", "jhmdb_21")}
    ours, theirs = (
        {module: args for module, args in jobs if str(rows) in f"{vars(args)}"}
        for rows in made.values()
    )
    assert ours.keys() - theirs.keys() == {"study.confusions"}  # where two encoders made the videos
    assert ours["study.confusions"].first == 7
    assert ours["study.drops"].timings is None
    assert theirs["study.drops"].timings == results / "jhmdb_21/timings.csv"
    assert len(ours["study.drops"].runs) == 6
    assert ours["study.collect"].out == made["ucf101_13"]
    counted = ours["study.compare"]
    assert counted.recordings == made["ucf101_13"] / "recordings.csv"
    sides = {side for pair in counted.pair for side in pair}
    study = results / "ucf101_13/split1/backbone2"
    for args in (args for module, args in tables_of(study) if module == "study.compare"):
        assert {side for pair in args.pair for side in pair} <= sides


@pytest.mark.parametrize("backbone", ["1", "2"])
def test_rows_of_a_unit_are_copied_only_when_all_are_there(tmp_path, backbone):
    results, runs = tmp_path / "results", tmp_path / "runs"
    places = {"RUNS": runs, "RESULTS": results, "SPLITS": "split1", "BACKBONES": backbone}
    done = results / f"ucf101_13/split1/backbone{backbone}/recordings.csv"
    done.parent.mkdir(parents=True)
    (done.parent / "flatness.csv").write_text("of a backbone that is gone")
    command = dict(jobs_of("second_edition.sh", SETS="ucf101_13", **places))[str(done)]
    rows = runs / f"split1/backbone{backbone}/rows/ucf101_13"
    rows.mkdir(parents=True)
    names = ["backbones", "choices", "confusions", "curves", "drops", "exits", "flatness"]
    names += ["points", "runs", "weights", "recordings"] + ["probes"] * (backbone == "1")
    for name in names[:-1]:
        (rows / f"{name}.csv").write_text(name)
    assert subprocess.run(command, check=False).returncode != 0
    assert not done.exists()
    (rows / f"{names[-1]}.csv").write_text(names[-1])
    subprocess.run(command, check=True)
    assert {path.name: path.read_text() for path in done.parent.iterdir()} == {
        f"{name}.csv": name for name in names
    }


@pytest.mark.parametrize("part", ["SETS", "SPLITS", "BACKBONES"])
def test_tables_are_not_of_a_part(tmp_path, part):
    """Where they are written there are tables of all."""
    script = MULTIRUNNER / "second_edition.sh"
    words = run(script, "--tables", "--dry-run", fails=True, RESULTS=tmp_path, **{part: "x"})
    assert f"without {part}" in words


def test_figures_of_tables_go_where_they_are_told(tmp_path):
    (tmp_path / "jhmdb_21/split1/backbone1").mkdir(parents=True)
    (tmp_path / "jhmdb_21/split1/backbone1/recordings.csv").touch()
    (tmp_path / "few_labels/jhmdb_21/split1/backbone1").mkdir(parents=True)
    (tmp_path / "few_labels/jhmdb_21/split1/backbone1/recordings.csv").touch()
    jobs = would_run("second_edition.sh", "--tables", RUNS="new", RESULTS=tmp_path, FIGURES="new")
    folders = {module: args.figures for module, args in jobs if hasattr(args, "figures")}
    assert folders == {**{"study.frontier": Path("new/jhmdb_21"), "study.label_gain": Path("new")}}


def test_preparing_begins_when_all_videos_are_there(tmp_path):
    (tmp_path / "ucf101_7").mkdir()
    script = MULTIRUNNER / "second_edition.sh"
    words = run(script, "--prepare", fails=True, VIDEOS=tmp_path, DATA=tmp_path / "data")
    assert "has no folder ucf101_6" in words and not (tmp_path / "data").exists()


def tables_of(study):
    study.mkdir(parents=True)
    (study / "recordings.csv").touch()
    return would_run("second_edition.sh", "--tables", RUNS="new", RESULTS=study.parents[2])
