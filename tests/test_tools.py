"""Tests that lack a program are skipped, but not where everything must be tested."""

import shutil

import pytest

from tests.coviar_videos import ffmpeg
from tests.tools import lacking


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [
        ("true", pytest.fail.Exception),
        ("1", pytest.fail.Exception),
        ("", pytest.skip.Exception),
        (None, pytest.skip.Exception),
    ],
)
@pytest.mark.parametrize("need", [lambda: lacking("no ffmpeg command"), ffmpeg])
def test_what_is_lacking_is_skipped_or_fails(monkeypatch, ci, outcome, need):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    if ci is None:
        monkeypatch.delenv("CI", raising=False)
    else:
        monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="ffmpeg command"):
        need()
