"""The first use of the loader on a machine says why it takes long; later ones say nothing."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPO

USE_A_LOOP = """
import numpy as np
from coviar import kernels, mpeg4

mpeg4.find_start_codes(np.zeros(9, np.uint8))
kernels.identity_map(np.zeros((2, 2), np.uint32))
"""


def test_compiling_is_said_once_and_not_when_the_result_is_kept(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", USE_A_LOOP]
    said = [
        subprocess.run(
            command, cwd=REPO, env=environment, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    assert said[0].stderr == "compiling the loader's loops, once (some 20 s)\n"
    assert said[1].stderr == said[0].stdout == said[1].stdout == ""


NO_FOLDER = """
from numba.core import caching

for kind in (caching.CacheImpl, caching.CompileResultCacheImpl):
    kind._locator_classes = []
"""
FULL_DISK = """
from numba.core import caching

def full(self, *arguments):
    raise OSError(28, "No space left on device")

caching.IndexDataCacheFile.save = full
"""
UNREADABLE = FULL_DISK.replace("save = full", "load = full")


@pytest.mark.parametrize("disk", [NO_FOLDER, FULL_DISK, UNREADABLE])
def test_loops_that_cannot_be_kept_are_compiled_each_time(tmp_path, disk):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", disk + USE_A_LOOP]
    for _ in range(2):
        done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stderr.splitlines() if "cannot be kept" in line]
        assert len(said) == 1 and "set NUMBA_CACHE_DIR to a folder" in said[0]
        assert "Traceback" not in done.stderr
