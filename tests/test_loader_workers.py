"""Loader workers outlive a signal of a scheduler, and never their parent."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from tests.conftest import REPO
from training.options import asking_for_room, make_parser

# An iterator that is alive at the end, as after an error in the middle of an epoch.
LEAVE_WORKERS = """
import sys
import torch
from training.stopping import ignore_in_worker

loader = torch.utils.data.DataLoader(
    range(100), num_workers=2, persistent_workers=True, worker_init_fn=ignore_in_worker
)
samples = iter(loader)
next(samples), next(samples)  # of each worker
print(*(worker.pid for worker in samples._workers), flush=True)
sys.stdin.readline()
print(sum(1 for _ in samples), flush=True)
sys.exit(3)
"""


def test_workers_outlive_a_signal_to_them_but_not_their_parent():
    process = subprocess.Popen(
        [sys.executable, "-c", LEAVE_WORKERS],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        for number in (signal.SIGTERM, signal.SIGUSR1):
            for pid in workers:
                os.kill(pid, number)
        output, _ = process.communicate("go on\n", timeout=30)
    finally:
        process.kill()
    assert (process.returncode, output) == (3, "98\n")


class Dying(torch.utils.data.Dataset):
    """Its workers end as by the system where memory is full, or by themselves."""

    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 4

    def __getitem__(self, number):
        os._exit(3) if self.how == "exit" else os.kill(os.getpid(), self.how)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, "exit"])
def test_a_killed_worker_is_one_line_that_names_workers(how, capsys):
    with pytest.raises(SystemExit) as ended, asking_for_room(make_parser(""), "--resume"):
        list(torch.utils.data.DataLoader(Dying(how), num_workers=1))
    assert ended.value.code == 1
    assert "give fewer --workers, then --resume" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="another"), asking_for_room(make_parser(""), ""):
        raise RuntimeError("another")
