"""The multirunner on real SSH servers of this machine, with jobs that take no time."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import REPO
from tests.loopback_hosts import LoopbackHosts, missing_programs, processes_of
from tests.shell_jobs import heed_interrupts
from tests.tools import lacking

# What each test job does: it says when it starts and ends, and on which host, and writes its
# result. It waits while a file `hold` is there, for the tests that interrupt it.
WORK = """
name=$1 seconds=$2
shared=$(dirname "$0")
echo "start $name $(basename "$HOME") ${CUDA_VISIBLE_DEVICES-none}" >> "$shared/log"
sleep "$seconds"
while [ -e "$shared/hold" ]; do sleep 0.1; done
case $name in
    flaky*)
        echo "try of $name" >> "$shared/tries"
        [ "$(wc -l < "$shared/tries")" -ge 3 ] || { echo "this one fails" >&2; exit 7; } ;;
esac
echo "$name" > "$shared/done/$name"
echo "end $name $(basename "$HOME")" >> "$shared/log"
"""
NASTY = "a b'c$(touch pwned)\"`touch pwned`;&\\n*"


CODE = [path.name for path in REPO.glob("*.py")]
CODE += ["MACs", "coviar", "dataset_team", "early_exit", "models", "training"]


class Farm:
    """Three hosts, each with a checkout of its own, that share one folder of results."""

    def __init__(self, folder):
        self.folder = folder
        self.hosts = LoopbackHosts(folder, 3)
        self.shared = folder / "shared"
        (self.shared / "done").mkdir(parents=True)
        (self.shared / "work.sh").write_text(WORK)
        (self.shared / "log").write_text("")
        for name in self.hosts.names:
            copy_checkout(self.hosts.home(name) / "team net", ["multirunner"])
        self.config = folder / "config.sh"
        self.config.write_text("cd ~/'team net'  # of each host\nexport LOCK_WAIT=30\n")

    def command(self, jobs, *options, hosts="host1\nhost2\nhost3\n"):
        """The runner's command for `jobs`: {stage: lines}; a line may be the name of a job."""
        text = "".join(
            f"# stage: {stage}\n" + "".join(f"{line}\n" for line in lines)
            for stage, lines in jobs.items()
        )
        (self.folder / "jobs.sh").write_text(text)
        (self.folder / "hosts.txt").write_text(hosts)
        places = ["--config", self.config, "--joblog", self.folder / "joblog"]
        files = [self.folder / "hosts.txt", self.folder / "jobs.sh"]
        return ["sh", REPO / "multirunner/multirunner.sh", *options, *places, *files]

    def run(self, jobs, *options, fails=False, **others):
        process = self.start(jobs, *options, **others)
        output, _ = process.communicate(timeout=100)
        assert (process.returncode != 0) == fails, output
        return output

    def start(self, jobs, *options, **others):
        return subprocess.Popen(
            self.command(jobs, *options, **others),
            env=self.hosts.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )

    def job(self, name, seconds=0.2):
        result = quote(self.shared / "done" / name)
        return f"job {result} sh {self.shared}/work.sh {quote(name)} {seconds}"

    def log(self):
        """The words of each line the jobs wrote, in order; names come without their spaces."""
        return [line.split() for line in (self.shared / "log").read_text().splitlines()]

    def events(self, kind):
        return [line[1] for line in self.log() if line[0] == kind]

    def wait_for(self, condition, words):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"{words}: {self.log()}"
            time.sleep(0.05)

    def working(self):
        """Which of the hosts' processes are test jobs."""
        pids = [pid for name in self.hosts.names for pid in processes_of(self.hosts.home(name))]
        return [pid for pid in pids if b"work.sh" in command_line(pid)]


def quote(text):
    return "'" + str(text).replace("'", "'\\''") + "'"


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""  # ended meanwhile


def copy_checkout(target, names):
    """Files and folders of this repository, with what numba has compiled."""
    for name in names:
        source = REPO / name
        if source.is_dir():
            shutil.copytree(source, target / name)
        else:
            shutil.copy(source, target / name)


@pytest.fixture
def farm(tmp_path):
    missing = missing_programs()
    if missing:
        lacking(f"not installed: {', '.join(missing)}")
    farm = Farm(tmp_path)
    with farm.hosts:
        yield farm


def test_every_job_runs_once_and_stages_keep_their_order(farm):
    first = [f"a{n}" for n in range(9)]
    second = [f"b{n}" for n in range(3)]
    jobs = {"exits": map(farm.job, first), "logits": map(farm.job, second)}
    output = farm.run(jobs)
    assert sorted(farm.events("start")) == sorted(farm.events("end")) == first + second
    kinds = [(line[0], line[1][0]) for line in farm.log()]
    assert kinds.index(("start", "b")) > max(n for n, k in enumerate(kinds) if k == ("end", "a"))
    assert {line[2] for line in farm.log()} == set(farm.hosts.names)
    header, *rows = (farm.folder / "joblog").read_text().splitlines()
    assert header == "Stage\tSeq\tHost\tSeconds\tExitval\tSignal\tCommand"
    assert [row.split("\t")[0] for row in rows] == ["exits"] * 9 + ["logits"] * 3
    assert rows[0].endswith(f"\t{farm.job('a0')}")
    assert "all jobs done" in output
    assert "+ sh " in (farm.folder / "joblog.d/01_exits/1.log").read_text()


def test_jobs_at_once_have_a_gpu_each(farm):
    farm.config.write_text(farm.config.read_text() + 'GPUS="4 6 7"\n')
    (farm.shared / "hold").touch()
    names = [f"a{n}" for n in range(4)]
    runner = farm.start({"exits": map(farm.job, names)}, hosts="3/host1 # GPUs\n\n# x\nhost2")
    farm.wait_for(lambda: len(farm.events("start")) == 4, "four jobs at once")
    (farm.shared / "hold").unlink()
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 0, output
    gpus = sorted((line[2], line[3]) for line in farm.log() if line[0] == "start")
    assert gpus == [("host1", "4"), ("host1", "6"), ("host1", "7"), ("host2", "4")]


def test_a_second_runner_of_the_same_table_is_refused(farm):
    """It would remove the logs by which the first one counts its jobs."""
    (farm.shared / "hold").touch()
    runner = farm.start({"exits": [farm.job("a0")]}, hosts="host1\n")
    farm.wait_for(lambda: farm.events("start"), "a job")
    assert "another runner uses" in farm.run({"exits": [farm.job("a0")]}, fails=True)
    (farm.shared / "hold").unlink()
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 0 and "all jobs done" in output, output


def test_wrong_hosts_are_reported_and_the_others_used(farm):
    shutil.rmtree(farm.hosts.home("host3") / "team net")
    hosts = "host1\nno-such-host.invalid\nhost3\n"
    output = farm.run({"exits": [farm.job("a0"), farm.job("a1")]}, hosts=hosts)
    assert "host no-such-host.invalid is LEFT OUT" in output
    assert "host host3 is LEFT OUT" in output and "team net" in output
    assert [line[2] for line in farm.log() if line[0] == "end"] == ["host1", "host1"]
    output = farm.run({"exits": [farm.job("a2")]}, hosts="no-such-host.invalid", fails=True)
    assert "none of the hosts" in output and not (farm.shared / "done/a2").exists()


def test_jobs_of_a_killed_host_finish_elsewhere(farm):
    (farm.shared / "hold").touch()
    names = [f"a{n}" for n in range(5)]
    runner = farm.start({"exits": map(farm.job, names)}, hosts="host1\nhost2\n")
    farm.wait_for(lambda: {line[2] for line in farm.log()} >= {"host1", "host2"}, "two at work")
    farm.hosts.kill("host1")
    (farm.shared / "hold").unlink()
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 0, output
    assert sorted(farm.events("end")) == names
    assert {line[2] for line in farm.log() if line[0] == "end"} == {"host2"}


def test_a_job_that_fails_twice_passes_at_the_third_try(farm):
    jobs = {"exits": [farm.job("a0"), farm.job("flaky0")], "logits": [farm.job("b0")]}
    output = farm.run(jobs, "--retries", "2", fails=True)
    assert "FAILED on host" in output and "exit code 7" in output and "this one fails" in output
    assert farm.events("start").count("flaky0") == 2
    assert not (farm.shared / "done/b0").exists()  # its stage waits for the one before
    output = farm.run(jobs, "--resume", "--retries", "2")
    assert farm.events("start").count("a0") == 1
    assert sorted(farm.events("end")) == ["a0", "b0", "flaky0"]
    assert "all jobs done" in output and "FAILED" not in output


def test_keep_going_starts_the_next_stage(farm):
    jobs = {"exits": ["false", farm.job("a0")], "logits": [farm.job("b0")]}
    output = farm.run(jobs, "--retries", "1", "--keep-going", fails=True)
    assert sorted(farm.events("end")) == ["a0", "b0"]
    assert "1 job(s)" in output and "failed" in output


def test_resume_after_the_runner_is_killed(farm):
    (farm.shared / "hold").touch()
    names = [f"a{n}" for n in range(5)]
    jobs = {"exits": [farm.job(name) for name in names], "logits": [farm.job("b0")]}
    runner = farm.start(jobs)
    farm.wait_for(lambda: len(farm.events("start")) == 3, "three at work")
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    # Its three jobs may live on: they are not run a second time beside themselves.
    resumed = farm.start(jobs, "--resume")
    logs = farm.folder / "joblog.d/01_exits"
    farm.wait_for(
        lambda: sum("waiting" in path.read_text() for path in logs.glob("*.log")) == 3,
        "the same three wait for the old ones",
    )
    (farm.shared / "hold").unlink()
    output, _ = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, output
    assert sorted(farm.events("end")) == [*names, "b0"]
    assert sorted(farm.events("start")) == [*names, "b0"]


@pytest.mark.parametrize("how", ["Ctrl-C", "kill"])
def test_stopping_the_runner_stops_the_jobs_on_the_hosts(farm, how):
    (farm.shared / "hold").touch()
    names = [f"a{n}" for n in range(4)]
    jobs = {"exits": [farm.job(name) for name in names]}
    runner = farm.start(jobs)
    farm.wait_for(lambda: len(farm.events("start")) == 3, "three at work")
    assert len(farm.working()) >= 3
    if how == "Ctrl-C":  # the terminal sends it to all processes of the session's foreground
        os.killpg(runner.pid, signal.SIGINT)
    else:
        runner.terminate()
    output, _ = runner.communicate(timeout=30)
    assert runner.returncode == 130 and "--resume goes on" in output
    farm.wait_for(lambda: not farm.working(), "no job is left on a host")
    (farm.shared / "hold").unlink()
    farm.run(jobs, "--resume")
    assert sorted(farm.events("end")) == names


def test_names_with_spaces_and_shell_characters(farm):
    farm.run({"exits": [farm.job(NASTY), farm.job("plain")]}, hosts="host1\n:\n")
    assert sorted(os.listdir(farm.shared / "done")) == sorted([NASTY, "plain"])
    assert not list(farm.folder.rglob("pwned")) and not (REPO / "pwned").exists()


def test_resume_with_other_jobs_is_refused(farm):
    farm.run({"exits": [farm.job("a0")]}, hosts="host1")
    output = farm.run({"exits": [farm.job("a1")]}, "--resume", hosts="host1", fails=True)
    assert "has changed since" in output and not (farm.shared / "done/a1").exists()


def test_a_sweep_of_the_real_scripts(farm, toy_data):
    """Backbone, exits, logits, on two hosts that each have the code, and share data and runs."""
    data, runs = (farm.shared / f"{name} of toy" for name in ("data", "runs"))
    for name in ("host1", "host2"):
        copy_checkout(farm.hosts.home(name) / "team net", CODE)
    shutil.copytree(toy_data, data)
    options = {
        **{"--data": "toy", "--splits": "split1", "--seeds": "1", "--init": "", "--runs": runs},
        **{"--methods": "team_ce prog_kd", "--data-root": data, "--lists": f"{data}/{{part}}.txt"},
        **{"--network": "--arch resnet18 --num_segments 2 --crop-size 32"},
        **{"--all-flags": "--no-flip --workers 0", "--backbone-flags": "--epochs 1 --batch-size 8"},
        **{"--frozen-flags": "--views 1", "--exit-flags": "--epochs 8 --lr-steps 4"},
    }
    words = [str(word) for pair in options.items() for word in pair]
    command = ["sh", REPO / "multirunner/create_all_jobs.sh", *words]
    study = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True).stdout
    study = study.split("# stage: wise")[0]  # what comes then takes no videos
    farm.config.write_text(f"cd ~/'team net'\nPYTHON={sys.executable}\nOMP_NUM_THREADS=1\n")
    command = farm.command({}, hosts="host1\nhost2\n")
    (farm.folder / "jobs.sh").write_text(study)
    process = subprocess.run(command, env=farm.hosts.environment, text=True, capture_output=True)
    assert process.returncode == 0, process.stdout + process.stderr
    files = {str(path.relative_to(runs / "toy")) for path in runs.rglob("*") if path.is_file()}
    for method in ("team_ce", "prog_kd"):
        assert {f"{method}/split1_seed1/{file}" for file in ("result.json", "logits.pt")} <= files
    rows = [row.split("\t") for row in (farm.folder / "joblog").read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == ["backbone", "bank", "exits", "exits", "logits", "logits"]
    assert {row[2] for row in rows} == {"host1", "host2"}
