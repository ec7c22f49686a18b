"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden arrays and real clips; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("TEAMNET_SHARED", REPO.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no golden data at {folder} (set TEAMNET_SHARED)")
    return folder
