"""How a job file runs, on one machine or in Slurm: what is skipped, what fails, what is saved."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.shell_jobs import NASTY, calls, run, stub_of_python


@pytest.fixture
def python(tmp_path):
    return stub_of_python(tmp_path)


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


def test_a_file_of_that_name_is_no_result_of_jobs_that_have_none(tmp_path, python):
    (tmp_path / "-").touch()
    file = tmp_path / "jobs.sh"
    file.write_text(f"cd {tmp_path}\n. {REPO}/multirunner/job.sh\njob - python one\n")
    assert "jobs: 1 done, 0 skipped" in run(file, **python)


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
