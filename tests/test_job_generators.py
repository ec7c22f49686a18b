"""What create_all_jobs.sh and the scripts that call it print: recipes, known options, names."""

import importlib
import itertools
import re
import shlex
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from conftest import REPO
from shell_jobs import NASTY, calls, run, stub_of_python

from study.sides import Side
from training import views
from training.recipes import METHODS, RESERVED
from training.resolve import resolve_recipe

MULTIRUNNER = REPO / "multirunner"
GENERATORS = (["create_all_jobs.sh"], ["ucf101_7.sh", "--jobs"], ["demo.sh", "--jobs"])
STAGES = ["backbone", "bank", "exits", "logits", "wise", "all-accuracy", "collect"]
SCRIPT_OF_STAGE = {
    "logits": "save_logits.py",
    "wise": "wise_team_net_logit.py",
    "all-accuracy": "team_net_wise_all_acc.py",
}
RESULT_OF_STAGE = {
    "backbone": "result.json",
    "exits": "result.json",
    "logits": "logits.pt",
    "wise": "wise.json",
    "all-accuracy": "trade_off.csv",
}


def create(*options, **others):
    return run("multirunner/create_all_jobs.sh", *options, **others)


def read_jobs(text):
    """[(stage, result, words of the command)] of a job file."""
    jobs, stage = [], None
    for line in text.splitlines():
        marker = re.fullmatch(r"# stage: (\S+)", line)
        if marker:
            stage = marker[1]
        elif stage:
            head, result, *command = shlex.split(line)
            assert head == "job" and command[0] in ("python", "sh"), line
            jobs.append((stage, result, command[1:]))
    return jobs


def parse(words):
    """(script, its parsed options); ends the test when the script does not know an option."""
    if words[0] == "-m":
        module, words = words[1], words[2:]
    else:
        module, words = words[0].removesuffix(".py"), words[1:]
    if module == "training.views":
        return module, views.get_fill_parser().parse_args(words)
    return module, importlib.import_module(module).get_args_parser().parse_args(words)


@pytest.mark.parametrize("command", GENERATORS, ids=lambda command: command[0])
def test_every_command_is_known_to_its_script_and_makes_its_result(command):
    jobs = read_jobs(run(MULTIRUNNER / command[0], *command[1:]))
    assert list(dict.fromkeys(stage for stage, *_ in jobs)) == STAGES
    assert len({" ".join(words) for *_, words in jobs}) == len(jobs)
    trained = set()
    for stage, result, words in jobs:
        module, args = parse(words)
        if stage in ("bank", "collect"):
            assert module == {"bank": "training.views", "collect": "study.collect"}[stage]
            assert result == "-"
            continue
        if stage == "backbone":
            method = "team_net"
        elif stage == "exits":
            method = getattr(args, "method", module.removeprefix("train_"))
        else:
            method = args.method
            assert words[0] == SCRIPT_OF_STAGE[stage]
        folder = f"{args.checkpoint_dir}/{args.data_name}/{method}"
        run_folder = f"{folder}/{args.split}_seed{args.random_seed}"
        assert result == f"{run_folder}/{RESULT_OF_STAGE[stage]}"
        if stage in ("backbone", "exits"):
            assert args.resume
            trained.add(run_folder)
        assert run_folder in trained


def test_questions_are_asked_with_known_options_of_the_study_s_backbones():
    out = run(MULTIRUNNER / "ucf101_7_questions.sh", "--dry-run", SPLITS="split1", PYTHON="python")
    jobs = [parse(shlex.split(line)[2:]) for line in out.splitlines() if line.startswith("+ ")]
    assert {module for module, _ in jobs} >= {"training.views", "train_team_ce", "train_prog_kd"}
    folders = {(str(args.checkpoint_dir), getattr(args, "method", None)) for _, args in jobs}
    assert ("runs/equal", "ce_equal") in folders and ("runs/mixup", "prog_kd") in folders
    for module, args in jobs:
        if module == "train_team_net" or args.checkpoint_dir.name not in ("longer", "mixup"):
            assert str(args.pretrained) == "runs/ucf101_7/team_net/split1_seed1/best.pt"
        if module == "train_prog_kd":
            assert (args.epochs, args.batch_size, args.lr) == (40, 64, 0.01)
    text = (MULTIRUNNER / "ucf101_7_questions.sh").read_text()
    script = text[text.index("\nmain=") :]
    for first, second in re.findall(r"--pair (\S+) (\S+)", script):
        for side in (first, second):
            method = Side.parse(side).method
            known = {*METHODS, *(method for _, method in folders)}
            assert method in known, side


def jobs_of(script, **environment):
    """[(result, words of the command)] of what a script with --jobs prints."""
    lines = run(MULTIRUNNER / script, "--jobs", **environment).splitlines()
    jobs = [shlex.split(line)[1:] for line in lines if line.startswith("job ")]
    return [(result, command) for result, *command in jobs]


def commands_of(script, **environment):
    """[(result, script, its parsed options)] of its jobs in Python."""
    jobs = jobs_of(script, **environment)
    return [(result, *parse(words[1:])) for result, words in jobs if words[0] == "python"]


def would_run(script, *options, **environment):
    """[(script, its parsed options)] of what a job file says that it would run.

    RUNS must be the test's own, and RESULTS where it matters: what is done there is left out.
    """
    assert "RUNS" in environment
    lines = run(MULTIRUNNER / script, *options, "--dry-run", **environment).splitlines()
    return [parse(shlex.split(line)[2:]) for line in lines if line.startswith("+ python3 ")]


@pytest.mark.parametrize("script", ["ucf101_7_mobilenet.sh", "ucf101_7_tuning.sh"])
def test_pretrained_streams_are_trained_alone_and_then_joined(script):
    jobs = commands_of(script, WEIGHTS="w")
    ready, joined = set(), 0
    for result, module, args in jobs:
        if module == "train_team_net":
            method = "streams" if args.fusion == "sum" else "team_net"
            folder = f"{args.checkpoint_dir}/{args.data_name}/{method}/{args.split}_seed1"
            assert result == f"{folder}/result.json" and args.resume
            assert args.select_on == "last" and args.precision == "auto"
            if args.pretrained == "imagenet":
                assert str(args.weights_dir) == "w"
            else:
                assert args.pretrained in ready, "streams are trained before they are joined"
                assert args.fusion != "sum" and args.weights_dir is None
                joined += 1
            ready.add(f"{folder}/best.pt")
        elif module == "train_i_frame_probe":
            assert result.endswith(f"ucf101_7/i_frame_probe/{args.split}_seed1/result.json")
            assert (args.arch, args.num_segments, args.crop_size) == ("mobilenet_v2", 8, 132)
    assert joined == (3 if script == "ucf101_7_mobilenet.sh" else 12)
    results = [result for result, *_ in jobs if result != "-"]
    assert len(set(results)) == len(results), "no job makes what another makes"


def test_networks_of_all_videos_follow_the_same_recipe():
    script = "ucf101_7_mobilenet.sh"
    chosen = [
        args for _, module, args in commands_of(script, RUNS="new") if module == "train_team_net"
    ]
    again = [args for _, args in would_run(script, "--all", RUNS="new")]
    assert len(again) == len(chosen) == 6
    for args, before in zip(again, sorted(chosen, key=lambda args: args.split)):
        assert args.heldout == 0 and args.select_on == "last"
        if before.pretrained != "imagenet":
            before.pretrained = before.pretrained.replace("new/", "new/all/")
        before.heldout, before.checkpoint_dir = 0, args.checkpoint_dir
        assert vars(args) == vars(before)
        assert str(args.checkpoint_dir) == "new/all"


def test_variants_can_be_picked():
    jobs = commands_of("ucf101_7_tuning.sh", NAMES="base ema", SPLITS="split2")
    trained = [args for _, module, args in jobs if module == "train_team_net"]
    assert [(args.ema, args.split) for args in trained] == [(0, "split2"), (0.95, "split2")]


def test_the_whole_study_is_the_published_recipe():
    jobs = read_jobs(create())
    splits, seeds = ["split1", "split2", "split3"], [1, 736, 4711]
    counts = Counter(stage for stage, *_ in jobs)
    exits = 2 * len(splits) * len(seeds) * len(METHODS)
    expected = {stage: exits for stage in STAGES[2:-1]}
    assert counts == {"backbone": 6, "bank": 6, **expected, "collect": 2}
    seen = set()
    for stage, _, words in jobs:
        if stage not in ("backbone", "exits"):
            continue
        module, args = parse(words)
        # Written out, and equal to the defaults: the file reads as the recipe.
        written = {"--epochs", "--batch-size", "--lr", "--lr-steps", "--wd"}
        assert written <= set(words)
        _, defaults = parse(bare(words))
        resolve_recipe(defaults)
        for key in ("epochs", "batch_size", "lr", "lr_steps", "wd", "schedule"):
            assert getattr(args, key, None) == getattr(defaults, key, None)
        assert {args.arch, args.num_segments, args.dropout} == {None}  # the published network
        place = (args.data_name, args.split, args.random_seed)
        if stage == "backbone":
            assert args.random_seed == 1
        else:
            place = (*place, module.removeprefix("train_"))
        assert place not in seen
        seen.add(place)
    assert {place[1] for place in seen} == set(splits)
    assert {place[2] for place in seen if len(place) == 4} == set(seeds)


def bare(words):
    """A command with its required options only."""
    script, *rest = words
    kept = {"--data-name", "--data-root", "--train-list", "--test-list"}
    pairs = [(rest[n], rest[n + 1]) for n in range(len(rest) - 1) if rest[n] in kept]
    return [script, *(word for pair in pairs for word in pair)]


def test_flags_replace_those_of_the_recipe():
    text = create(
        *("--data", "mine", "--splits", "s", "--seeds", "5", "--methods", "prog_kd two:mv:9,fused"),
        *("--exit-flags", "--epochs 12 --lr-steps 4 8", "--backbone", "b/{data}_{split}.pt"),
        *("--shards", "2"),
    )
    jobs = read_jobs(text)
    assert "backbone" not in {stage for stage, *_ in jobs}
    shards = [parse(words)[1] for stage, _, words in jobs if stage == "bank"]
    assert [args.shard for args in shards] == [(1, 2), (2, 2)]
    assert {args.pretrained for args in shards} == {"b/mine_s.pt"}
    (_, own), (_, two) = (parse(words) for stage, _, words in jobs if stage == "exits")
    for args in (own, two):
        assert (args.epochs, args.lr_steps, args.batch_size) == (12, [4, 8], 64)
        assert args.pretrained == "b/mine_s.pt" and args.random_seed == 5
    assert (own.method, own.schedule) == ("prog_kd", "mv:3,residual:3,iframe")
    assert (two.method, two.schedule) == ("two", "mv:9,fused")
    assert text.count("--epochs ") == 3  # twice in commands, once in the line that made them


@pytest.mark.parametrize(
    "options, message",
    [
        (["--data"], "--data needs a value"),
        (["--dta", "x"], "no option --dta"),
        (["x"], "no argument x"),
        (["--seeds", "1 x"], "--seeds x is not"),
        (["--methods", "team_ce mine"], "mine:SCHEDULE"),
        (["--methods", "i_frame:mv"], "i_frame has its own teachers"),
        (["--splits", "../s"], "no / and no dot"),
        (["--runs", "a\nb"], "a line break"),
        (["--seeds", "1 07"], "--seeds 07 begins with a 0"),
        (["--backbone-seed", "x"], "--backbone-seed x is not"),
        (["--methods", "streams:mv"], "streams is what another script makes"),
        (["--backbone-flags", "--pretrained imagenet"], "the option for it is --init"),
        (["--exit-flags", "--lr 1 --random_seed=4"], "the option for it is --seeds"),
        (["--all-flags", "--split a"], "the option for it is --splits"),
        (["--policy-flags", "--method x"], "the option for it is --methods"),
    ],
)
def test_wrong_options_print_no_jobs(options, message):
    assert message in create(*options, fails=True)


def test_no_folder_of_another_script_is_a_method():
    text = (MULTIRUNNER / "create_all_jobs.sh").read_text()
    (names,) = re.findall(r"^ +((?:\w+:\* \| )+\w+:\*)\)$", text, re.MULTILINE)
    assert {name.removesuffix(":*") for name in names.split(" | ")} == set(RESERVED)


def test_streams_alone_have_their_folder_seed_and_exits():
    text = create(
        *("--data", "d", "--splits", "s", "--seeds", "5", "--methods", "team_ce"),
        *("--runs", "my/team_net/runs", "--init", "imagenet", "--backbone-seed", "3"),
        *("--backbone-flags", "--fusion sum --lr-schedule=cosine --epochs=4"),
    )
    (backbone, _, exits, logits, *_) = read_jobs(text)
    args = parse(backbone[2])[1]
    assert (args.fusion, args.random_seed, args.pretrained) == ("sum", 3, "imagenet")
    assert (args.epochs, args.lr_steps) == (4, None)
    folder = "my/team_net/runs/d/streams/s_seed3"
    assert backbone[1] == f"{folder}/result.json"
    for job in (exits, logits):
        assert parse(job[2])[1].pretrained == f"{folder}/best.pt"


@pytest.mark.parametrize(
    "script", ["second_edition.sh", "ucf101_7_mobilenet.sh", "ucf101_7_tuning.sh"]
)
def test_printed_jobs_run_on_hosts_stage_by_stage(tmp_path, script):
    """Whatever the folder of the runs is called."""
    runs = "some/team_net/a,b"
    text = run(MULTIRUNNER / script, "--jobs", RUNS=runs, SPLITS="split1 split2")
    (tmp_path / "jobs.sh").write_text(text)
    hosts = MULTIRUNNER / "hosts.txt"
    shown = run(MULTIRUNNER / "multirunner.sh", "--dry-run", hosts, tmp_path / "jobs.sh")
    jobs = [line for line in text.splitlines() if line.startswith("job ")]
    assert [line for line in shown.splitlines() if line.startswith("job ")] == jobs
    made = set()
    for stage, result, words in read_jobs(text):
        paths = [word for word in words if word.startswith(runs)]
        needed = [path for path in paths if path.endswith("best.pt")]
        assert all(path in made for path in needed), (stage, words)
        if result != "-":
            assert result.startswith((runs, "results"))
            made.add(result.replace("result.json", "best.pt"))
    assert made


def test_names_reach_the_scripts_as_they_are(tmp_path):
    python = stub_of_python(tmp_path)
    root = tmp_path / NASTY
    root.mkdir()
    options = ["--data", "toy", "--splits", "split1", "--seeds", "1", "--methods", "team_ce"]
    places = ["--data-root", root, "--lists", f"{root}/{{split}} {{part}} {{x}}.txt"]
    file = root / "jobs.sh"
    file.write_text(create(*options, *places, "--runs", root / "runs", "--results", root / "out"))
    run(file, "--keep-going", fails=True, **python)  # the stub leaves no results
    given = calls(python)
    scripts = ["train_team_net.py", "-m", "train_team_ce.py", "save_logits.py"]
    assert [words[0] for words in given[:4]] == scripts
    for words in given[:4]:
        _, args = parse(words)
        assert args.data_root == root and args.checkpoint_dir == root / "runs"
        assert args.train_list == root / "split1 train {x}.txt"
    assert given[-1][-1] == str(root / "out")
    assert not list(tmp_path.rglob("pwned")) and not (REPO / "pwned").exists()


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


def test_tables_of_the_second_edition_are_of_the_units_that_are_there(tmp_path):
    places = {"RUNS": "gone", "RESULTS": tmp_path}
    units = [tmp_path / f"jhmdb_21/{unit}" for unit in ("split1/backbone1", "split2/backbone3")]
    for unit in units:
        unit.mkdir(parents=True)
        (unit / "exits.csv").touch()
    jobs = would_run("second_edition.sh", "--tables", **places)
    assert [module for module, _ in jobs] == ["study.top1", "study.teacher_order", "study.frontier"]
    assert all(args.studies == units for _, args in jobs)
    for name in ("recordings.csv", "drops.csv"):
        (units[1] / name).touch()
    jobs = would_run("second_edition.sh", "--tables", **places)
    assert "study.compare" not in dict(jobs), "older comparisons are of more backbones"
    (units[0] / "recordings.csv").touch()
    jobs = would_run("second_edition.sh", "--tables", **places)
    compared = [args for module, args in jobs if module == "study.compare"]
    assert {args.resample for args in compared} == {"backbone"}
    assert all(args.runs == [unit / "recordings.csv" for unit in units] for args in compared)
    assert len({args.out for args in compared}) == len(compared) == 8
    assert [args.mean_over for args in compared] == ["videos"] * 7 + ["classes"]
    by_name = dict(jobs)
    assert by_name["study.drops"].runs == [units[1] / "drops.csv"]
    assert not {"study.label_gain", "study.confusions"} & by_name.keys()
    few = tmp_path / "few_labels/jhmdb_21/split3/backbone2"
    few.mkdir(parents=True)
    (few / "recordings.csv").touch()
    jobs = dict(would_run("second_edition.sh", "--tables", **places))
    assert jobs["study.label_gain"].folders == [few]


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
    (tmp_path / "jhmdb_21/split1/backbone1/exits.csv").touch()
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
    for name in ("recordings.csv", "exits.csv"):
        (study / name).touch()
    return would_run("second_edition.sh", "--tables", RUNS="new", RESULTS=study.parents[2])


RUN_THEMSELVES = [
    ("demo.sh",),
    ("ucf101_7.sh",),
    ("ucf101_7_mobilenet.sh",),
    ("ucf101_7_mobilenet.sh", "--all"),
    ("ucf101_7_tuning.sh",),
    ("second_edition.sh",),
    ("second_edition.sh", "--pools"),
]
own_jobs = pytest.mark.parametrize(
    "command", [*RUN_THEMSELVES, ("ucf101_7_questions.sh",)], ids=" ".join
)


def places_of(folder):
    names = ("VIDEOS", "DATA", "RUNS", "RESULTS")
    return {**stub_of_python(folder), **{name: folder / name for name in names}}


@own_jobs
def test_a_dry_run_does_nothing_in_any_order_of_the_options(command, tmp_path):
    python = places_of(tmp_path)
    out = run(MULTIRUNNER / command[0], *command[1:], "--keep-going", "--dry-run", **python)
    assert "\n+ " in f"\n{out}"
    assert calls(python) == [] and [path.name for path in tmp_path.iterdir()] == ["python_stub"]


@pytest.mark.parametrize("script", ["ucf101_7.sh", "second_edition.sh"])
@pytest.mark.parametrize("words", [("--prepare", "--dry-run"), ("--dry-run", "--prepare")])
def test_a_preparation_has_no_dry_run(script, words, tmp_path):
    python = places_of(tmp_path)
    run(MULTIRUNNER / script, *words, fails=True, **python)
    assert calls(python) == []


@own_jobs
def test_no_job_runs_where_not_all_can_be_made(command, tmp_path):
    python = places_of(tmp_path)
    wrong = {"SPLITS": "split1 ../x"}
    if command[0] == "ucf101_7_mobilenet.sh":  # one job file a split
        wrong = {"SPLITS": "../x"}
    elif command[0] == "demo.sh":
        wrong = {"RUNS": "a\nb"}
    elif command[0] == "second_edition.sh":
        wrong = {"SETS": "jhmdb_21 ../x"}
    said = run(MULTIRUNNER / command[0], *command[1:], fails=True, **{**python, **wrong})
    assert "create_all_jobs.sh: " in said and calls(python) == []
    if command in RUN_THEMSELVES:
        run(MULTIRUNNER / command[0], "--jobs", fails=True, **{**python, **wrong})


@own_jobs
def test_paths_with_blanks_are_refused_or_reach_the_scripts(command, tmp_path):
    """In RUNS, DATA and RESULTS; as a dry run shows them."""
    python = places_of(tmp_path)
    for name in ("RUNS", "DATA", "RESULTS"):
        places = {**python, name: tmp_path / "a b"}
        words = [MULTIRUNNER / command[0], *command[1:], "--dry-run"]
        if command[0] in ("demo.sh", "ucf101_7.sh"):
            out = run(*words, **places)
            assert str(places[name]) in out or (command[0], name) == ("demo.sh", "RESULTS")
        elif command[0] != "ucf101_7_questions.sh" or name == "RUNS":
            said = run(*words, fails=True, **places)
            assert f"{name}='{places[name]}'" in said and "symbolic link" in said


@pytest.mark.parametrize(
    "command", [("ucf101_7_mobilenet.sh",), ("ucf101_7_questions.sh",)], ids=" ".join
)
def test_keep_going_passes_a_group_of_jobs_with_a_failure(command, tmp_path):
    """To all that come after it; without --keep-going they do not run."""
    python = places_of(tmp_path)  # it leaves no results, so each job has failed
    script = MULTIRUNNER / command[0]
    run(script, fails=True, **python)
    first = len(calls(python))
    assert first <= 4  # banks, which say nothing of a result, and one more
    run(script, "--keep-going", fails=True, **python)
    asked = [parse(words) for words in calls(python)[first:]]
    if command[0] == "ucf101_7_mobilenet.sh":
        splits = {args.split for module, args in asked if module == "train_prog_kd"}
        assert splits == {"split1", "split2", "split3"}
    else:
        compared = {args.out.stem for module, args in asked if module == "study.compare"}
        assert {"published", "fp32", "mixup_to_longer"} <= compared
        groups = {args.checkpoint_dir.name for module, args in asked if module == "train_prog_kd"}
        assert groups == {"equal", "chosen", "independent-crops", "longer", "mixup"}
    assert asked[-1][0] in ("study.collect", "benchmarks.recipes")
