"""Containers whose streams are found while reading: PyAV up to 17.0 frees one dictionary per stream
too many with av.open(options=...), which crashes the interpreter; container_options is right."""

import ast
import os
import subprocess
import sys

import av
import pytest

from tests.conftest import REPO
from tests.coviar_videos import pictures, write_video

FORMATS = {"mpeg": "mpeg2video", "flv": "flv1"}
# A few of these crash at the first opening, all of them within some 20.
OPEN_OFTEN = """
import contextlib, pathlib, sys
import av
from coviar import read_index, reencode

video, wrong = pathlib.Path(sys.argv[1]), sys.argv[2] == "options"
if wrong:
    right = av.open
    av.open = lambda file, *, container_options, **how: right(
        file, options=container_options, **how
    )
for _ in range(200):
    with contextlib.suppress(ValueError):  # its codec is not MPEG-4
        read_index(video)
    reencode.reencode_in_memory(video, (32, 32), 4, 2)
print("done")
"""


def open_often(folder, container, keyword):
    video = folder / f"video.{container}"
    write_video(video, pictures(3), codec=FORMATS[container], container=container)
    command = [sys.executable, "-c", OPEN_OFTEN, str(video), keyword]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("container", FORMATS)
def test_a_file_can_be_opened_often(tmp_path, container):
    run = open_often(tmp_path, container, "container_options")
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr


@pytest.mark.skipif(
    tuple(map(int, av.__version__.split(".")[:2])) >= (17, 1), reason="PyAV 17.1 mended it"
)
@pytest.mark.parametrize("container", FORMATS)
def test_the_other_keyword_crashes(tmp_path, container):
    assert open_often(tmp_path, container, "options").returncode < 0


def wrong_openings(source):
    """Lines on which av.open is called with options=, or with keywords that cannot be seen."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if ast.unparse(call.func) == "av.open"
        and any(keyword.arg in (None, "options") for keyword in call.keywords)
    ]


def test_no_file_is_opened_with_the_other_keyword():
    assert wrong_openings("import av\nav.open(\n'a',\noptions={})") == [2]
    assert wrong_openings("import av\nav.open('a', **settings)") == [2]
    assert wrong_openings("import av\nav.open('a', container_options={})") == []
    sources = [*REPO.glob("*.py"), *REPO.glob("[!.]*/**/*.py")]
    found = {
        path.relative_to(REPO).as_posix(): wrong_openings(path.read_text()) for path in sources
    }
    assert found["coviar/index.py"] == found["coviar/reencode.py"] == []
    assert {name: lines for name, lines in found.items() if lines} == {}
