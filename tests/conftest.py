"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch
from synthetic_study import make_runs, run_main
from training_server import Server

from dataset_team import toy
from models.team_net import TeamNet
from study import collect
from training.checkpoint import save_checkpoint

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden arrays and real clips; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("TEAMNET_SHARED", REPO.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no golden data at {folder} (set TEAMNET_SHARED)")
    return folder


@pytest.fixture(scope="session")
def synthetic_runs(tmp_path_factory) -> Path:
    """A tree of finished runs: 2 splits x 2 seeds x 4 methods on made-up logits."""
    return make_runs(tmp_path_factory.mktemp("synthetic") / "runs")


@pytest.fixture(scope="session")
def synthetic_study(synthetic_runs) -> Path:
    """The same collected, in a folder of studies."""
    study = synthetic_runs.parent / "results" / "toy"
    run_main(collect, synthetic_runs, "--out", study)
    return study


@pytest.fixture(scope="session")
def frozen_toy(tmp_path_factory) -> tuple[list[str], Path]:
    """Options that name a toy data set and its runs, and the checkpoint of a backbone (untrained)
    among these. To be read only: give another --checkpoint_dir, or --cache-dir.
    """
    folder = tmp_path_factory.mktemp("frozen")
    toy.make_toy(folder, videos_per_class=9, size=(64, 48))
    torch.manual_seed(1)
    net = TeamNet(len(toy.CLASSES), num_segments=1, arch="resnet18")
    best = folder / "runs/toy/team_net/split1_seed1/best.pt"
    content = {"model": net.state_dict(), "config": net.config, "crop_size": 32, "heldout": []}
    save_checkpoint(best, content)
    lists = ["--train-list", folder / "train.txt", "--test-list", folder / "test.txt"]
    options = ["--data-name", "toy", "--data-root", folder, *lists, "--workers", "0"]
    return [*map(str, options), "--checkpoint_dir", str(folder / "runs")], best


@pytest.fixture(scope="session")
def tiny_toy(tmp_path_factory):
    """Options of a training on a small toy data set that the server's network makes in seconds."""
    folder = tmp_path_factory.mktemp("tiny_toy")
    train, test = toy.make_toy(folder, videos_per_class=9, size=(64, 48), seed=0)
    options = ["--data-name", "toy", "--data-root", folder, "--no-flip", "--workers", 0]
    options += ["--train-list", train, "--test-list", test, "--num_segments", 1]
    return [*options, "--crop-size", 32, "--batch-size", 6, "--lr", 0.01]


@pytest.fixture(scope="session")
def server(tmp_path_factory, tiny_toy):
    """Starts training scripts in milliseconds, see training_server.py."""
    video = next(tiny_toy[3].glob("*/*.mp4"))
    server = Server(tmp_path_factory.mktemp("server"), video)
    yield server
    server.close()
