"""What makes training fast on a CPU changes no result."""

import copy
import subprocess
import sys

import pytest
import torch

from benchmarks import memory
from tests.calls import refused
from training.on_cpu import prepare_for_training

FREES = """
import sys
import numpy as np
from training.memory import keep_freed_memory

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 2**20

kept = "keep" in sys.argv and keep_freed_memory()
before = resident_mb()
for _ in range(2):
    block = np.ones(2**26, np.uint8)
    del block
print(kept, resident_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/statm")
def test_freed_memory_stays_with_the_process():
    def run(*words):
        command = [sys.executable, "-c", FREES, *words]
        kept, megabytes = subprocess.check_output(command, text=True).split()
        return kept == "True", int(megabytes)

    assert run()[1] < 32
    kept, megabytes = run("keep")
    if not kept:
        pytest.skip("another C library than glibc")
    assert 64 <= megabytes < 96, "the second block takes the place of the first"


@pytest.mark.parametrize("kind", [torch.nn.ReLU6, torch.nn.Hardswish, torch.nn.SiLU])
def test_activations_that_need_their_input_leave_it_where_it_is(kind):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), kind(inplace=True), torch.nn.ReLU(True))
    ours = prepare_for_training(copy.deepcopy(plain), torch.device("cpu"))
    assert [module.inplace for module in ours[1:]] == [False, True]
    cuda = prepare_for_training(copy.deepcopy(plain), torch.device("cuda"))
    assert cuda[1].inplace
    x = torch.randn(2, 3, 8, 8)
    for net in (plain, ours):
        net(x).square().sum().backward()
    for a, b in zip(plain.parameters(), ours.parameters()):
        assert torch.equal(a.grad, b.grad)


def test_its_benchmark_compares_two_processes():
    tiny = ["--crop-size", "32", "--num_segments", "2", "--batch-size", "2", "--repeats", "1"]
    command = [sys.executable, "-m", "benchmarks.memory", *tiny]
    done = subprocess.run(command, capture_output=True, text=True)
    if "does not keep" in done.stderr:
        pytest.skip("another C library than glibc")
    assert done.returncode == 0, done.stderr
    assert '"kept": {"ms"' in done.stdout and '"given back": {"ms"' in done.stdout


def test_its_benchmark_is_about_the_cpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "about the CPU" in refused(capsys, memory, "--device", "cuda")
