"""What a test does without a program that it needs."""

import os
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip, except in CI, where everything must be tested: with CI set, to anything, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; CI is set, so this test may not be skipped")
    pytest.skip(what)
