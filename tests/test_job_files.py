"""Job files: what create_all_jobs.sh prints, and how a job file runs on one machine or in Slurm."""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import REPO

from study.compare import Side
from training import views
from training.options import METHODS
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
# The published recipes: epochs, batch, lr, lr steps, weight decay, teachers.
BACKBONE = {
    "ucf101": (30, 16, 0.02, [5, 10, 15], 1e-4),
    "hmdb51": (30, 16, 0.02, [10, 15, 20], 5e-4),
}
EXITS = {
    ("team_ce", "ucf101"): (30, 128, 0.02, [5, 10, 15], 1e-4, None),
    ("team_ce", "hmdb51"): (30, 128, 0.02, [5, 10, 15], 1e-4, None),
    ("prog_kd", "ucf101"): (40, 64, 0.01, [25, 30, 35], 1e-4, "mv:3,residual:3,iframe"),
    ("prog_kd", "hmdb51"): (40, 64, 0.02, [25, 30, 35], 1e-4, "mv:3,residual:3,iframe"),
    ("prog_kd_anti", "ucf101"): (30, 64, 0.01, [15, 20, 25], 1e-4, "iframe:15,residual:10,mv"),
    ("prog_kd_anti", "hmdb51"): (30, 64, 0.01, [15, 20, 25], 1e-4, "iframe:15,residual:10,mv"),
    ("i_frame", "ucf101"): (30, 64, 0.01, [15, 20, 25], 1e-4, None),
    ("i_frame", "hmdb51"): (34, 64, 0.02, [18, 24, 28], 1e-4, None),
}
NASTY = "a b'c$(touch pwned)\"`touch pwned`;&\\n*"


def run(*command, fails=False, cwd=REPO, **environment):
    process = subprocess.run(
        ["sh", *map(str, command)],
        cwd=cwd,
        env={**os.environ, **{key: str(value) for key, value in environment.items()}},
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert (process.returncode != 0) == fails, process.stdout + process.stderr
    return process.stderr if fails else process.stdout


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
            assert head == "job" and command[0] == "python", line
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
        # Written out, not left to the defaults, and equal to them: the file reads as the recipe.
        written = {"--epochs", "--batch-size", "--lr", "--lr-steps", "--wd", "--num_segments"}
        assert written <= set(words)
        _, defaults = parse(bare(words))
        resolve_recipe(defaults)
        recipe = (args.epochs, args.batch_size, args.lr, args.lr_steps, args.wd)
        assert recipe == tuple(
            getattr(defaults, key) for key in ("epochs", "batch_size", "lr", "lr_steps", "wd")
        )
        assert (args.arch, args.num_segments, args.dropout) == ("resnet50", 8, 0.5)
        place = (args.data_name, args.split, args.random_seed)
        if stage == "backbone":
            assert recipe == BACKBONE[args.data_name] and args.random_seed == 1
        else:
            method = module.removeprefix("train_")
            assert (*recipe, getattr(args, "schedule", None)) == EXITS[method, args.data_name]
            place = (*place, method)
        assert place not in seen
        seen.add(place)
    assert {place[1] for place in seen} == set(splits)
    assert {place[2] for place in seen if len(place) == 4} == set(seeds)


def bare(words):
    """A command with only the options that it cannot do without."""
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
    ],
)
def test_wrong_options_print_no_jobs(options, message):
    assert message in create(*options, fails=True)


@pytest.fixture
def python(tmp_path):
    """A `python` that writes the options it was given, as JSON, and its result if it has one."""
    file = tmp_path / "python_stub"
    file.write_text(
        f"#!{sys.executable}\nimport json, os, pathlib, sys\n"
        "with open(os.environ['CALLS'], 'a') as file:\n"
        "    file.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "for line in os.environ.get('FAILING', '').split():\n"
        "    if line in sys.argv: sys.exit(9)\n"
        "if os.environ.get('RESULT'): pathlib.Path(os.environ['RESULT']).touch()\n"
    )
    file.chmod(0o755)
    return {"PYTHON": file, "CALLS": tmp_path / "calls"}


def calls(python):
    text = python["CALLS"].read_text() if python["CALLS"].exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def test_names_reach_the_scripts_as_they_are(tmp_path, python):
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


def job_file(folder, *lines):
    file = folder / "jobs.sh"
    file.write_text("\n".join([". multirunner/job.sh", "# stage: a", *lines, ""]))
    return file


def test_done_jobs_are_skipped_and_the_others_run(tmp_path, python):
    there, new = tmp_path / "there", tmp_path / "sub/new"
    there.touch()
    file = job_file(tmp_path, f"job {there} python one", f"job {new} python two", "job - python 3")
    output = run(file, RESULT=new, **python)
    assert f"skipped, {there} is there" in output
    assert "jobs: 2 done, 1 skipped, 0 failed" in output
    assert calls(python) == [["two"], ["3"]]
    assert os.listdir(tmp_path / "sub") == ["new"]  # no lock is left
    assert "jobs: 1 done, 2 skipped" in run(file, **python)


def test_a_failure_stops_or_is_counted_by_choice(tmp_path, python):
    lines = ["job - python one", "job - python bad", f"job {tmp_path}/x python two"]
    file = job_file(tmp_path, *lines)
    process = subprocess.run(
        ["sh", file], cwd=REPO, env={**os.environ, **python, "FAILING": "bad"}, capture_output=True
    )
    assert process.returncode == 9 and b"failed with exit code 9" in process.stdout
    assert calls(python) == [["one"], ["bad"]]
    process = subprocess.run(
        ["sh", file, "--keep-going"],
        cwd=REPO,
        env={**os.environ, **python, "FAILING": "bad"},
        capture_output=True,
    )
    assert process.returncode == 1 and b"jobs: 1 done, 0 skipped, 2 failed" in process.stdout
    assert f"{tmp_path}/x was not written".encode() in process.stderr
    assert calls(python)[2:] == [["one"], ["bad"], ["two"]]


def test_a_dry_run_runs_nothing(tmp_path, python):
    output = run(job_file(tmp_path, "job - python one"), "--dry-run", **python)
    assert "+ " in output and output.rstrip().endswith("one") and not calls(python)
    run(job_file(tmp_path, "job - python one"), "--dryrun", fails=True, **python)
    assert not calls(python)


@pytest.mark.parametrize(
    "hosts, jobs, message",
    [
        (
            "host1\nhost 2\n",
            "# stage: a\ntrue\n",
            'hosts.txt:2: "host 2" is not [JOBS/][USER@]HOST',
        ),
        ("0/host1\n", "# stage: a\ntrue\n", "hosts.txt:1"),
        ("-oProxyCommand=x\n", "# stage: a\ntrue\n", "hosts.txt:1"),
        ("host1\n2/host1", "# stage: a\ntrue\n", "host1 is there twice"),
        ("# nothing\n\n", "# stage: a\ntrue\n", "names no host"),
        ("host1", "true\n", "no jobs; they stand below"),
        ("host1", "# stage: a\ntrue\n# stage: a\ntrue\n", "stage a is there twice"),
        ("host1", "# stage: a/b\ntrue\n", "jobs.sh:1: a stage is named by letters"),
        ("host1", "# stage: a\ntrue \\\n  x\n", "jobs.sh:2: a job is one line"),
    ],
)
def test_bad_hosts_and_job_files_are_refused(tmp_path, hosts, jobs, message):
    (tmp_path / "hosts.txt").write_text(hosts)
    (tmp_path / "jobs.sh").write_text(jobs)
    files = [tmp_path / "hosts.txt", tmp_path / "jobs.sh"]
    assert message in run("multirunner/multirunner.sh", "--dry-run", *files, fails=True)


def test_a_dry_run_of_the_multirunner_shows_hosts_and_jobs(tmp_path):
    (tmp_path / "hosts.txt").write_text("# mine\n\nanna@host1  # old\r\n4/host2")
    job_file(tmp_path, "job - true", "# no job", "", "false")
    files = [tmp_path / "hosts.txt", tmp_path / "jobs.sh"]
    output = run("multirunner/multirunner.sh", "--dry-run", *files)
    expected = ["host: 1/anna@host1", "host: 4/host2", "# stage: a", "job - true", "false"]
    assert output.splitlines() == expected


SBATCH = """
# Runs the array at once, one task after the other, and writes down how it was called.
id=$(($(wc -l < "$CALLS.sbatch" 2>/dev/null || echo 0) + 1))
echo "$*" >> "$CALLS.sbatch"
cat > "$CALLS.script"
for word; do case $word in --array=1-*) count=${word#--array=1-} ;; esac; done
n=0
while [ $n -lt $count ]; do
    n=$((n + 1))
    (cd / && SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$n sh "$CALLS.script") >> "$CALLS.out" 2>&1
done
echo "$id;cluster"
"""


def test_slurm_arrays_run_every_job_after_the_stage_before(tmp_path, python):
    """With a stand-in for sbatch: there is no Slurm here."""
    programs = {"sbatch": SBATCH, "srun": '"$@"\n', "scontrol": 'echo "$@" >> "$CALLS.scontrol"\n'}
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "config.sh").write_text('cd "$checkout" # it\'s here\n')
    lines = [f"job - python {n} {shlex.quote(NASTY)}" for n in range(3)]
    file = job_file(tmp_path, *lines, "# stage: b", "job - python last", "exit 75")
    places = ["--config", tmp_path / "config.sh", "--joblog", tmp_path / "logs/it's"]
    submit = tmp_path / "submit.sh"
    submit.write_text(run("multirunner/multirunner.sh", "--slurm", *places, file))
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    output = run(submit, "--partition=gpu", PATH=path, **python)
    assert output.splitlines() == ["1;cluster  a: 3 jobs", "2;cluster  b: 2 jobs"]
    assert calls(python) == [*([str(n), NASTY] for n in range(3)), ["last"]]
    first, second = Path(f"{python['CALLS']}.sbatch").read_text().splitlines()
    assert "--array=1-3" in first and "--partition=gpu" in first and "--dependency" not in first
    assert "--array=1-2" in second and "--dependency=afterok:1 " in second
    assert "--output=" in first and "logs/it's.d/01_a_%a.log" in first
    # A job that was told to stop, and saved itself, goes back into the queue.
    assert Path(f"{python['CALLS']}.scontrol").read_text() == "requeue 2_2\n"


SAVES = """
import pathlib, signal, sys, time
def save(number, _):
    time.sleep(0.5)
    print("saved at", signal.Signals(number).name, flush=True)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, save)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGUSR1, 75)])
def test_a_stopped_job_has_the_time_to_save_itself(tmp_path, number, status):
    (tmp_path / "saves.py").write_text(SAVES)
    going, result = tmp_path / "going", tmp_path / "result"
    file = job_file(tmp_path, f"job {result} python {tmp_path}/saves.py {going}", f"touch {result}")
    process = subprocess.Popen(
        ["sh", file],
        cwd=REPO,
        env={**os.environ, "PYTHON": sys.executable},
        text=True,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    while not going.exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == status and not result.exists()
    assert output.index(f"saved at {number.name}") < output.index("jobs: 0 done")
