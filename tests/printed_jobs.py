"""Jobs that the scripts in multirunner print, with the options that they give to which script."""

import importlib
import re
import shlex

from tests.conftest import REPO
from tests.shell_jobs import run
from training import views

MULTIRUNNER = REPO / "multirunner"


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
