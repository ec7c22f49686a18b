"""Fixtures shared by all tests; the costly ones are made once, whatever the number of workers."""

import faulthandler
import os
import shutil
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # of the scripts that tests start, too; before torch reads it

import pytest
import torch
from filelock import FileLock

import models.team_net
from dataset_team import toy
from MACs.team_net import _stage_macs, _stream_gmacs
from models.team_net import TeamNet
from study import collect
from tests.calls import call
from tests.script_server import Server
from tests.synthetic_study import make_runs
from tests.tiny_network import tiny_resnet
from training.checkpoint import save_checkpoint

REPO = Path(__file__).resolve().parent.parent
# The packages of the product; benchmarks only measures it.
ROOMS = ("coviar", "dataset_team", "models", "training", "early_exit", "MACs", "study")
# pytest-timeout ends a test that hangs in Python. One that hangs in compiled code ends with its
# process, which pytest-xdist names as the failure.
HANG_S = 660
# Files that take longest, the longest first, so that none is left for one process at the end.
LONGEST = [
    f"test_{name}.py"
    for name in (
        *("smoke", "predict", "second_edition", "job_generators", "multirunner"),
        *("networks", "reading", "macs_rivals", "nothing_lost"),
        *("distributed", "scripts", "options", "coviar_windows", "weights", "models"),
        *("models_benchmarks", "notebook", "collect", "models_early_exit", "tuning", "timeline"),
    )
]


def pytest_configure(config):
    config.stderr_of_hangs = os.dup(2)  # what is written during a test is captured, and lost
    config.option.loadscopereorder = False  # pytest-xdist's own order is by the number of tests


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    faulthandler.dump_traceback_later(HANG_S, exit=True, file=item.config.stderr_of_hangs)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden arrays and real clips, which not everyone has: without it, tests that
    need it are skipped, in CI too."""
    folder = Path(os.environ.get("TEAMNET_SHARED", REPO.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no golden data at {folder} (set TEAMNET_SHARED)")
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """once(name, fill): a folder that `fill(folder)` filled, in one of pytest-xdist's workers.

    All of them read it, so nobody writes there.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name, fill):
        folder, filled = base / name, base / f"{name}.filled"
        with FileLock(base / f"{name}.lock"):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def synthetic_runs(once) -> Path:
    """A tree of finished runs: 2 splits x 2 seeds x 4 methods on made-up logits."""
    return once("synthetic_runs", make_runs)


@pytest.fixture(scope="session")
def synthetic_study(once, synthetic_runs) -> Path:
    """The same collected, in a folder of studies."""

    def fill(folder):
        call(collect, synthetic_runs, "--out", folder / "toy")

    return once("synthetic_results", fill) / "toy"


@pytest.fixture(scope="session")
def toy_data(once) -> Path:
    """The smallest toy data set, 9 small videos a class, with its lists train.txt and test.txt."""
    return once("toy_data", lambda folder: toy.make_toy(folder, 9, (64, 48)))


@pytest.fixture(scope="session")
def toy_options(toy_data) -> list[str]:
    """Options that name the toy data set."""
    lists = ["--train-list", toy_data / "train.txt", "--test-list", toy_data / "test.txt"]
    options = ["--data-name", "toy", "--data-root", toy_data, *lists, "--no-flip", "--workers", 0]
    return list(map(str, options))


@pytest.fixture(scope="session")
def frozen_toy(once, toy_options) -> tuple[list[str], Path]:
    """Options that name the toy data set and its runs, and the checkpoint of a backbone (untrained)
    among these. To be read only: give another --checkpoint_dir, or --cache-dir. Its ResNets are
    tiny ones: use the fixture tiny_resnets as well.
    """

    def fill(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models.team_net, "build_network", tiny_resnet)
            torch.manual_seed(1)
            net = TeamNet(len(toy.CLASSES), num_segments=1, arch="resnet18")
        content = {"model": net.state_dict(), "config": net.config, "crop_size": 32, "heldout": []}
        save_checkpoint(folder / "toy/team_net/split1_seed1/best.pt", content)

    runs = once("frozen", fill)
    best = runs / "toy/team_net/split1_seed1/best.pt"
    return [*toy_options, "--checkpoint_dir", str(runs)], best


@pytest.fixture(scope="module")
def tiny_resnets():
    """Networks made in this process have ResNets of a few thousand weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.team_net, "build_network", tiny_resnet)
        forget_costs()
        yield
    forget_costs()


def forget_costs():
    """Those of networks of one name, tiny or not."""
    for counted in (_stage_macs, _stream_gmacs):
        counted.cache_clear()


@pytest.fixture(scope="session")
def tiny_toy(toy_options) -> list[str]:
    """Options of a training on the toy data set that the server's network makes in seconds."""
    options = ["--num_segments", 1, "--crop-size", 32, "--batch-size", 6, "--lr", 0.01]
    return [*toy_options, *map(str, options)]


@pytest.fixture(scope="session")
def server(tmp_path_factory, toy_data):
    """Starts scripts in milliseconds, see script_server.py."""
    video = next(toy_data.glob("*/*.mp4"))
    server = Server(tmp_path_factory.mktemp("server"), video)
    yield server
    server.close()
