"""Worker processes leave alone what they inherit: the threads of PyAV's objects are not theirs."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from coviar import load_clip
from coviar.threads import num_threads
from tests.conftest import REPO
from tests.coviar_videos import pictures, write_video

PLACES = [(0, 4), (1, 3)]

# A scaler with threads in a cycle of garbage, as after an exception; `collect` is what Python does
# on its own after some thousand new objects.
GARBAGE = """
import gc
import sys
import av
import numpy as np

gc.disable()

class Cycle:
    pass

def leave():
    cycle = Cycle()
    frame = av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8), format="rgb24")
    cycle.frame, cycle.self = frame, cycle
    cycle.scaled = frame.reformat(64, 48, format="yuv420p")

def collect(*_):
    gc.collect()
    return np.zeros((48, 64, 3), np.uint8)

leave()
"""
TOY = """
from dataset_team import toy

toy.draw = lambda video: [collect()] * 30
print(len(toy.make_toy(sys.argv[1], 6, (64, 48))))
"""
LOADER = """
import torch
from training.loading import make_loader

class Data(torch.utils.data.Dataset):
    __getitem__ = collect

print(len(list(make_loader(Data(), [0, 1], 1, 2, torch.device("cpu")))))
"""
OTHER = """
import multiprocessing
import coviar

context = multiprocessing.get_context("fork")
with context.Pool(1) as pool:
    print(len(pool.map(collect, range(2))))
"""


@pytest.mark.parametrize("use", [TOY, LOADER, OTHER], ids=["toy", "loader", "other"])
def test_workers_do_not_free_decoders_of_their_parent(use, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", GARBAGE + use, tmp_path],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
    assert (process.returncode, output) == (0, "2\n"), errors


def load_in_threads(path):
    default = num_threads(None, 8)
    return default, [array.tobytes() for array in load_clip(path, PLACES, threads=2)]


def test_a_fork_has_threads_of_its_own_and_uses_one(tmp_path):
    path = write_video(tmp_path / "video.mp4", pictures(10), gop=5)
    _, expected = load_in_threads(path)  # starts this process's threads
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(load_in_threads, [path]).get(timeout=60) == (1, expected)
