"""Shell scripts of jobs, and a stand-in for the Python that they start."""

import json
import os
import signal
import subprocess
import sys

from tests.conftest import REPO

NASTY = "a b'c$(touch pwned)\"`touch pwned`;&\\n*"


def heed_interrupts():
    """For Popen's preexec_fn: tests that run in the background of a script are deaf to Ctrl-C, and
    so is what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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


def stub_of_python(folder):
    """Environment of a `python` that writes its options, as JSON, and its result if it has one."""
    file = folder / "python_stub"
    file.write_text(
        f"#!{sys.executable}\nimport json, os, pathlib, sys\n"
        "with open(os.environ['CALLS'], 'a') as file:\n"
        "    file.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "for line in os.environ.get('FAILING', '').split():\n"
        "    if line in sys.argv: sys.exit(9)\n"
        "if os.environ.get('RESULT'): pathlib.Path(os.environ['RESULT']).touch()\n"
    )
    file.chmod(0o755)
    return {"PYTHON": file, "CALLS": folder / "calls"}


def calls(python):
    text = python["CALLS"].read_text() if python["CALLS"].exists() else ""
    return [json.loads(line) for line in text.splitlines()]
