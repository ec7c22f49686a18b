"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from synthetic_study import make_runs, run_main

from early_exit import collect

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
