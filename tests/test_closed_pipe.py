"""`| head` ends every command line quietly, and hides no other broken pipe."""

import ast
import os
import subprocess
import sys

import pytest

from coviar.command import CLOSED_PIPE, quiet_pipe
from tests.conftest import REPO
from tests.coviar_videos import pictures, write_video

HELPERS = {"run", "quiet_pipe"}


def to_nobody(*words):
    """Run with an output that nobody reads; the exit code and what is on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, *map(str, words)]
    try:
        done = subprocess.run(command, cwd=REPO, stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    return done.returncode, done.stderr


def test_results_that_nobody_reads(tmp_path):
    path = write_video(tmp_path / "v.m4v", pictures(3))
    assert to_nobody("-m", "coviar.check", path) == (CLOSED_PIPE, "")


def test_help_that_nobody_reads():
    code, errors = to_nobody("-m", "coviar.visualize", "--help")
    assert code in (0, CLOSED_PIPE) and errors == ""  # argparse itself is quiet from 3.10 on


def test_without_the_helper_it_is_a_traceback():
    assert "BrokenPipeError" in to_nobody("-c", "print('result', flush=True)")[1]


def test_another_broken_pipe_is_an_error():
    with pytest.raises(BrokenPipeError), quiet_pipe():
        raise BrokenPipeError


def blocks():
    for path in [*REPO.glob("*.py"), *REPO.glob("*/*.py"), *REPO.glob("*/*/*.py")]:
        name = str(path.relative_to(REPO))
        if name.startswith(("tests/", ".")):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
                yield name, node


def test_every_command_line_uses_the_helper():
    used = {
        name: {call.func.id for call in ast.walk(node) if is_named_call(call)} & HELPERS
        for name, node in blocks()
        if "sys.path" not in ast.unparse(node)
    }
    assert len(used) > 20
    assert [name for name, helpers in used.items() if not helpers] == []
    ends = {name: "run" in helpers for name, helpers in used.items() if "benchmarks" in name}
    assert len(ends) > 10 and all(ends.values()), ends  # Ctrl-C ends a long measurement quietly


def is_named_call(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
