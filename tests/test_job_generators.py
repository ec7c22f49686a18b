"""What create_all_jobs.sh and the scripts that call it print: recipes, known options, names."""

import re
import shlex
from collections import Counter

import pytest

from study.sides import Side
from tests.conftest import REPO
from tests.printed_jobs import MULTIRUNNER, commands_of, parse, read_jobs, would_run
from tests.shell_jobs import NASTY, calls, run, stub_of_python
from training.recipes import METHODS, RESERVED
from training.resolve import resolve_recipe

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
