"""The first use of the loader on a machine says why it takes long; later ones say nothing."""

import os
import subprocess
import sys

from conftest import REPO

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
