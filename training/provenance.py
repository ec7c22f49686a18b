"""Where a number comes from: the command, the versions, the machine; and a script's last line."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy
import torch


def command_line() -> str:
    """The command that started this process, quoted for a shell: a script, or `python -m`."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", module.name] if module else sys.argv[:1]
    return shlex.join(["python", *program, *sys.argv[1:]])


def environment() -> dict:
    """Versions and machine, so that a number can be traced to what made it."""
    return {
        "commit": _commit(),
        "command": command_line(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": numpy.__version__,
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def print_result(result: dict) -> None:
    """The machine-readable last line of every script."""
    print(f"result: {json.dumps(result)}", flush=True)


def _commit() -> str | None:
    """The checkout's commit; None where there is no repository, or no git."""
    repo = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(repo), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return run.stdout.strip() or None
