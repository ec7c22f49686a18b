"""The run folder: args.json, env.json, log.jsonl (one line an epoch), result.json, lock."""

from __future__ import annotations

import argparse
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

from coviar.files import half_written, whole_file
from training import distributed
from training.lock import RunLock

# What may differ between the first start of a run and its resumption: none of it changes a result.
FREE_ON_RESUME = {
    *("resume", "overwrite", "tensorboard", "workers", "gpus"),
    *("checkpoint_dir", "data_root", "index_dir", "cache_dir", "save_steps", "precision_asked"),
}
CHECKPOINTS = ("last.pt", "previous.pt", "best.pt")  # named by checkpoint.py, slow to import


def command_line() -> str:
    """The command that started this process, quoted for a shell: a script, or `python -m`."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", module.name] if module else sys.argv[:1]
    return shlex.join(["python", *program, *sys.argv[1:]])


def write_json(path: Path, content: dict) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def environment() -> dict:
    """Versions and machine, so that a number can be traced to what made it."""
    repo = Path(__file__).resolve().parent.parent
    commit = subprocess.run(
        ["git", "-C", str(repo), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "commit": commit or None,
        "command": command_line(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": numpy.__version__,
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


class RunFolder:
    """One run's folder, `<checkpoint_dir>/<data>/<method>/<split>_seed<k>/`.

    In several processes all of them call its methods, and the main one alone touches the disk.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._tensorboard = None
        self._lock: RunLock | None = None

    @property
    def result(self) -> dict | None:
        """The finished run's result, None while there is none."""
        file = self.path / "result.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def check(self, args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
        """End in parser.error where starting would lose a run or mix two.

        That is when the folder holds a run and neither --resume nor --overwrite is given, or when
        --resume comes with other options than the run was started with.
        """
        recorded = self.path / "args.json"
        if not recorded.is_file() or args.overwrite:
            return
        if not args.resume:
            parser.error(
                f"{self.path} already holds a run; --resume continues it (or reports its result),"
                " --overwrite starts again"
            )
        now = _plain(args)
        # A run of before an option was there was made as the option's default says.
        before = {key: parser.get_default(key) for key in now}
        before.update(json.loads(recorded.read_text()))
        changed = [
            f"--{key.replace('_', '-')}: was {before.get(key)}, now {now.get(key)}"
            for key in sorted(before.keys() | now.keys())
            if key not in FREE_ON_RESUME and not _same(before.get(key), now.get(key))
        ]
        if changed:
            if now.get("precision_asked") == "auto" and before["precision"] != now["precision"]:
                changed.append(f"--precision auto is {now['precision']} on this machine")
            parser.error(
                f"{self.path} was started with other options ({'; '.join(changed)});"
                " use those, or another --checkpoint_dir, or --overwrite"
            )

    def finished(self, args: argparse.Namespace, parser: argparse.ArgumentParser) -> dict | None:
        """The result of a run that is done and not to be overwritten, after `check`."""
        distributed.on_main(self.check, args, parser)
        return distributed.on_main(lambda: None if args.overwrite else self.result)

    def start(self, args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
        """Lock the folder, and record options and environment of a new run.

        --overwrite removes the old run first. To be called after everything that can be wrong with
        the options has been checked. Raises LockedError when another run is at work here.
        """
        distributed.on_main(self._start, args, parser)

    def _start(self, args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
        self._lock = RunLock(self.path)
        self.check(args, parser)
        for name in ("args.json", "env.json", "log.jsonl", "result.json", *CHECKPOINTS):
            if args.overwrite:
                (self.path / name).unlink(missing_ok=True)
            for file in half_written(self.path / name):
                file.unlink()
        if not (self.path / "args.json").is_file():
            write_json(self.path / "env.json", environment())
            write_json(self.path / "args.json", _plain(args))

    def start_log(self, epochs_done: int, tensorboard: bool) -> None:
        """Keep the log lines of the epochs the checkpoint holds; an interrupted epoch's go."""
        if not distributed.is_main():
            return
        file = self.path / "log.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        with whole_file(file) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines[:epochs_done]))
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                print("--tensorboard: not installed, `pip install tensorboard`; logging without")
                return
            self._tensorboard = SummaryWriter(self.path, purge_step=epochs_done)

    def log(self, line: dict) -> None:
        """Append one epoch's line (it holds `epoch`) and print it."""
        if not distributed.is_main():
            return
        with open(self.path / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        print("  ".join(f"{key} {_short(value)}" for key, value in line.items()), flush=True)
        if self._tensorboard:
            for key, value in line.items():
                if isinstance(value, (int, float)):
                    self._tensorboard.add_scalar(key, value, line["epoch"])

    def finish(self, result: dict) -> None:
        """Write the result; the checkpoint before the last is of no more use."""
        if not distributed.is_main():
            return
        write_json(self.path / "result.json", result)
        (self.path / "previous.pt").unlink(missing_ok=True)

    def release(self) -> None:
        """Let others have the folder."""
        if self._lock:
            self._lock.release()
            self._lock = None


def print_result(result: dict) -> None:
    """The machine-readable last line of every script."""
    print(f"result: {json.dumps(result)}", flush=True)


def _same(before: object, now: object) -> bool:
    """Whether two recorded values are equal, or are two ways to write one path."""
    both_text = isinstance(before, str) and isinstance(now, str)
    return before == now or (both_text and Path(before).resolve() == Path(now).resolve())


def _plain(args: argparse.Namespace) -> dict:
    """The options as JSON keeps them."""
    return json.loads(json.dumps(vars(args), default=str))


def _short(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(str(_short(item)) for item in value) + "]"
    return value
